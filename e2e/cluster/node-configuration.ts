/** The files that the node's programs read. */

/** The node's name. */
export const nodeName = "node-1";

/** Where pods get their addresses from. */
export const podRange = "10.244.0.0/16";

/** Where Services get theirs from. */
export const serviceRange = "10.96.0.0/16";

/** The Service of CoreDNS. */
export const dnsAddress = "10.96.0.10";

/** The image of the container that holds a pod's network. */
export const pauseName = "localhost/pause:1";

/** What containerd reads. */
export function containerdConfiguration(setup: {
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

/**
 * The network of pods. Each has its own link to the node and everything is routed: what one pod sends to another passes
 * the node's forward hook, where policy is enforced. A bridge would pass it on below.
 */
export const podNetwork = (dataDir: string) =>
  JSON.stringify({
    cniVersion: "1.0.0",
    name: "pods",
    plugins: [
      {
        type: "ptp",
        ipMasq: true,
        ipMasqBackend: "nftables",
        ipam: {
          type: "host-local",
          ranges: [[{ subnet: podRange.replace("/16", "/24") }]],
          routes: [{ dst: "0.0.0.0/0" }],
          dataDir,
        },
      },
    ],
  });

/** What the kubelet reads. */
export function kubeletConfiguration(files: {
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

/** What kube-proxy reads. */
export const proxyConfiguration = (kubeconfig: string) => ({
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
