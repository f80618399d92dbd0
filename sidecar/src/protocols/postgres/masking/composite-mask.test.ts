import { expect, test } from "vitest";
import { type FieldType, shapeShown, type TypeShape } from "./type-shape.ts";
import { type MaskMethod, valueMask } from "./value-mask.ts";

const key = Buffer.from("0123456789abcdef0123456789abcdef");
const of = (oid: number, shape?: TypeShape): FieldType => ({
  declared: oid,
  oid,
  ...(shape === undefined ? {} : { shape }),
});
const composite = (...fields: readonly FieldType[]): TypeShape => ({ kind: "composite", fields });

const text = of(25);
const pair = composite(text, text);

function shown(shape: TypeShape, value: string, method: MaskMethod = { with: "Redact" }): string | null {
  return valueMask(method, { oid: 70_000, format: 0, shape }, key)(Buffer.from(value))?.toString() ?? null;
}

// Each as PostgreSQL 18 prints it.
test.each([
  [pair, "(a,b)", "(***,***)"],
  [pair, '("a, ""b"" \\\\ (c)","")', "(***,***)"],
  [pair, "(,)", "(,)"],
  [pair, '(é,"é é")', "(***,***)"],
  [composite(text), "()", "()"],
  [composite(text), '("")', "(***)"],
  [composite(of(23), of(1082), of(16), of(3802)), "(7,2020-01-02,t,{})", '(0,1970-01-01,f,"""***""")'],
  [composite(of(23, pair), text), '("(a,""b c"")",d)', '("(***,***)",***)'],
  [composite(of(70_001, { kind: "array", element: 70_002 }), of(1009)), '("{a,b}",{c})', "({},{})"],
  // A domain is what it is made of; a type that nobody knows is NULL.
  [composite({ declared: 70_003, oid: 23 }, of(70_004)), "(7,x)", "(0,)"],
])("each field in text is masked as a column of its type: %j %s", (shape, value, expected) => {
  expect(shown(shape, value)).toBe(expected);
});

test.each([
  "",
  "(",
  "a",
  "(a)",
  "(a,b,c)",
  "(a,b",
  "(a,b)x",
  "(a,b)(c,d)",
  '("a,b)',
  '(a"b",c)',
  '("a"b,c)',
  "(a\\,b,c)",
  '("a\\"b",c)',
  "((a),b)",
  "[a,b]",
])("a text that is no such composite is NULL: %s", (value) => {
  expect(shown(pair, value)).toBeNull();
});

test("methods hold for each field: Partial keeps what it may of text, Hash is that of a column, Replace where it fits", () => {
  const mixed = composite(text, of(23));
  expect(shown(mixed, '("12 345,6789",7)', { with: "Partial", format: "*, {last4}" })).toBe('("*, 6789",0)');
  const hash = (oid: number, value: string) =>
    valueMask({ with: "Hash" }, { oid, format: 0 }, key)(Buffer.from(value))?.toString();
  expect(shown(mixed, "(a,7)", { with: "Hash" })).toBe(`(${hash(25, "a")},${hash(23, "7")})`);
  expect(shown(mixed, "(a,7)", { with: "Replace", format: "a b" })).toBe('("a b",0)');
  expect(shown(mixed, "(a,7)", { with: "Null" })).toBeNull();
  // Paths are those of a JSON column, not of fields.
  const paths = [{ with: "Redact", path: ["k"] } as const];
  expect(shown(composite(of(3802)), '("{""x"": ""y""}")', { with: "Redact", paths })).toBe('("""***""")');
});

function record(...fields: readonly (readonly [oid: number, bytes: Buffer | null])[]): Buffer {
  const count = Buffer.alloc(4);
  count.writeInt32BE(fields.length);
  const parts = fields.flatMap(([oid, bytes]) => {
    const header = Buffer.alloc(8);
    header.writeUInt32BE(oid);
    header.writeInt32BE(bytes?.length ?? -1, 4);
    return bytes === null ? [header] : [header, bytes];
  });
  return Buffer.concat([count, ...parts]);
}

const inBinary = (shape: TypeShape, value: Buffer, method: MaskMethod = { with: "Redact" }) =>
  valueMask(method, { oid: 70_000, format: 1, shape }, key)(value);

test("each field in binary is masked as a column of its type, nested ones too, and NULL stays NULL", () => {
  const shape = composite(text, { declared: 70_003, oid: 23 }, of(70_005, pair), text);
  const value = record(
    [25, Buffer.from("secret")],
    [70_003, Buffer.from([0, 0, 0, 9])],
    [70_005, record([25, Buffer.from("a")], [25, null])],
    [25, null],
  );
  expect(inBinary(shape, value)).toEqual(
    record(
      [25, Buffer.from("***")],
      [70_003, Buffer.alloc(4)],
      [70_005, record([25, Buffer.from("***")], [25, null])],
      [25, null],
    ),
  );
  const hidden = valueMask({ with: "Hash" }, { oid: 25, format: 1 }, key)(Buffer.from("secret"));
  expect(inBinary(composite(text), record([25, Buffer.from("secret")]), { with: "Hash" })).toEqual(
    record([25, hidden]),
  );
});

test("bytes that are no such composite are NULL, wherever they are cut", () => {
  const value = record([25, Buffer.from("a")], [25, Buffer.from("b")]);
  for (let end = 0; end < value.length; end += 1) expect(inBinary(pair, value.subarray(0, end))).toBeNull();
  expect(inBinary(pair, Buffer.concat([value, Buffer.from("x")]))).toBeNull();
  expect(inBinary(pair, record([25, Buffer.from("a")], [1043, Buffer.from("b")]))).toBeNull();
  expect(inBinary(pair, record([25, Buffer.from("a")]))).toBeNull();
  const negative = record([25, Buffer.from("a")], [25, null]);
  negative.writeInt32BE(-2, negative.length - 4);
  expect(inBinary(pair, negative)).toBeNull();
});

test("an array of a type of users' own making is empty, in both forms", () => {
  const shape = { kind: "array", element: 70_000 } as const;
  const mask = (format: number) => valueMask({ with: "Hash" }, { oid: 70_001, format, shape }, key);
  expect(mask(0)(Buffer.from("{x}"))?.toString()).toBe("{}");
  expect(mask(1)(Buffer.from("x"))?.toString("hex")).toBe("000000000000000000011170");
  expect(mask(0).constant?.toString()).toBe("{}");
});

test("fields are shown only of a column's own value: NULL fields of what is computed would tell of it", () => {
  expect(shapeShown(pair, { isExact: true })).toBe(pair);
  expect(shapeShown(pair, { isExact: false })).toBeUndefined();
  expect(shapeShown(pair, { isExact: true, hidesNull: true })).toBeUndefined();
  const array = { kind: "array", element: 1 } as const;
  expect(shapeShown(array, { isExact: false })).toBe(array);
});
