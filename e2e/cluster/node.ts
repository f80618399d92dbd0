/**
 * A real one-node Kubernetes from plain processes: what api-server.ts starts, and scheduler, containerd, kubelet,
 * kube-proxy and CoreDNS beside it. Needs root, and nftables; only one at a time, because the node's network, its
 * control groups and the kubelet's port are the machine's.
 */
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { packImage } from "../image/pack.ts";
import { accessCluster, type Cluster } from "./access.ts";
import { serviceAccountIssuer, startControlPlane } from "./api-server.ts";
import { claim } from "./claim.ts";
import { createKeptFolder } from "./folder.ts";
import { writeKubeconfig } from "./kubeconfig.ts";
import { run } from "./kubectl.ts";
import { tableName } from "./network-policy/compile.ts";
import {
  containerdConfiguration,
  kubeletConfiguration,
  nodeName,
  podNetwork,
  podRange,
  proxyConfiguration,
  serviceRange,
} from "./node-configuration.ts";
import { dnsImage, dnsObjects, pauseImage } from "./node-images.ts";
import { killContainers, removeControlGroups, unmountBelow } from "./node-remains.ts";
import {
  type ClusterProcess,
  killProcesses,
  livePid,
  startProcess,
  stopProcesses,
  waitFor,
} from "./processes.ts";
import { clusterPrograms, nodeModules, pathOf } from "./programs.ts";

/** The node's folder; fixed, so that what was left by a process that died is found. */
export const nodeFolder = "/var/tmp/sallyport-node";

/** The file in it that says: whoever started this node wants it to stay. */
export const keptMark = "kept";

/** Why this machine cannot run a node; undefined where it can. */
export function nodeHindrance(): string | undefined {
  if (process.platform !== "linux") return "a node needs Linux";
  if (process.getuid?.() !== 0) return "a node needs root";
  for (const [command, debian] of Object.entries({ nft: "nftables", runc: "runc", mount: "mount" })) {
    if (pathOf(command) === undefined) return `a node needs the command ${command} (Debian: ${debian})`;
  }
  return undefined;
}

/** Starts the node and waits until pods can run on it; one that runs already is used, and left to whoever started it. */
export async function startNode(): Promise<Cluster> {
  const hindrance = nodeHindrance();
  if (hindrance) throw new Error(hindrance);
  const bin = await clusterPrograms(nodeModules);
  // Two runs would take each other's node down.
  const { release } = await claim(claimFile);
  try {
    // One without the mark was left by a run that died.
    const kubelet = existsSync(join(nodeFolder, keptMark)) ? livePid(nodeFolder, "kubelet") : undefined;
    if (kubelet !== undefined && !(await isSameFile(`/proc/${kubelet}/exe`, join(bin, "kubelet"))))
      throw new Error("another release's node runs; take it down first: npx tsx e2e/cluster/main.ts down");
    const cluster = kubelet === undefined ? await newNode(bin) : runningNode(bin);
    return {
      ...cluster,
      close: async () => {
        await cluster.close();
        release();
      },
    };
  } catch (error) {
    release();
    throw error;
  }
}

/** Takes down what runs, once nobody uses it. */
export async function stopNode(): Promise<void> {
  const { release } = await claim(claimFile);
  await removeNode();
  release();
}

async function isSameFile(one: string, other: string): Promise<boolean> {
  const [a, b] = await Promise.all([stat(one), stat(other)]);
  return a.dev === b.dev && a.ino === b.ino;
}

const claimFile = `${nodeFolder}.claim`;

async function newNode(bin: string): Promise<Cluster> {
  await removeNode();
  try {
    return await start(bin, await createKeptFolder(nodeFolder));
  } catch (error) {
    await printLogs();
    await removeNode();
    throw error;
  }
}

/** What went wrong is in the logs, and those go with the folder. */
async function printLogs(): Promise<void> {
  const folder = join(nodeFolder, "log");
  for (const name of await readdir(folder).catch(() => [])) {
    console.error(`--- ${name}\n${(await readFile(join(folder, name), "utf8")).trim().slice(-1500)}`);
  }
}

