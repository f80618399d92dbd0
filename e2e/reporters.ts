/** How runs of e2e tell what became of them: on the terminal, and in files for `make e2e` where it has asked for them. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import type { Reporter, TestModule } from "vitest/node";

/** Where a run writes its results: `SALLYPORT_E2E_RESULTS` names the file. */
export const resultsVariable = "SALLYPORT_E2E_RESULTS";

/** Beside its results: what each file took, in milliseconds. */
export const timesPath = (results: string) => results.replace(/\.json$/, "-times.json");

/** The reporters of a run. */
export function reporters(): (Reporter | "default" | ["json", { outputFile: string }])[] {
  const results = process.env[resultsVariable];
  if (results === undefined) return ["default"];
  return ["default", ["json", { outputFile: results }], new SuiteTimes(timesPath(results))];
}

/**
 * What each file took with the set-up and tear-down of its hooks. vitest's own JSON counts from the first test to the last,
 * and a third of a scenario goes by outside of them.
 */
class SuiteTimes implements Reporter {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  onTestRunEnd(modules: readonly TestModule[]): void {
    const times = modules.map((module) => {
      const { collectDuration, duration } = module.diagnostic();
      return [module.moduleId, collectDuration + duration] as const;
    });
    // vitest's own reporter makes the folder, but not before this one is asked.
    mkdirSync(dirname(this.#path), { recursive: true });
    writeFileSync(this.#path, JSON.stringify(Object.fromEntries(times)));
  }
}
