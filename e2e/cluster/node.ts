/**
 * A real one-node Kubernetes from plain processes: what api-server.ts starts, and scheduler, containerd, kubelet,
 * kube-proxy and CoreDNS beside it. Needs root, and nftables; only one at a time, because the node's network, its
 * control groups and the kubelet's port are the machine's.
 */
import { existsSync, readFileSync } from "node:fs";
import { mkdir, readdir, readFile, rm, rmdir, symlink, writeFile } from "node:fs/promises";
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

const nodeName = "node-1";
const podRange = "10.244.0.0/16";
const serviceRange = "10.96.0.0/16";
const dnsAddress = "10.96.0.10";

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
    const cluster = livePid(nodeFolder, "kubelet") === undefined ? await newNode(bin) : runningNode(bin);
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
  // Each pod has its own link to the node and everything is routed: what one pod sends to another passes the node's
  // forward hook, where policy is enforced. A bridge would pass it on below.
  const network = {
    type: "ptp",
    ipMasq: true,
    ipMasqBackend: "nftables",
    ipam: {
      type: "host-local",
      ranges: [[{ subnet: podRange.replace("/16", "/24") }]],
      routes: [{ dst: "0.0.0.0/0" }],
      dataDir: join(cni, "ipam"),
    },
  };
  await writeFile(
    join(cni, "conf/10-pods.conflist"),
    JSON.stringify({ cniVersion: "1.0.0", name: "pods", plugins: [network] }),
  );
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

function containerdConfiguration(setup: {
  readonly folder: string;
  readonly socket: string;
  readonly snapshotter: string;
  readonly runc: string;
}): string {
  const { folder, socket } = setup;
  const unused = ["btrfs", "devmapper", "zfs", "erofs", "blockfile"].map(
    (name) => `"io.containerd.snapshotter.v1.${name}"`,
  );
  return `version = 3
root = "${folder}/containerd/root"
state = "${folder}/containerd/state"
disabled_plugins = [${[...unused, '"io.containerd.nri.v1.nri"'].join(", ")}]
[grpc]
  address = "${socket}"
[ttrpc]
  address = "${socket}.ttrpc"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "${setup.snapshotter}"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "${pauseName}"
[plugins.'io.containerd.cri.v1.runtime']
  # The capability SYS_RESOURCE may be missing where the machine is itself a container.
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["${folder}/cni/bin"]
    conf_dir = "${folder}/cni/conf"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "${setup.runc}"
      SystemdCgroup = false
      Root = "${folder}/runc"
`;
}

function kubeletConfiguration(files: {
  readonly socket: string;
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly resolv: string;
}) {
  return {
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    // Machines for tests still come with version 1 of control groups.
    failCgroupV1: false,
    cgroupDriver: "cgroupfs",
    containerRuntimeEndpoint: `unix://${files.socket}`,
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: files.ca },
    },
    authorization: { mode: "Webhook" },
    clusterDNS: [dnsAddress],
    clusterDomain: "cluster.local",
    failSwapOn: false,
    // A full disk on a developer's machine is no reason to throw pods out.
    evictionHard: {
      "memory.available": "0%",
      "nodefs.available": "0%",
      "imagefs.available": "0%",
      "nodefs.inodesFree": "0%",
    },
    imageGCHighThresholdPercent: 100,
    imageGCLowThresholdPercent: 99,
    enforceNodeAllocatable: [],
    oomScoreAdj: 0,
    localStorageCapacityIsolation: false,
    resolvConf: files.resolv,
    tlsCertFile: files.cert,
    tlsPrivateKeyFile: files.key,
    // Tests rotate Secrets and wait for them in the pod.
    syncFrequency: "5s",
    configMapAndSecretChangeDetectionStrategy: "Watch",
  };
}

const proxyConfiguration = (kubeconfig: string) => ({
  apiVersion: "kubeproxy.config.k8s.io/v1alpha1",
  kind: "KubeProxyConfiguration",
  mode: "nftables",
  clusterCIDR: podRange,
  hostnameOverride: nodeName,
  oomScoreAdj: 0,
  clientConnection: { kubeconfig },
  // Writes no system setting.
  conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: "0s", tcpCloseWaitTimeout: "0s" },
});

const pauseName = "localhost/pause:1";
const dnsName = "localhost/coredns:1";

