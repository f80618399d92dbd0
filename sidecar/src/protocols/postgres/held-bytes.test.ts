import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { expect, test } from "vitest";
import { HeldBytes } from "./held-bytes.ts";

test("what was held is what came, in chunks of any length", () => {
  const length = fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 3_000, max: 9_000 }));
  fc.assert(
    fc.property(fc.array(length, { minLength: 2, maxLength: 40 }), (lengths) => {
      const total = lengths.reduce((sum, one) => sum + one, 0);
      const bytes = Buffer.from(Array.from({ length: total }, (_, at) => at % 251));
      const held = new HeldBytes();
      for (const _ of [1, 2]) {
        held.hold(bytes.subarray(0, lengths[0]), 0, total);
        let at = lengths[0] ?? 0;
        let whole: Buffer | undefined;
        for (const one of lengths.slice(1)) {
          if (whole !== undefined) break;
          const isLast = at + one >= total;
          whole = held.add(Buffer.from(bytes.subarray(at, at + one)));
          expect(whole === undefined).toBe(!isLast);
          at += one;
        }
        expect(whole?.equals(bytes.subarray(0, at))).toBe(true);
        expect(held.isEmpty).toBe(true);
      }
    }),
  );
});

/** Frees what nobody holds. */
function collect(): void {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
}

test("a message that comes in single bytes takes no more memory than a few of its length", () => {
  const length = 300_000;
  const held = new HeldBytes();
  held.hold(Buffer.alloc(5), 0, length + 6);
  const used = () => {
    collect();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const before = used();
  for (let at = 0; at < length; at += 1) held.add(Buffer.allocUnsafe(1).fill(1));
  expect(used() - before).toBeLessThan(8 * 1024 * 1024);
  expect(held.add(Buffer.alloc(1))?.length).toBe(length + 6);
});