function runningNode(bin: string): Cluster {
  const access = accessCluster(join(bin, "kubectl"), join(nodeFolder, "admin.kubeconfig"), nodeFolder);
  return {
    ...access,
    ...{ kind: "node", folder: nodeFolder, issuer: serviceAccountIssuer, enforcesNetworkPolicy: true },
    loadImage: (archive) => loadImage(bin, join(nodeFolder, "containerd.sock"), archive),
    close: async () => {},
  };
}

/** Ends and removes whatever there is of a node: processes, containers, mounts, network, control groups. */
async function removeNode(): Promise<void> {
  const folder = nodeFolder;
  if (!existsSync(folder)) return;
  // The kubelet first: it would start again what is ended.
  await stopProcesses(folder, ["kubelet", "kube-proxy", "network-policy", "scheduler"], 5_000);
  await stopProcesses(folder, ["controller-manager", "api-server", "etcd"], 5_000);
  await killContainers(folder);
  await stopProcesses(folder, ["containerd"], 5_000);
  killProcesses(folder);
  await unmountBelow(folder);
  for (const table of [
    `inet ${tableName}`,
    "ip kube-proxy",
    "ip6 kube-proxy",
    "inet cni_plugins_masquerade",
  ]) {
    await run("nft", ["delete", "table", ...table.split(" ")]);
  }
  await removeControlGroups();
  await rm(folder, { recursive: true, force: true, maxRetries: 5 });
}

async function start(bin: string, folder: string): Promise<Cluster> {
  const address = nodeAddress();
  const socket = join(folder, "containerd.sock");
  const containerd = await startContainerd(bin, folder, socket);
  const plane = await startControlPlane({
    ...{ bin, folder, advertise: address },
    controllerManager: true,
    controllerManagerFlags: [
      "--allocate-node-cidrs",
      `--cluster-cidr=${podRange}`,
      `--service-cluster-ip-range=${serviceRange}`,
      // An autoscaler's answer in seconds: it looks every quarter of a minute otherwise, and takes back what it gave
      // after five minutes.
      "--horizontal-pod-autoscaler-sync-period=5s",
      "--horizontal-pod-autoscaler-downscale-stabilization=20s",
    ],
  });
  const { authority, kubectl } = plane;
  const kubeconfig = async (name: string, groups: readonly string[] = []) => {
    const certificate = await authority.issue({ commonName: name, organizations: groups, usage: "client" });
    return writeKubeconfig(join(folder, `${name.replaceAll(":", "-")}.kubeconfig`), plane, { certificate });
  };
  const serving = await authority.issue({
    commonName: `system:node:${nodeName}`,
    organizations: ["system:nodes"],
    dnsNames: [nodeName],
    ipAddresses: [address],
    usage: "server",
  });
  const write = async (name: string, content: string | object) => {
    const path = join(folder, name);
    await writeFile(path, typeof content === "string" ? content : JSON.stringify(content), { mode: 0o600 });
    return path;
  };

  await waitForSocket(containerd, socket);
  await loadImage(bin, socket, await packImage(pauseImage(bin)));
  await loadImage(bin, socket, await packImage(dnsImage(bin)));

  const scheduler = await kubeconfig("system:kube-scheduler");
  await startProcess(folder, "scheduler", [
    join(bin, "kube-scheduler"),
    ...["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"].map(
      (f) => `--${f}=${scheduler}`,
    ),
    "--leader-elect=false",
    "--bind-address=127.0.0.1",
  ]);
  await mkdir(join(folder, "kubelet"));
  const kubelet = await startProcess(folder, "kubelet", [
    join(bin, "kubelet"),
    `--config=${await write(
      "kubelet.json",
      kubeletConfiguration({
        socket,
        ca: join(folder, "pki/ca.crt"),
        cert: await write("pki/kubelet.crt", serving.certPem),
        key: await write("pki/kubelet.key", serving.keyPem),
        resolv: await write("resolv.conf", "nameserver 127.0.0.1\n"),
      }),
    )}`,
    `--kubeconfig=${await kubeconfig(`system:node:${nodeName}`, ["system:nodes"])}`,
    `--hostname-override=${nodeName}`,
    `--node-ip=${address}`,
    `--root-dir=${join(folder, "kubelet")}`,
  ]);
  const proxy = proxyConfiguration(await kubeconfig("system:kube-proxy"));
  await startProcess(folder, "kube-proxy", [
    join(bin, "kube-proxy"),
    `--config=${await write("kube-proxy.json", proxy)}`,
  ]);
  const enforcer = await kubeconfig("network-policy", ["system:masters"]);
  await startProcess(folder, "network-policy", [
    process.execPath,
    join(import.meta.dirname, "network-policy/main.ts"),
    enforcer,
  ]);

  await waitFor(
    "the node to be ready",
    async () => {
      if (!kubelet.isAlive()) throw new Error(`kubelet ended:\n${await kubelet.log()}`);
      const { stdout } = await kubectl.try(undefined, ...readyQuery.split(" "));
      return stdout.includes("True") || undefined;
    },
    { ms: 120_000, pauseMs: 250 },
  );
  await kubectl.apply(dnsObjects());
  await kubectl("rollout", "status", "deployment/coredns", "--namespace", "kube-system", "--timeout", "60s");
  return {
    ...plane,
    kind: "node",
    issuer: serviceAccountIssuer,
    enforcesNetworkPolicy: true,
    loadImage: (archive) => loadImage(bin, socket, archive),
    close: removeNode,
  };
}

