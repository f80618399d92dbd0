import { expect, test } from "vitest";
import { PatternMask, type PatternRule } from "./pattern-mask.ts";

const key = Buffer.alloc(32, 7);
const cards: PatternRule = {
  patterns: ["creditCard", "email"],
  customPatterns: [],
  method: { with: "Redact" },
};

function masked(value: string | Buffer, oid: number, format = 0, rules = [cards]): string | null {
  return new PatternMask(rules, key).apply(Buffer.from(value), { oid, format })?.toString("latin1") ?? null;
}

test("only what was found is hidden in a text", () => {
  expect(masked("card 4111 1111 1111 1111 of a@b.com.", 25)).toBe("card *** of ***.");
  expect(masked("nothing", 25)).toBe("nothing");
});

test("JSON stays JSON, in strings and in numbers", () => {
  expect(masked('{"c":"4111111111111111","n":4111111111111111}', 3802)).toBe(
    '{"c":"***","n":1000000000000000}',
  );
  expect(masked('{"c":"\\"a@b.com"}', 114)).toBe('{"c":"\\"***"}');
});

test("a number in which a pattern is found is hidden whole", () => {
  expect(masked("4111111111111111", 20)).toBe("0");
  const binary = Buffer.alloc(8);
  binary.writeBigInt64BE(4111111111111111n);
  expect(masked(binary, 20, 1)).toBe("\0".repeat(8));
  const numeric = Buffer.from([0, 4, 0, 3, 0, 0, 0, 0, 0x10, 0x0f, 0x04, 0x57, 0x04, 0x57, 0x04, 0x57]);
  expect(masked(numeric, 1700, 1)).toBe("\0".repeat(8));
});

test("an address of the server's own type is found in text and in binary", () => {
  const addresses: PatternRule = { patterns: ["ipv4"], customPatterns: [], method: { with: "Redact" } };
  expect(masked("10.20.30.40", 869, 0, [addresses])).toBe("0.0.0.0");
  expect(masked(Buffer.from([2, 32, 0, 4, 10, 20, 30, 40]), 869, 1, [addresses])).toBe(
    "\x02\x20\0\x04\0\0\0\0",
  );
});

test("what is found in a value of an unknown type makes it NULL", () => {
  expect(masked("(4111111111111111,x)", 987_654)).toBeNull();
});

test("custom patterns and built-in ones are hidden together, overlaps once", () => {
  const rule: PatternRule = {
    patterns: ["email"],
    customPatterns: [{ name: "ticket", regex: "T-[0-9]+" }],
    method: { with: "Replace", format: "#" },
  };
  expect(masked("T-12 T-1@b.com", 25, 0, [rule])).toBe("# #");
});

test("what was found is counted by its name", () => {
  const counted: string[] = [];
  const mask = new PatternMask([cards], key, (name) => counted.push(name));
  mask.applyToText(Buffer.from("a@b.com 4111111111111111"));
  expect(counted).toEqual(["email", "creditCard"]);
});
