import { expect, test } from "vitest";
import { type MaskMethod, valueMask } from "./value-mask.ts";

const key = Buffer.from("0123456789abcdef0123456789abcdef");

function masked(method: MaskMethod, oid: number, value: string): string | null {
  return valueMask(method, { oid, format: 0 }, key)(Buffer.from(value))?.toString() ?? null;
}

test.each([
  [25, "***"],
  [23, "0"],
  [1700, "0"],
  [16, "f"],
  [1082, "1970-01-01"],
  [1114, "1970-01-01 00:00:00"],
  [2950, "00000000-0000-0000-0000-000000000000"],
  [3802, '"***"'],
  [1009, "{}"],
])("Redact keeps the type: oid %i shows %s", (oid, expected) => {
  expect(masked({ with: "Redact" }, oid, "7")).toBe(expected);
});

test("a type that nobody knows becomes NULL", () => {
  expect(masked({ with: "Redact" }, 987_654, "x")).toBeNull();
  expect(masked({ with: "Hash" }, 987_654, "x")).toBeNull();
});

test("Null is NULL for every type", () => {
  for (const oid of [25, 23, 1082, 2950, 987_654]) expect(masked({ with: "Null" }, oid, "1")).toBeNull();
});

test.each([
  ["***-**-{last4}", "123-45-6789", "***-**-6789"],
  ["{first1}***", "alice", "a***"],
  ["{first2}…{last2}", "abcdefgh", "ab…gh"],
  ["{last4}", "12345", "****"],
  ["{first1}*", "é́x", "é*"],
  ["{last2}", "", "**"],
])("Partial %s of %s is %s", (format, value, expected) => {
  expect(masked({ with: "Partial", format }, 25, value)).toBe(expected);
});

test("Partial of what is no text redacts: part of a number is no number of its kind", () => {
  expect(masked({ with: "Partial", format: "{last4}" }, 23, "123456789")).toBe("0");
});

test("Replace shows its text where the type takes it, and redacts where not", () => {
  expect(masked({ with: "Replace", format: "hidden" }, 25, "x")).toBe("hidden");
  expect(masked({ with: "Replace", format: "42" }, 23, "7")).toBe("42");
  expect(masked({ with: "Replace", format: "hidden" }, 23, "7")).toBe("0");
  expect(masked({ with: "Replace", format: "99999999999" }, 23, "7")).toBe("0");
});

test.each([
  [25, "alice@example.com", /^[0-9a-f]{32}$/],
  [21, "77", /^\d{1,5}$/],
  [23, "77", /^\d{1,10}$/],
  [20, "77", /^\d{1,19}$/],
  [1082, "2001-02-03", /^(19|20)\d\d-\d\d-\d\d$/],
  [
    2950,
    "12345678-1234-1234-1234-123456789abc",
    /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/,
  ],
])(
  "Hash of oid %i is a value of its type, the same each time and another for another key",
  (oid, value, form) => {
    const first = masked({ with: "Hash" }, oid, value);
    expect(first).toMatch(form);
    expect(masked({ with: "Hash" }, oid, value)).toBe(first);
    expect(first).not.toBe(value);
    const other = valueMask({ with: "Hash" }, { oid, format: 0 }, Buffer.alloc(32, 1))(Buffer.from(value));
    expect(other?.toString()).not.toBe(first);
  },
);

/** Binary values and their text, as PostgreSQL 18 sends both. */
test.each([
  [23, "77", Buffer.from([0, 0, 0, 77])],
  [21, "-2", Buffer.from([0xff, 0xfe])],
  [20, "77", Buffer.from([0, 0, 0, 0, 0, 0, 0, 77])],
  [1082, "2000-01-02", Buffer.from([0, 0, 0, 1])],
  [2950, "12345678-1234-1234-1234-123456789abc", Buffer.from("12345678123412341234123456789abc", "hex")],
  [25, "abc", Buffer.from("abc")],
])("Hash of oid %i is the same value in text and in binary", (oid, text, binary) => {
  const inText = masked({ with: "Hash" }, oid, text) ?? "";
  const inBinary = valueMask({ with: "Hash" }, { oid, format: 1 }, key)(binary);
  const again = valueMask({ with: "Replace", format: inText }, { oid, format: 1 }, key)(binary);
  expect(inBinary).toEqual(again);
});

test.each([
  [23, Buffer.alloc(4)],
  [16, Buffer.from([0])],
  [1082, Buffer.from([0xff, 0xff, 0xd5, 0x33])],
  [1700, Buffer.alloc(8)],
  [3802, Buffer.concat([Buffer.from([1]), Buffer.from('"***"')])],
  [1009, Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25])],
])("Redact of oid %i in binary is the wire form of its text", (oid, expected) => {
  expect(valueMask({ with: "Redact" }, { oid, format: 1 }, key)(Buffer.from([1]))).toEqual(expected);
});
