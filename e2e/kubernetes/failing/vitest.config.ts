import { defineConfig } from "vitest/config";
import { reporters } from "../../reporters.ts";

const root = `${import.meta.dirname}/../../..`;

/** Scenarios that fail, for the test of what a failure prints: no other run finds them. */
export default defineConfig({
  root,
  test: {
    include: ["e2e/kubernetes/failing/*.ts"],
    exclude: ["**/*.config.ts"],
    hookTimeout: 120_000,
    reporters: reporters(),
  },
});
