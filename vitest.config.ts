import { defineConfig } from "vitest/config";

/** Unit tests beside their code, and the scenarios that need no cluster; `make e2e` runs those that do. */
export default defineConfig({
  test: {
    include: [
      "{crds,control,policy,sidecar,operator,cli}/src/**/*.test.ts",
      "e2e/{scenarios,cluster,image}/**/*.test.ts",
      "*.test.ts",
    ],
    testTimeout: 30_000,
    hookTimeout: 120_000,
    maxWorkers: 2,
    // .ci/run counts from this file.
    reporters: process.env.CI
      ? ["default", ["json", { outputFile: ".cache/test-results.json" }]]
      : ["default"],
  },
});
