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

test("the first statements do not pay for optimising the parser", () => {
  // A process of its own: what WebAssembly compiles is measured by the most that the process ever held.
  const script = `
    const { optimiseParserLate } = await import(${JSON.stringify(join(import.meta.dirname, "startup-memory.ts"))});
    optimiseParserLate();
    const { default: createModule } = await import("libpg-query/wasm/libpg-query.js");
    const parser = await createModule({});
    const sql = "SELECT a, count(*) FROM orders o JOIN items i ON i.id = o.item WHERE o.id = 1 GROUP BY a";
    const bytes = parser.lengthBytesUTF8(sql) + 1;
    for (let at = 0; at < 50; at += 1) {
      const query = parser._malloc(bytes);
      parser.stringToUTF8(sql, query, bytes);
      parser._wasm_free_parse_result(parser._wasm_parse_query_raw(query));
      parser._free(query);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    console.log(process.resourceUsage().maxRSS);`;
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    cwd: import.meta.dirname,
  });
  expect(stderr).not.toContain("Error");
  const peakKilobytes = Number(stdout.trim());
  expect(peakKilobytes).toBeGreaterThan(30_000);
  expect(peakKilobytes).toBeLessThan(120_000);
});
