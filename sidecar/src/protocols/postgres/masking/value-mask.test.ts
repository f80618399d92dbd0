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
  [3904, "empty", [1]],
  [3912, "empty", [1]],
  [4451, "{}", [0, 0, 0, 0]],
])("a masked range is an empty one: oid %i", (oid, text, binary) => {
  expect(masked({ with: "Redact" }, oid, "[1,5)")).toBe(text);
  const mask = valueMask({ with: "Redact" }, { oid, format: 1 }, key);
  expect(mask(Buffer.from([2]))).toEqual(Buffer.from(binary));
});

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");

// Each as PostgreSQL 18 sends it in both forms.
test.each([
  [1700, "12345.678", "0003 0001 0000 0003 0001 0929 1a7c", /^\d{1,9}$/],
  [1700, "-0.00005000", "0001 fffe 4000 0008 1388", /^\d{1,9}$/],
  [1700, "NaN", "0000 0000 c000 0000", /^\d{1,9}$/],
  [701, "1.5", "3ff8000000000000", /^\d{1,8}$/],
  [701, "1e+20", "4415af1d78b58c40", /^\d{1,8}$/],
  [700, "0.1", "3dcccccd", /^\d{1,8}$/],
  [1083, "12:34:56.5", "0000000a8be1bd20", /^[012]\d:[0-5]\d:[0-5]\d$/],
  [1114, "2001-02-03 04:05:06.789", "00001f5def466a88", /^(19|20)\d\d-\d\d-\d\d \d\d:\d\d:\d\d$/],
  [1184, "2001-02-03 06:05:06.789+02", "00001f5def466a88", /^(19|20)\d\d-\d\d-\d\d \d\d:\d\d:\d\d\+00$/],
])("Hash of oid %i is of its type, and the same in text and binary: %s", (oid, text, binary, shape) => {
  const hashed = masked({ with: "Hash" }, oid, text);
  expect(hashed).toMatch(shape);
  const inBinary = valueMask({ with: "Hash" }, { oid, format: 1 }, key)(hex(binary));
  // The hash in binary is what a server would read from the hash in text.
  const again = valueMask(
    { with: "Replace", format: hashed ?? "" },
    { oid, format: 1 },
    key,
  )(Buffer.alloc(0));
  expect(inBinary).toEqual(again);
});

test("equal values of other spelling have equal hashes, other values others, and what cannot be told apart is redacted", () => {
  const hash = (oid: number, text: string) => masked({ with: "Hash" }, oid, text);
  expect(hash(1700, "1.0")).toBe(hash(1700, "1.000"));
  expect(hash(1700, "100")).not.toBe(hash(1700, "1"));
  expect(hash(1184, "2020-01-01 00:00:00+00")).toBe(hash(1184, "2019-12-31 19:00:00-05"));
  expect(hash(1114, "2020-01-01 00:00:00")).not.toBe(hash(1114, "2020-01-01 00:00:01"));
  expect(hash(1114, "Wed Jan 01 00:00:00 2020")).toBe("1970-01-01 00:00:00");
  expect(hash(1184, "infinity")).toBe("1970-01-01 00:00:00+00");
});

const secret = { with: "Redact", path: ["secret"] } as const;
test.each([
  [
    [secret],
    '{"a": 1, "secret": "x", "b": {"secret": "y"}}',
    '{"a": 1, "secret": "***", "b": {"secret": "y"}}',
  ],
  [
    [secret],
    '{"secret": 12.5, "big": 123456789012345678901234567890}',
    '{"secret": 0, "big": 123456789012345678901234567890}',
  ],
  [[secret], '{"secret": {"x": [1]}}', '{"secret": "***"}'],
  [[secret], '{"secret": null, "se\\u0063ret": "y"}', '{"secret": null, "se\\u0063ret": "***"}'],
  [[secret], '{"secret": "x", "secret": true}', '{"secret": "***", "secret": false}'],
  [[secret], '["secret", "x"]', '["secret", "x"]'],
  [
    [{ ...secret, path: ["*", "k"] }],
    '[{"k": "a\\"}"}, {"k": "b", "m": "c"}]',
    '[{"k": "***"}, {"k": "***", "m": "c"}]',
  ],
  [[{ ...secret, path: ["l", "0"] }], '{"l": ["a", "b"]}', '{"l": ["***", "b"]}'],
  [
    [{ with: "Null", path: ["a"] } as const, secret],
    '{"a": [1, {}], "secret": "s"}',
    '{"a": null, "secret": "***"}',
  ],
  [[{ with: "Partial", format: "*{last4}", path: ["a"] } as const], '{"a": "123456789"}', '{"a": "*6789"}'],
])("parts of JSON are masked by their paths: %j in %s", (paths, value, expected) => {
  const method = { with: "Redact", paths } as const;
  expect(masked(method, 3802, value)).toBe(expected);
  const binary = valueMask(method, { oid: 3802, format: 1 }, key)(Buffer.from(`\x01${value}`));
  expect(binary).toEqual(Buffer.from(`\x01${expected}`));
  expect(masked(method, 114, value)).toBe(expected);
});

test("what is no JSON, too deep, or of another type is not shown in parts", () => {
  const method = { with: "Redact", paths: [secret] } as const;
  expect(masked(method, 3802, '{"secret": "x"')).toBeNull();
  expect(masked(method, 3802, '{"a": x}')).toBeNull();
  expect(masked(method, 3802, `${"[".repeat(500)}${"]".repeat(500)}`)).toBeNull();
  expect(masked(method, 25, '{"secret": "x", "a": 1}')).toBe("***");
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

test.each([0, 1])(
  "an enumeration shows the label of Replace where it has it, and else NULL, in format %i",
  (format) => {
    const type = { oid: 70_003, format, shape: { kind: "enum", labels: ["good", "bad mood"] } } as const;
    const shown = (method: MaskMethod) => valueMask(method, type, key)(Buffer.from("good"))?.toString();
    expect(shown({ with: "Replace", format: "bad mood" })).toBe("bad mood");
    for (const method of [
      { with: "Replace", format: "worse" },
      { with: "Replace" },
      { with: "Redact" },
      { with: "Hash" },
      { with: "Partial", format: "bad mood" },
      { with: "Null" },
    ] as const) {
      expect(shown(method)).toBeUndefined();
    }
  },
);

test("a printed definition loses its literals as a text, and all as any other type", () => {
  const method = { with: "Redact", hidesLiterals: true } as const;
  const shown = (oid: number) =>
    valueMask(method, { oid, format: 0 }, key)(Buffer.from("'x'::text"))?.toString();
  expect([shown(25), shown(1043), shown(19), shown(3802), shown(1009)]).toEqual([
    "'***'",
    "'***'",
    "'***'",
    undefined,
    undefined,
  ]);
});
