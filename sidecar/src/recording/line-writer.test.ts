import { anyCharacter } from "@sallyport/crds/testing";
import fc from "fast-check";
import { expect, test } from "vitest";
import { LineWriter } from "./line-writer.ts";

const written = (write: (writer: LineWriter) => void): string => {
  const writer = new LineWriter(4);
  writer.text("before ");
  write(writer);
  writer.text(" after");
  expect(writer.written(7).toString().endsWith(" after")).toBe(true);
  return writer.written().toString().slice(7, -6);
};

test("strings are what JSON.stringify gives, whatever they hold", () => {
  const anyText = fc.oneof(
    fc.string({ unit: anyCharacter, maxLength: 40 }),
    fc.string({
      unit: fc.constantFrom('"', "\\", "\n", "\0", "\x1f", "\x7f", "ä", "😀", "\ud800", "\udc00"),
    }),
    fc.integer({ min: 505, max: 520 }).map((length) => "a".repeat(length)),
  );
  fc.assert(
    fc.property(anyText, (text) => {
      expect(written((writer) => writer.json(text))).toBe(Buffer.from(JSON.stringify(text)).toString());
    }),
    { numRuns: 200 },
  );
});

test("numbers are what String gives", () => {
  const edges = [0, 9, 10, 99, 100, 999_999_999, 1e9, 2 ** 31, 2 ** 53, 0.5, -1, Number.NaN];
  fc.assert(
    fc.property(fc.oneof(fc.nat(), fc.nat(1000), fc.constantFrom(...edges)), (value) => {
      expect(written((writer) => writer.number(value))).toBe(String(value));
    }),
  );
});

test("literals stay as they are, and what is cut is gone", () => {
  const writer = new LineWriter(1);
  writer.literal(Buffer.from("kept"));
  const kept = writer.written();
  writer.literal(Buffer.from("cut"));
  writer.cut(4);
  writer.text("…");
  expect([kept.toString(), writer.written().toString(), writer.length]).toEqual(["kept", "kept…", 7]);
});
