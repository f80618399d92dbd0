import { configDefaults, defineConfig } from "vitest/config";

/** Those that measure the process they run in, or start others that inherit its size. */
const alone = ["sidecar/src/server/startup-memory.test.ts", "sidecar/src/server/parser-memory.test.ts"];

/** Unit tests beside their code, and the scenarios that need no cluster; `make e2e` runs those that do. */
export default defineConfig({
  test: {
    testTimeout: 60_000,
    // One second by default, which a busy machine takes for nothing.
    expect: { poll: { timeout: 20_000 } },
    hookTimeout: 120_000,
    // Two cores: scenarios wait for other processes more than a third of their time.
    maxWorkers: 3,
    // .ci/run counts from this file.
    reporters: process.env.CI
      ? ["default", ["json", { outputFile: ".cache/test-results.json" }]]
      : ["default"],
    projects: [
      {
        extends: true,
        test: {
          name: "scenarios",
          include: ["e2e/{scenarios,cluster,image}/**/*.test.ts", "*.test.ts", ...alone],
          globalSetup: "e2e/targets/bundled.ts",
          // No promise to anybody: every wait in a scenario has a bound of its own.
          testTimeout: 90_000,
          // They start processes on a machine that others use too. .ci/run names each that needed it.
          retry: process.env.CI ? 1 : 0,
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
