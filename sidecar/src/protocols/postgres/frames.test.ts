import fc from "fast-check";
import { expect, it } from "vitest";
import { zeroAt } from "./frames.ts";

it("finds the first NUL byte wherever it stands, and says where there is none", () => {
  const bytes = fc.array(fc.constantFrom(0, 0x41, 0xff), { maxLength: 200, size: "max" });
  // Long stretches without one as well.
  const text = fc
    .tuple(fc.nat(150), bytes)
    .map(([plain, rest]) => [...new Array<number>(plain).fill(1), ...rest]);
  fc.assert(
    fc.property(text, fc.nat(400), (values, from) => {
      const chunk = Buffer.from(values);
      expect(zeroAt(chunk, from)).toBe(chunk.indexOf(0, from));
    }),
  );
});
