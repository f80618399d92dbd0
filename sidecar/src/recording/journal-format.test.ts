import type { Verdict } from "@sallyport/policy";
import fc from "fast-check";
import { expect, test } from "vitest";
import { EncodedVerdict, writeCommand } from "./journal-format.ts";
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
