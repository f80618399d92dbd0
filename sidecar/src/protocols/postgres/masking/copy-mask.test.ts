import fc from "fast-check";
import { expect, test } from "vitest";
import { ByteSink } from "./byte-sink.ts";
import { type CopyColumn, type CopyFormat, CopyMask } from "./copy-mask.ts";
import { PatternMask } from "./pattern-mask.ts";

const key = Buffer.alloc(32, 7);
const noPatterns = new PatternMask([], key);
const text: CopyFormat = {
  kind: "text",
  delimiter: "\t",
  null: "\\N",
  quote: '"',
  escape: '"',
  header: false,
  forceQuote: [],
};
const csv: CopyFormat = { ...text, kind: "csv", delimiter: ",", null: "" };
const binary: CopyFormat = { ...text, kind: "binary" };
const plain: CopyColumn = { oid: 25, mask: undefined };
const redacted: CopyColumn = { oid: 25, mask: { with: "Redact" } };
const columns = [plain, redacted, plain];

/** The masked stream, pushed in pieces of `size` bytes. */
function masked(format: CopyFormat, input: Buffer | string, size: number, patterns = noPatterns): Buffer {
  const mask = new CopyMask(format, columns, { patterns, key });
  const bytes = Buffer.from(input);
  const out: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += size) {
    const piece = mask.push(bytes.subarray(at, at + size));
    if (piece !== undefined) out.push(piece);
  }
  mask.finish();
  return Buffer.concat(out);
}

/** The same, however the stream is cut. */
function always(format: CopyFormat, input: Buffer | string, patterns = noPatterns): Buffer {
  const whole = masked(format, input, 1_000_000, patterns);
  for (let size = 1; size <= Math.min(Buffer.from(input).length, 40); size += 1) {
    expect(masked(format, input, size, patterns)).toEqual(whole);
  }
  return whole;
}

test.each([
  ["text", text, "1\tsecret\tx\n2\t\\N\ty\n", "1\t***\tx\n2\t\\N\ty\n"],
  [
    "a tab, a newline and a backslash inside",
    text,
    "a\\tb\tse\\tc\\nr\\\\et\tx\\\\\n",
    "a\\tb\t***\tx\\\\\n",
  ],
  ["an empty text", text, "1\t\tx\n", "1\t***\tx\n"],
  ["another delimiter", { ...text, delimiter: "|" }, "1|se\\|cret|x\n", "1|***|x\n"],
  ["another NULL", { ...text, null: "nix" }, "1\tnix\tx\n", "1\tnix\tx\n"],
  ["CSV", csv, '1,"se,cr""et\nx",y\n2,,z\n3,"",w\n', "1,***,y\n2,,z\n3,***,w\n"],
  ["CSV with a header", { ...csv, header: true }, "id,ssn,x\n1,s,y\n", "id,ssn,x\n1,***,y\n"],
  [
    "CSV with its own marks",
    { ...csv, delimiter: ";", quote: "'", escape: "\\" },
    "1;'se;\\'cr\n';y\n",
    "1;***;y\n",
  ],
  ["CSV that must be quoted", { ...csv, delimiter: "*" }, "1*s*y\n", '1*"***"*y\n'],
  ["CSV with FORCE_QUOTE", { ...csv, forceQuote: "all" as const }, '"1","s","y"\n', '"1","***","y"\n'],
])("%s, wherever the stream is cut", (_name, format, input, expected) => {
  expect(always(format, input).toString()).toBe(expected);
});

/** A binary copy of rows of texts. */
function binaryCopy(rows: readonly (readonly (string | null)[])[]): Buffer {
  const pieces = [Buffer.from("PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", "latin1")];
  for (const row of rows) {
    const count = Buffer.alloc(2);
    count.writeInt16BE(row.length);
    pieces.push(count);
    for (const value of row) {
      const length = Buffer.alloc(4);
      length.writeInt32BE(value === null ? -1 : Buffer.byteLength(value));
      pieces.push(length, Buffer.from(value ?? ""));
    }
  }
  pieces.push(Buffer.from([0xff, 0xff]));
  return Buffer.concat(pieces);
}

test("binary, wherever the stream is cut", () => {
  const input = binaryCopy([
    ["1", "secret\n", "x"],
    ["2", null, "y"],
  ]);
  expect(always(binary, input)).toEqual(
    binaryCopy([
      ["1", "***", "x"],
      ["2", null, "y"],
    ]),
  );
});

test("patterns are found in every column, in all formats", () => {
  const patterns = new PatternMask(
    [{ patterns: ["email"], customPatterns: [], method: { with: "Redact" } }],
    key,
  );
  expect(always(text, "a@b.com\ts\tx c@d.org y\n", patterns).toString()).toBe("***\t***\tx *** y\n");
  expect(always(csv, 'a@b.com,s,"x, c@d.org"\n', patterns).toString()).toBe('***,***,"x, ***"\n');
  const rows = binaryCopy([["a@b.com", "s", "x"]]);
  expect(always(binary, rows, patterns)).toEqual(binaryCopy([["***", "***", "x"]]));
});

