import { defineConfig } from "vitest/config";

/** The scenarios that need a cluster: one at a time, because they share it. */
export default defineConfig({
  root: `${import.meta.dirname}/..`,
  test: {
    include: ["e2e/kubernetes/**/*.test.ts"],
    testTimeout: 120_000,
    // One second by default, which a busy machine takes for nothing.
    expect: { poll: { timeout: 20_000 } },
    hookTimeout: 300_000,
    fileParallelism: false,
    // A node of one machine stalls now and then. .ci/run names each test that needed it.
    retry: process.env.CI ? 1 : 0,
    reporters: ["default", ["json", { outputFile: ".cache/e2e-results.json" }]],
  },
});