const pauseImage = (bin: string) => ({
  name: pauseName,
  layers: [[{ path: "pause", kind: "file" as const, from: join(bin, "pause"), mode: 0o755 }]],
  entrypoint: ["/pause"],
  user: "65532:65532",
});

const dnsImage = (bin: string) => ({
  name: dnsName,
  layers: [[{ path: "coredns", kind: "file" as const, from: join(bin, "coredns"), mode: 0o755 }]],
  entrypoint: ["/coredns"],
  user: "65532:65532",
});

/** CoreDNS as clusters have it, with the labels that policies name. */
function dnsObjects(): object[] {
  const labels = { "k8s-app": "kube-dns" };
  const metadata = { name: "coredns", namespace: "kube-system", labels };
  const ports = [
    { name: "dns", port: 53, targetPort: 1053, protocol: "UDP" },
    { name: "dns-tcp", port: 53, targetPort: 1053, protocol: "TCP" },
  ];
  const container = {
    name: "coredns",
    image: dnsName,
    imagePullPolicy: "Never",
    args: ["-conf", "/etc/coredns/Corefile"],
    ports: [
      { name: "dns", containerPort: 1053, protocol: "UDP" },
      { name: "dns-tcp", containerPort: 1053, protocol: "TCP" },
    ],
    volumeMounts: [{ name: "config", mountPath: "/etc/coredns" }],
    readinessProbe: { httpGet: { path: "/ready", port: 8181 }, periodSeconds: 1 },
  };
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRole",
      metadata: { name: "system:coredns" },
      rules: [
        {
          apiGroups: [""],
          resources: ["services", "pods", "namespaces", "endpoints"],
          verbs: ["list", "watch"],
        },
        { apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["list", "watch"] },
      ],
    },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRoleBinding",
      metadata: { name: "system:coredns" },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "system:coredns" },
      subjects: [{ kind: "ServiceAccount", name: "coredns", namespace: "kube-system" }],
    },
    { apiVersion: "v1", kind: "ConfigMap", metadata, data: { Corefile: corefile } },
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata,
      spec: {
        replicas: 1,
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            serviceAccountName: "coredns",
            priorityClassName: "system-cluster-critical",
            containers: [container],
            volumes: [{ name: "config", configMap: { name: "coredns" } }],
          },
        },
      },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { ...metadata, name: "kube-dns" },
      spec: { selector: labels, clusterIP: dnsAddress, ports },
    },
  ];
}

const corefile = `.:1053 {
  errors
  ready :8181
  kubernetes cluster.local in-addr.arpa {
    pods insecure
    ttl 5
  }
}
`;

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

/** Shims outlive containerd; each holds one pod's containers, which end with their control group's processes. */
async function killContainers(folder: string): Promise<void> {
  const shims: number[] = [];
  const members: number[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const command = readQuietly(`/proc/${name}/cmdline`);
    if (command.includes("containerd-shim") && command.includes(folder)) shims.push(Number(name));
  }
  for (const name of await readdir("/proc")) {
    if (/^\d+$/.test(name) && shims.includes(parentOf(Number(name)))) members.push(Number(name));
  }
  // The members are first processes of their pid namespaces: what they started ends with them.
  for (const pid of [...members, ...shims]) killQuietly(pid);
}

function parentOf(pid: number): number {
  return Number(/\) \S (\d+)/.exec(readQuietly(`/proc/${pid}/stat`))?.[1] ?? 0);
}

function readQuietly(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended in between.
  }
}

async function unmountBelow(folder: string): Promise<void> {
  const mounts = (await readFile("/proc/self/mounts", "utf8"))
    .split("\n")
    .map((line) => line.split(" ")[1]?.replaceAll("\\040", " ") ?? "")
    .filter((path) => path.startsWith(`${folder}/`));
  for (const path of mounts.reverse()) await run("umount", ["-l", path]);
}

/** The kubelet leaves its groups behind; those that still hold a process of somebody else cannot be removed. */
async function removeControlGroups(): Promise<void> {
  const root = "/sys/fs/cgroup";
  const tops = [root, ...(await readdir(root).catch(() => [])).map((name) => join(root, name))];
  for (const top of tops.map((path) => join(path, "kubepods")).filter((path) => existsSync(path))) {
    const inside = await readdir(top, { recursive: true, withFileTypes: true });
    const folders = inside.filter((entry) => entry.isDirectory()).map((e) => join(e.parentPath, e.name));
    for (const path of [...folders.sort().reverse(), top]) await rmdir(path).catch(() => {});
  }
}