test("a type that nobody told becomes NULL", () => {
  const mask = new CopyMask(text, [{ oid: undefined, mask: { with: "Redact" } }], {
    patterns: noPatterns,
    key,
  });
  expect(mask.push(Buffer.from("7\n"))?.toString()).toBe("\\N\n");
});

test("half a row is never sent", () => {
  const mask = new CopyMask(text, columns, { patterns: noPatterns, key });
  expect(mask.push(Buffer.from("1\tsec"))).toBeUndefined();
  expect(() => {
    mask.finish();
  }).toThrow(/middle of a row/);
});

test.each([
  ["fewer columns", text, Buffer.from("1\tsecret\n")],
  ["more columns", text, Buffer.from("1\t2\t3\tsecret\n")],
  ["more columns in CSV", csv, Buffer.from("1,2,3,secret\n")],
  ["fewer columns in binary", binary, binaryCopy([["secret"]])],
  ["no signature", binary, Buffer.from("x".repeat(40))],
  ["data behind the end", binary, Buffer.concat([binaryCopy([]), Buffer.from([0, 0])])],
])("a stream that is not what the statement says is refused: %s", (_name, format, input) => {
  expect(() => masked(format, input, 1000)).toThrow();
});

test("a row on its own is masked as it is in a stream, whatever is in it", () => {
  const partly: CopyColumn = { oid: 25, mask: { with: "Partial", format: "{last1}" } };
  const three = [plain, redacted, partly];
  const parts = { patterns: noPatterns, key };
  const field = fc.stringMatching(/^([a-z]|\\[\\ntN]){0,6}$/);
  fc.assert(
    fc.property(field, field, field, (...fields) => {
      const row = Buffer.from(`${fields.join("\t")}\n`);
      const sink = new ByteSink(8);
      expect(new CopyMask(text, three, parts).pushRow(row, 0, row.length, sink)).toBe(true);
      expect(sink.since(0)).toEqual(new CopyMask(text, three, parts).push(row));
    }),
  );
  const sink = new ByteSink(8);
  const mask = new CopyMask(text, three, parts);
  for (const part of ["a\tb", "a\tb\tc\na\tb\tc\n", "a\tb\tc\\\n"]) {
    const bytes = Buffer.from(part);
    expect(mask.pushRow(bytes, 0, bytes.length, sink), part).toBe(false);
    expect(sink.length).toBe(0);
  }
});

const escaped: CopyFormat = { ...csv, delimiter: ";", quote: "'", escape: "\\" };

test.each([
  ["CSV", csv],
  ["CSV with its own marks", escaped],
  ["binary", binary],
] as const)(
  "a whole row of %s in one message is masked as by the stream, and anything else is left to it",
  (_, format) => {
    const field = fc.option(fc.string({ unit: fc.constantFrom("a", ",", '"', "\n", "\\", ";", "'") }), {
      nil: null,
    });
    const written = (value: string | null): Buffer => {
      if (format.kind === "binary") {
        const header = Buffer.alloc(4);
        header.writeInt32BE(value === null ? -1 : Buffer.byteLength(value));
        return Buffer.concat([header, Buffer.from(value ?? "")]);
      }
      const { quote, escape: before } = format;
      const inside = Array.from(value ?? "", (letter) =>
        letter === quote || letter === before ? before + letter : letter,
      );
      return Buffer.from(value === null ? "" : `${quote}${inside.join("")}${quote}`);
    };
    const rowOf = (values: readonly (string | null)[]): Buffer => {
      const fields = values.map(written);
      if (format.kind === "binary") return Buffer.concat([Buffer.from([0, values.length]), ...fields]);
      const [first = Buffer.alloc(0), ...rest] = fields;
      return Buffer.concat([
        first,
        ...rest.flatMap((one) => [Buffer.from(format.delimiter), one]),
        Buffer.from("\n"),
      ]);
    };
    const started = (): CopyMask => {
      const mask = new CopyMask(format, columns, { patterns: noPatterns, key });
      if (format.kind === "binary") {
        mask.push(Buffer.concat([Buffer.from("PGCOPY\n\xff\r\n\0", "latin1"), Buffer.alloc(8)]));
      }
      return mask;
    };
    fc.assert(
      fc.property(fc.tuple(field, field, field), fc.nat(60), (values, cut) => {
        const row = rowOf(values);
        const sink = new ByteSink(8);
        sink.bytes(Buffer.from("before"));
        expect(started().pushRow(row, 0, row.length, sink)).toBe(true);
        const [expected] = [started().push(row)];
        expect(sink.since(6)).toEqual(expected);
        // A part of the row, and more than the row, are not taken and leave nothing.
        for (const other of [row.subarray(0, cut % row.length), Buffer.concat([row, row])]) {
          const isTaken = started().pushRow(other, 0, other.length, sink);
          if (isTaken) expect(other.at(-1)).toBe(0x0a);
          else expect(sink.length).toBe(6 + (expected?.length ?? 0));
          if (isTaken) sink.cutTo(6 + (expected?.length ?? 0));
        }
      }),
    );
    expect(started().pushRow(Buffer.from([255, 255]), 0, 2, new ByteSink(8))).toBe(false);
  },
);
