import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { reporters, resultsVariable, timesPath } from "./reporters.ts";

afterEach(() => vi.unstubAllEnvs());

test("times are written into a folder that is not there yet, as in a new checkout", async () => {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-results-"));
  const results = join(folder, ".cache/results.json");
  vi.stubEnv(resultsVariable, results);
  for (const reporter of reporters())
    if (typeof reporter === "object" && "onTestRunEnd" in reporter)
      await reporter.onTestRunEnd?.([], [], "passed");
  expect(await readFile(timesPath(results), "utf8")).toBe("{}");
  await rm(folder, { recursive: true });
});
