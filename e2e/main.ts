/**
 * `make e2e`: a cluster, the images in it, every scenario of e2e/kubernetes, and the cluster gone again. What failed is
 * printed by the scenario itself; here come the node's logs, the time of each suite and the counts.
 * usage: main.ts [--keep] [--full] [vitest's filters]
 *   --keep leaves the cluster, and the namespaces of what failed; --full runs heavy scenarios at their full size, and
 *   those that run in no other way
 */
import { spawn } from "node:child_process";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Cluster } from "./cluster/access.ts";
import { startCluster } from "./cluster/cluster.ts";
import { keptMark } from "./cluster/node.ts";
import { gatewayImage } from "./image/gateway.ts";
import { packImage } from "./image/pack.ts";
import { postgresImage } from "./image/postgres/image.ts";
import { sshdImage } from "./image/sshd/image.ts";
import { metricsServerImage } from "./kubernetes/metrics-server.ts";
import { resultsVariable, timesPath } from "./reporters.ts";

const root = join(import.meta.dirname, "..");
/** Projects of e2e/vitest.config.ts: they run beside each other, since most of a scenario is waiting. */
const projects = ["cluster", "api-server"] as const;
const results = (project: string) => join(root, `.cache/e2e-${project}-results.json`);
const keep = process.argv.includes("--keep");
const full = process.argv.includes("--full");
const filters = process.argv.slice(2).filter((argument) => !["--keep", "--full"].includes(argument));

let cluster: Cluster | undefined;
const interrupted = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => interrupted.abort(new Error(`ended by ${signal}`)));
}

try {
  cluster = await timed("cluster", startCluster);
  console.log(`cluster: ${cluster.kind}, KUBECONFIG=${cluster.kubeconfig}`);
  await timed("images", () => loadImages(cluster as Cluster));
  const codes = await timed("scenarios", () =>
    Promise.all(projects.map((project) => scenarios(project, cluster as Cluster))),
  );
  const counts = await printResults();
  const wentWell = codes.every((code) => code === 0) && counts.failed === 0;
  if (!wentWell) await printNodeLogs(cluster);
  console.log(`${counts.passed} passed, ${counts.failed} failed`);
  process.exitCode = wentWell && counts.passed > 0 ? 0 : 1;
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  if (keep && cluster) await writeFile(join(cluster.folder, keptMark), "");
  else await cluster?.close();
}
// Nothing of ours is left to wait for.
process.exit();

async function timed<T>(what: string, work: () => Promise<T>): Promise<T> {
  interrupted.signal.throwIfAborted();
  const begun = performance.now();
  try {
    return await work();
  } finally {
    console.log(`${what}: ${((performance.now() - begun) / 1000).toFixed(1)} s`);
  }
}

async function loadImages({ loadImage }: Cluster): Promise<void> {
  const images = [await gatewayImage(), await postgresImage(), await sshdImage()];
  if (full) images.push(await metricsServerImage());
  for (const image of images) await loadImage(await packImage(image));
}

async function scenarios(project: (typeof projects)[number], cluster: Cluster): Promise<number> {
  await rm(results(project), { force: true });
  const child = spawn(
    join(root, "node_modules/.bin/vitest"),
    [
      ...["--config", join(root, "e2e/vitest.config.ts"), "--project", project, "run"],
      // With filters there may be none in one of the two.
      ...["--passWithNoTests", ...filters],
    ],
    {
      // Two at once cannot draw on one terminal.
      stdio: ["ignore", "pipe", "pipe"],
      cwd: root,
      env: {
        ...process.env,
        [resultsVariable]: results(project),
        ...(project === "cluster"
          ? {
              SALLYPORT_E2E_KUBECONFIG: cluster.kubeconfig,
              SALLYPORT_E2E_KUBECTL: cluster.kubectl.program,
            }
          : {}),
        ...(keep ? { SALLYPORT_E2E_KEEP: "1" } : {}),
        ...(full ? { SALLYPORT_E2E_FULL: "1" } : {}),
      },
    },
  );
  child.stdout.pipe(process.stdout, { end: false });
  child.stderr.pipe(process.stderr, { end: false });
  const stop = () => child.kill("SIGTERM");
  interrupted.signal.addEventListener("abort", stop);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve(code ?? 1));
  });
}

interface Results {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

async function printResults(): Promise<{ readonly passed: number; readonly failed: number }> {
  let [passed, failed] = [0, 0];
  for (const project of projects) {
    const { testResults, numPassedTests, numFailedTests } = JSON.parse(
      await readFile(results(project), "utf8"),
    ) as Results;
    const times = JSON.parse(await readFile(timesPath(results(project)), "utf8")) as Readonly<
      Record<string, number>
    >;
    for (const suite of testResults) {
      const seconds = ((times[suite.name] ?? 0) / 1000).toFixed(1).padStart(6);
      console.log(`${seconds} s  ${suite.status}  ${suite.name.slice(root.length + 1)}`);
    }
    // A file that could not be loaded, or whose set-up failed, holds no failed test but is a failure all the same.
    const isFailed = ({ status }: { readonly status: string }) => status === "failed";
    const isBroken = (suite: Results["testResults"][number]) =>
      isFailed(suite) && !suite.assertionResults.some(isFailed);
    passed += numPassedTests;
    failed += numFailedTests + testResults.filter(isBroken).length;
  }
  return { passed, failed };
}

/** The ends of what the node's own processes wrote. */
async function printNodeLogs(cluster: Cluster): Promise<void> {
  const folder = join(cluster.folder, "log");
  for (const name of await readdir(folder).catch(() => [])) {
    const text = await readFile(join(folder, name), "utf8");
    console.log(`--- ${name}\n${text.trim().split("\n").slice(-8).join("\n")}`);
  }
}
