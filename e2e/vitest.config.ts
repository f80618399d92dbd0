import { globSync, readFileSync } from "node:fs";
import { defineConfig } from "vitest/config";
import { reporters } from "./reporters.ts";

const root = `${import.meta.dirname}/..`;
/** Scenarios that run with `make e2e ARGS=--full` alone: this one's metrics API takes minutes to build. */
const fullOnly = ["e2e/kubernetes/operator-autoscaling.test.ts"];
const isFull = process.env.SALLYPORT_E2E_FULL !== undefined;
const all = globSync("e2e/kubernetes/**/*.test.ts", { cwd: root }).filter(
  (path) => isFull || !fullOnly.includes(path),
);
/** What runs on the cluster opens a scenario there; everything else starts an API server of its own. */
const onCluster = all.filter((path) =>
  /from "\.\/(scenario|installed|orders|held-statements)\.ts"/.test(readFileSync(`${root}/${path}`, "utf8")),
);

const project = (name: string, include: readonly string[]) => ({
  extends: true as const,
  test: { name, include: [...include] },
});

/** Two projects, each one file at a time: files of the first share the cluster, and `make e2e` runs the second beside it. */
export default defineConfig({
  root,
  test: {
    projects: [
      project("cluster", onCluster),
      project(
        "api-server",
        all.filter((path) => !onCluster.includes(path)),
      ),
    ],
    reporters: reporters(),
    testTimeout: 120_000,
    // One second by default, which a busy machine takes for nothing.
    expect: { poll: { timeout: 20_000 } },
    hookTimeout: 300_000,
    fileParallelism: false,
    // A node of one machine stalls now and then. .ci/run names each test that needed it.
    retry: process.env.CI ? 1 : 0,
  },
});