const readyQuery = `get node ${nodeName} -o jsonpath={.status.conditions[?(@.type=="Ready")].status}`;

function nodeAddress(): string {
  const found = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal);
  if (found === undefined) throw new Error("a node needs an address beside the loopback");
  return found.address;
}

async function startContainerd(bin: string, folder: string, socket: string): Promise<ClusterProcess> {
  const cni = join(folder, "cni");
  await mkdir(join(cni, "bin"), { recursive: true });
  await mkdir(join(cni, "conf"));
  for (const plugin of ["ptp", "loopback", "host-local"]) {
    await symlink(join(bin, plugin), join(cni, "bin", plugin));
  }
  await writeFile(join(cni, "conf/10-pods.conflist"), podNetwork(join(cni, "ipam")));
  await writeFile("/proc/sys/net/ipv4/ip_forward", "1");
  const config = join(folder, "containerd.toml");
  await writeFile(
    config,
    containerdConfiguration({
      ...{ folder, socket, snapshotter: await snapshotter(folder), runc: pathOf("runc") ?? "runc" },
    }),
  );
  return startProcess(folder, "containerd", [join(bin, "containerd"), "--config", config], {
    // containerd finds its shim on the path, and Debian keeps nft outside of an ordinary user's.
    PATH: `${bin}:${process.env.PATH}:/usr/sbin:/sbin`,
  });
}

/** Where the machine is itself a container on an overlay, another overlay cannot be mounted. */
async function snapshotter(folder: string): Promise<"overlayfs" | "native"> {
  const probe = join(folder, "overlay");
  for (const part of ["lower", "upper", "work", "merged"])
    await mkdir(join(probe, part), { recursive: true });
  const options = ["lower", "upper", "work"].map((part) => `${part}dir=${join(probe, part)}`).join(",");
  const mounted = await run("mount", ["-t", "overlay", "overlay", "-o", options, join(probe, "merged")]);
  if (mounted.code !== 0) return "native";
  await run("umount", [join(probe, "merged")]);
  return "overlayfs";
}

async function waitForSocket(containerd: ClusterProcess, socket: string): Promise<void> {
  await waitFor("containerd", async () => {
    if (!containerd.isAlive()) throw new Error(`containerd ended:\n${await containerd.log()}`);
    return existsSync(socket) || undefined;
  });
}

async function loadImage(bin: string, socket: string, archive: string): Promise<void> {
  // Pinned: the kubelet does not collect it, and no registry could bring it back.
  const pin = ["--label", "io.cri-containerd.pinned=pinned"];
  const argv = ["-a", socket, "-n", "k8s.io", "images", "import", ...pin, archive];
  const { code, stderr } = await run(join(bin, "ctr"), argv);
  if (code !== 0) throw new Error(`${archive} could not be loaded: ${stderr}`);
}
