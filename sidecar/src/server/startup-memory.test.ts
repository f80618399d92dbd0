import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { getHeapSpaceStatistics } from "node:v8";
import { expect, test, vi } from "vitest";
import { giveBackStartupMemory, LoginGarbage } from "./startup-memory.ts";

const youngBytes = () =>
  getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space")?.physical_space_size ?? 0;

function growYoung(): number {
  const kept: object[] = [];
  // What survives is what makes it grow.
  while (youngBytes() < 6 * 1024 * 1024) kept.push(Array.from({ length: 1_000 }, (_, at) => ({ at })));
  return youngBytes();
}

test("the young generation that loading has grown is given back", () => {
  const grown = growYoung();
  giveBackStartupMemory();
  expect(youngBytes()).toBeLessThan(grown / 2);
});

test("what many logins have left is given back once no more come, and after few logins nothing is collected", () => {
  vi.useFakeTimers();
  try {
    const garbage = new LoginGarbage();
    const grown = growYoung();
    for (let login = 0; login < 10; login++) garbage.loggedIn();
    vi.advanceTimersByTime(60_000);
    expect(youngBytes()).toBeGreaterThan(grown / 2);
    for (let login = 0; login < 1_000; login++) {
      garbage.loggedIn();
      vi.advanceTimersByTime(900);
    }
    expect(youngBytes()).toBeGreaterThan(grown / 2);
    vi.advanceTimersByTime(200);
    expect(youngBytes()).toBeLessThan(grown / 2);
  } finally {
    vi.useRealTimers();
  }
});

test("what runs in the gateway cannot collect garbage at will", () => {
  giveBackStartupMemory();
  expect(globalThis.gc).toBeUndefined();
});

test("what runs often at start is not optimised, what runs often afterwards is", () => {
  // A process of its own: flags are the whole process's.
  const script = `
    const { optimiseLess } = await import(${JSON.stringify(join(import.meta.dirname, "startup-memory.ts"))});
    const optimiseAgain = optimiseLess();
    const makeFunction = () => new Function("a", "b", "return a.x * b.x + a.y * b.y");
    const point = { x: 1, y: 2 };
    const isOptimised = (f) => (%GetOptimizationStatus(f) & 16) !== 0;
    const run = async (f) => {
      for (let round = 0; round < 30 && !isOptimised(f); round += 1) {
        for (let at = 0; at < 100; at += 1) f(point, point);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      return isOptimised(f);
    };
    const atStart = await run(makeFunction());
    optimiseAgain();
    console.log(JSON.stringify({ atStart, afterwards: await run(makeFunction()) }));`;
  const argv = ["--allow-natives-syntax", "--input-type=module", "-e", script];
  const { stdout, stderr } = spawnSync(process.execPath, argv, { encoding: "utf8", timeout: 50_000 });
  expect(stderr).not.toContain("Error");
  expect(JSON.parse(stdout)).toEqual({ atStart: false, afterwards: true });
});
