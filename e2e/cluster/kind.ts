/**
 * A cluster of kind, where Docker runs: one a machine, as the node of our own is, and kept or taken down like it. Its
 * network is that of the node of our own too, so that NetworkPolicy is enforced in the same way on any kernel that has
 * nftables.
 */
import { existsSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { accessCluster, type Cluster } from "./access.ts";
import { issuerOf } from "./api-server.ts";
import { claim } from "./claim.ts";
import { createKubectl, must } from "./kubectl.ts";
import { keptMark } from "./node.ts";
import { podNetwork } from "./node-configuration.ts";
import { livePid, startProcess, stopProcesses } from "./processes.ts";
import { clusterPrograms, isOnPath } from "./programs.ts";

/** What kind calls the cluster. */
const kindName = "sallyport-e2e";
const enforcer = "network-policy";
const kindFolder = () => join(tmpdir(), "sallyport-kind");
const container = `${kindName}-control-plane`;
const kubeconfigOf = (folder: string) => join(folder, "admin.kubeconfig");
const claimOfKind = () => claim(`${kindFolder()}.claim`);

/** Makes the cluster; one that was kept and answers is used, and left to whoever made it. */
export async function startKind(): Promise<Cluster> {
  const program = await kubectlProgram();
  // Two runs would take each other's cluster down.
  const { release } = await claimOfKind();
  try {
    const isKept = await answersKept(program);
    await (isKept ? enforceNetworkPolicy(program) : create(program));
    return await open(program, async () => {
      if (!isKept) await remove();
      release();
    });
  } catch (error) {
    release();
    throw error;
  }
}

/** Takes down a cluster that was kept. */
export async function stopKind(): Promise<void> {
  if (!existsSync(kindFolder())) return;
  const { release } = await claimOfKind();
  await remove();
  release();
}

/** What there is of a cluster that was kept: undefined where there is none. */
export async function keptKind(): Promise<"answers" | "silent" | undefined> {
  if (!existsSync(join(kindFolder(), keptMark))) return undefined;
  return (await answersKept(await kubectlProgram())) ? "answers" : "silent";
}

/** Scenarios call helm too, and look for it beside kubectl. */
async function kubectlProgram(): Promise<string> {
  if (isOnPath("kubectl") && isOnPath("helm")) return "kubectl";
  return join(await clusterPrograms(["kubernetes", "helm"]), "kubectl");
}

/** One without the mark was left by a run that died. */
async function answersKept(program: string): Promise<boolean> {
  const folder = kindFolder();
  if (!existsSync(join(folder, keptMark))) return false;
  const kubectl = createKubectl(program, kubeconfigOf(folder));
  return (await kubectl.try(undefined, "get", "--raw", "/readyz", "--request-timeout=10s")).code === 0;
}

async function create(program: string): Promise<void> {
  await remove();
  const folder = kindFolder();
  await mkdir(folder);
  await writeFile(kubeconfigOf(folder), "");
  const config = join(import.meta.dirname, "../../kind-config.yaml");
  const flags = ["--name", kindName, "--kubeconfig", kubeconfigOf(folder)];
  try {
    await must("kind", ["create", "cluster", ...flags, "--config", config]);
    const shell = "mkdir -p /etc/cni/net.d && cat > /etc/cni/net.d/10-pods.conflist";
    await must("docker", ["exec", "-i", container, "sh", "-c", shell], podNetwork("/run/cni-ipam-state"));
    const kubectl = createKubectl(program, kubeconfigOf(folder));
    await kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=120s");
    await kubectl("rollout", "status", "deployment/coredns", "--namespace=kube-system", "--timeout=120s");
    await enforceNetworkPolicy(program);
  } catch (error) {
    // What went wrong first says more than what goes wrong because of it.
    await remove().catch(() => undefined);
    throw error;
  }
}

/** Starts what enforces it, unless it runs: a cluster that was kept may have outlived it. */
async function enforceNetworkPolicy(program: string): Promise<void> {
  const folder = kindFolder();
  if (livePid(folder, enforcer) !== undefined) return;
  const kubectl = createKubectl(program, kubeconfigOf(folder));
  const kubeconfig = join(folder, `${enforcer}.kubeconfig`);
  const config = await kubectl("config", "view", "--raw", "--minify", "--output=json");
  await writeFile(kubeconfig, config, { mode: 0o600 });
  await startProcess(folder, enforcer, [
    process.execPath,
    join(import.meta.dirname, "network-policy/main.ts"),
    kubeconfig,
    ...["docker", "exec", "-i", container, "nft"],
  ]);
}

async function open(program: string, close: () => Promise<void>): Promise<Cluster> {
  const folder = kindFolder();
  const access = accessCluster(program, kubeconfigOf(folder), folder);
  return {
    ...access,
    ...{ kind: "kind", folder, close, enforcesNetworkPolicy: true },
    issuer: await issuerOf(access.kubectl),
    loadImage: (archive) => must("kind", ["load", "image-archive", archive, "--name", kindName]),
  };
}

async function remove(): Promise<void> {
  await stopProcesses(kindFolder(), [enforcer], 5_000);
  // kind says that all is well where there is no such cluster.
  await must("kind", ["delete", "cluster", "--name", kindName, "--kubeconfig", kubeconfigOf(kindFolder())]);
  await rm(kindFolder(), { recursive: true, force: true });
}
