import type { Verdict } from "@sallyport/policy";
import fc from "fast-check";
import { expect, test } from "vitest";
import { EncodedVerdict, writeCommand, writeResponse } from "./journal-format.ts";
import { LineWriter } from "./line-writer.ts";

const verdict: Verdict = {
  action: "Deny",
  message: 'not "here"',
  limits: {},
  audit: [],
  cacheable: true,
  enforcement: "authoritative",
};

test("each command has its own text, however often texts come again under one verdict", () => {
  const text = fc.constantFrom(
    "SELECT 1",
    "SELECT 2",
    'a "b" \\ \n ä',
    "",
    "x".repeat(4096),
    "y".repeat(4097),
  );
  fc.assert(
    fc.property(fc.array(text, { maxLength: 20 }), (texts) => {
      const encoded = new EncodedVerdict(verdict);
      const writer = new LineWriter(16);
      for (const [at, sql] of texts.entries())
        writeCommand(writer, at + 1, { text: sql, verdict, at: 5 }, encoded);
      const lines = writer.written().toString().split("\n").slice(0, -1);
      const read: unknown[] = lines.map((line) => JSON.parse(line));
      const { action, message, enforcement } = verdict;
      expect(read).toEqual(
        texts.map((sql, at) => ({
          ...{ kind: "command", n: at + 1, at: 5, sql },
          verdict: { action, enforcement, message },
        })),
      );
    }),
    { numRuns: 100 },
  );
});

test("each line has the time that it was given, however times follow each other", () => {
  const near = fc.integer({ min: 1_795_000_000_000 - 2_000_000, max: 1_795_000_000_000 + 2_000_000 });
  const time = fc.oneof(near, fc.integer({ min: 0, max: 3_000_000 }), fc.maxSafeNat(), fc.constant(999_999));
  fc.assert(
    fc.property(fc.array(time, { maxLength: 30 }), (times) => {
      const writer = new LineWriter(16);
      for (const at of times) writeResponse(writer, 1, at, { rows: 0, bytes: 0, ms: 0 });
      const lines = writer.written().toString().split("\n").slice(0, -1);
      expect(lines.map((line) => (JSON.parse(line) as { at: number }).at)).toEqual(times);
    }),
    { numRuns: 200 },
  );
});
