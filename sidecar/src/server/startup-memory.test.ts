import { getHeapSpaceStatistics } from "node:v8";
import { expect, test } from "vitest";
import { giveBackStartupMemory } from "./startup-memory.ts";

const youngBytes = () =>
  getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space")?.physical_space_size ?? 0;

test("the young generation that loading has grown is given back", () => {
  const kept: object[] = [];
  // What survives is what makes it grow.
  while (youngBytes() < 6 * 1024 * 1024) kept.push(Array.from({ length: 1_000 }, (_, at) => ({ at })));
  const grown = youngBytes();
  giveBackStartupMemory();
  expect(youngBytes()).toBeLessThan(grown / 2);
});

test("what runs in the gateway cannot collect garbage at will", () => {
  giveBackStartupMemory();
  expect(globalThis.gc).toBeUndefined();
});
