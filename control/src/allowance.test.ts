import { expect, test } from "vitest";
import { Allowance } from "./allowance.ts";

test("an allowance is full at first, is refilled evenly, and never holds more than a burst", () => {
  let now = 0;
  const allowance = new Allowance({ burst: 3, perSecond: 0.5 }, () => now);
  const taken = (tries: number) =>
    Array.from({ length: tries }, () => allowance.take()).filter(Boolean).length;
  expect(taken(5)).toBe(3);
  now += 1_999;
  expect(taken(2)).toBe(0);
  now += 1;
  expect(taken(2)).toBe(1);
  now += 3_600_000;
  expect(taken(9)).toBe(3);
});
