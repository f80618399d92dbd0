import { configDefaults, defineConfig } from "vitest/config";

/** Those that need a process of their own: what they measure, set or load for the whole process is nobody else's. */
const alone = [
  ...["sidecar/src/server/startup-memory.test.ts", "sidecar/src/server/parser-memory.test.ts"],
  // It loads other scenarios once more, for another setting.
  "e2e/scenarios/two-processes.test.ts",
  ...["e2e/{cluster,image}/**/*.test.ts", "e2e/*.test.ts", "*.test.ts"],
];
/** Makes the bundle once, whichever of the projects that use it run. */
const globalSetup = "e2e/targets/bundled.ts";
// No promise to anybody: every wait in a scenario has a bound of its own.
const scenario = { testTimeout: 90_000 };

/** Unit tests beside their code, and the scenarios that need no cluster; `make e2e` runs those that do. */
export default defineConfig({
  test: {
    testTimeout: 60_000,
    // On a machine that others use too; .ci/run names each that needed its second try, with what it said at the first.
    retry: process.env.CI ? 1 : 0,
    // One second by default, which a busy machine takes for nothing.
    expect: { poll: { timeout: 20_000 } },
    hookTimeout: 120_000,
    // Two cores: scenarios wait a good part of their time, for other processes and for time to pass.
    maxWorkers: 4,
    // .ci/run counts from this file.
    reporters: process.env.CI
      ? ["default", ["json", { outputFile: ".cache/test-results.json" }]]
      : ["default"],
    projects: [
      {
        extends: true,
        test: { name: "alone", include: alone, globalSetup, ...scenario },
      },
      {
        extends: true,
        test: {
          name: "scenarios",
          include: ["e2e/scenarios/**/*.test.ts"],
          exclude: [...configDefaults.exclude, ...alone],
          globalSetup,
          ...scenario,
          // What they try runs in processes of its own; what they try it with is loaded once for many of them.
          isolate: false,
        },
      },
      {
        extends: true,
        test: {
          name: "units",
          include: ["{crds,control,policy,sidecar,operator,cli}/src/**/*.test.ts"],
          exclude: [...configDefaults.exclude, ...alone],
          // They share modules and nothing else: loading the parser once a file was half of their time.
          isolate: false,
        },
      },
    ],
  },
});
