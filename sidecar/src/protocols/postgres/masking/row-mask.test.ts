import { type MaskDecision, type RuleRef, SessionMasking } from "@sallyport/policy";
import { expect, test } from "vitest";
import { PatternMask } from "./pattern-mask.ts";
import { describedColumns, type MaskingContext, RowMask, withFormats } from "./row-mask.ts";

const key = Buffer.alloc(32, 7);
const ref: RuleRef = { policy: "p", rule: "masking[0]", enforcement: "authoritative" };
const masking = new SessionMasking([
  {
    masks: [
      {
        ref,
        columns: ["public.cust.ssn"],
        patterns: [],
        customPatterns: [],
        with: "Redact",
        liftable: false,
      },
    ],
    inference: "Deny",
    maskedWrites: "Deny",
  },
]);
const context: MaskingContext = {
  masking,
  patterns: new PatternMask([], key),
  originOf: (table, attribute) => (table === 100 && attribute === 3 ? "public.cust.ssn" : undefined),
  key,
};
const redact = { with: "Redact", ref, columns: ["public.cust.ssn"], isExact: true } as const;

/** A RowDescription of columns given as table, attribute, type. */
function description(columns: readonly (readonly [table: number, attribute: number, oid: number])[]): Buffer {
  const fields = columns.map(([table, attribute, oid]) => {
    const field = Buffer.alloc(20);
    field.write("c\0", "latin1");
    field.writeUInt32BE(table, 2);
    field.writeInt16BE(attribute, 6);
    field.writeUInt32BE(oid, 8);
    return field;
  });
  return message("T", Buffer.concat([int16(columns.length), ...fields]));
}

function row(values: readonly (string | Buffer | null)[]): Buffer {
  const fields = values.map((value) => {
    const bytes = value === null ? Buffer.alloc(0) : Buffer.from(value);
    const length = Buffer.alloc(4);
    length.writeInt32BE(value === null ? -1 : bytes.length);
    return Buffer.concat([length, bytes]);
  });
  return message("D", Buffer.concat([int16(values.length), ...fields]));
}

function message(type: string, body: Buffer): Buffer {
  const header = Buffer.alloc(5);
  header.write(type, "latin1");
  header.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([header, body]);
}

function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}

const idAndSsn = describedColumns(
  description([
    [100, 1, 23],
    [0, 0, 25],
  ]),
);

test("a row is rewritten with lengths that are true, and NULL stays NULL", () => {
  const decision: MaskDecision = { kind: "mask", columns: [undefined, redact] };
  const mask = new RowMask(idAndSsn, decision, context);
  expect(mask.apply(row(["1", "123-45-6789"]))).toEqual(row(["1", "***"]));
  expect(mask.apply(row(["1", null]))).toEqual(row(["1", null]));
  expect(mask.apply(row(["1", ""]))).toEqual(row(["1", "***"]));
});

test("a row in which nothing is hidden is the server's own", () => {
  const mask = new RowMask(idAndSsn, { kind: "plain" }, context);
  expect(mask.isIdle).toBe(true);
  const bytes = row(["1", "x"]);
  expect(mask.apply(bytes)).toBe(bytes);
});

test("the server's own word for a column's origin masks what the text did not tell", () => {
  const columns = describedColumns(description([[100, 3, 25]]));
  const mask = new RowMask(columns, { kind: "plain" }, context);
  expect(mask.apply(row(["123-45-6789"]))).toEqual(row(["***"]));
  const told = new RowMask(columns, { kind: "mask", columns: [undefined] }, context);
  expect(told.apply(row(["123-45-6789"]))).toEqual(row(["***"]));
});

test("a result of another width than the text says is hidden whole", () => {
  const decision: MaskDecision = { kind: "mask", columns: [undefined, undefined, redact] };
  const mask = new RowMask(idAndSsn, decision, context);
  expect(mask.apply(row(["1", "x"]))).toEqual(row(["0", "***"]));
});

test("binary values are masked in their own form", () => {
  const columns = withFormats(describedColumns(description([[0, 0, 23]])), [1]);
  const mask = new RowMask(columns, { kind: "mask", columns: [redact] }, context);
  expect(mask.apply(row([Buffer.from([0, 0, 0, 9])]))).toEqual(row([Buffer.alloc(4)]));
});

test("one format code is for all columns, none is text", () => {
  expect(withFormats(idAndSsn, [1]).map(({ format }) => format)).toEqual([1, 1]);
  expect(withFormats(idAndSsn, []).map(({ format }) => format)).toEqual([0, 0]);
  expect(withFormats(idAndSsn, [0, 1]).map(({ format }) => format)).toEqual([0, 1]);
});

test("a row that does not fit its description, or lies about its lengths, is refused", () => {
  const mask = new RowMask(idAndSsn, { kind: "mask", columns: [undefined, redact] }, context);
  const good = row(["1", "secret"]);
  expect(() => mask.apply(row(["1"]))).toThrow(/malformed/);
  expect(() => mask.apply(Buffer.concat([good, Buffer.from("x")]))).toThrow(/malformed/);
  for (let cut = 0; cut < good.length; cut += 1) expect(() => mask.apply(good.subarray(0, cut))).toThrow();
  const lies = Buffer.from(good);
  lies.writeInt32BE(-2, 7);
  expect(() => mask.apply(lies)).toThrow(/malformed/);
});

test("a description that is cut is refused", () => {
  const whole = description([[100, 1, 23]]);
  for (let cut = 5; cut < whole.length; cut += 1) {
    expect(() => describedColumns(whole.subarray(0, cut))).toThrow(/malformed/);
  }
});

test("a NULL that would tell of a value looks like any other value", () => {
  const decision: MaskDecision = { kind: "mask", columns: [{ ...redact, isExact: false, hidesNull: true }] };
  const mask = new RowMask(describedColumns(description([[0, 0, 25]])), decision, context);
  expect(mask.apply(row([null]))).toEqual(row(["***"]));
  expect(mask.apply(row(["a"]))).toEqual(row(["***"]));
  const shown: MaskDecision = { kind: "mask", columns: [{ ...redact, isExact: false }] };
  const kept = new RowMask(describedColumns(description([[0, 0, 25]])), shown, context);
  expect(kept.apply(row([null]))).toEqual(row([null]));
});

test("patterns are looked for in what is left of JSON that is masked in parts", () => {
  const patterns = new PatternMask(
    [{ patterns: ["email"], customPatterns: [], method: { with: "Redact" } }],
    key,
  );
  const paths = [{ path: ["a"], with: "Redact" as const }];
  const decision: MaskDecision = { kind: "mask", columns: [{ ...redact, paths }] };
  const mask = new RowMask(describedColumns(description([[100, 3, 3802]])), decision, {
    ...context,
    patterns,
  });
  expect(mask.apply(row(['{"a": "x", "b": "ann@example.com", "c": 1}']))).toEqual(
    row(['{"a": "***", "b": "***", "c": 1}']),
  );
});
