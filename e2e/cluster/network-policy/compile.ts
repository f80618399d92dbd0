import {
  type ClusterState,
  type NetworkPolicy,
  type Peer,
  type Pod,
  type PolicyPort,
  type Selector,
  selects,
} from "./objects.ts";

/** The table that holds our rules; nothing else touches it. */
export const tableName = "sallyport_network_policy";

/**
 * Turns policies into one nftables script that replaces the table as a whole. What it must hold:
 * a pod that some policy selects for a direction is closed in it but for what the policies allow together; other pods
 * are open; a connection that was allowed may answer; the node reaches its own pods (kubelet's probes).
 */
export function compileRules(state: ClusterState): string {
  const world = gather(state);
  return [
    `table inet ${tableName}`,
    `delete table inet ${tableName}`,
    `table inet ${tableName} {`,
    // The addresses are those of pods by then: Services are translated before a packet is forwarded.
    ...chain("forwarded", "type filter hook forward priority 0; policy accept;", [
      "ct state established,related accept",
      "jump egress",
      "jump ingress",
    ]),
    // From a pod to the node itself: the API server, for example.
    ...chain("to-node", "type filter hook input priority 0; policy accept;", [
      "ct state established,related accept",
      "jump egress",
    ]),
    ...chain("egress", undefined, direction(world, "Egress")),
    ...chain("ingress", undefined, direction(world, "Ingress")),
    "}",
    "",
  ].join("\n");
}

type Direction = "Ingress" | "Egress";

interface World {
  readonly pods: readonly (Pod & { readonly ip: string })[];
  readonly policies: readonly NetworkPolicy[];
  readonly namespaceLabels: ReadonlyMap<string, Readonly<Record<string, string>>>;
}

type AddressedPod = World["pods"][number];

function gather(state: ClusterState): World {
  const running = state.pods.flatMap((pod) => {
    const ip = pod.status?.podIP;
    // A pod that has ended gave its address back; one on the node's network shares the node's.
    const ended = pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed";
    return ip === undefined || ended || pod.spec.hostNetwork === true ? [] : [{ ...pod, ip }];
  });
  const byName = (a: NetworkPolicy, b: NetworkPolicy) => identity(a).localeCompare(identity(b));
  return {
    pods: running.sort((a, b) => a.ip.localeCompare(b.ip)),
    policies: [...state.policies].sort(byName),
    namespaceLabels: new Map(
      state.namespaces.map(({ metadata }) => [
        metadata.name,
        { "kubernetes.io/metadata.name": metadata.name, ...metadata.labels },
      ]),
    ),
  };
}

const identity = (policy: NetworkPolicy) => `${policy.metadata.namespace}/${policy.metadata.name}`;

const chain = (name: string, hook: string | undefined, rules: readonly string[]) => [
  `  chain ${name} {`,
  ...(hook ? [`    ${hook}`] : []),
  ...rules.map((rule) => `    ${rule}`),
  "  }",
];

/** The rules of one direction: what is allowed returns, what is left of a closed pod is dropped. */
function direction(world: World, kind: Direction): string[] {
  const closed = new Set<string>();
  const rules: string[] = [];
  for (const policy of world.policies) {
    if (!appliesTo(policy, kind)) continue;
    const subjects = world.pods.filter(
      (pod) =>
        pod.metadata.namespace === policy.metadata.namespace &&
        selects(policy.spec.podSelector ?? {}, pod.metadata.labels),
    );
    for (const { ip } of subjects) closed.add(ip);
    if (subjects.length === 0) continue;
    const entries =
      kind === "Ingress"
        ? (policy.spec.ingress ?? []).map(({ from, ports }) => ({ peers: from, ports }))
        : (policy.spec.egress ?? []).map(({ to, ports }) => ({ peers: to, ports }));
    for (const entry of entries) rules.push(...allowed(world, { kind, policy, subjects, ...entry }));
  }
  if (closed.size === 0) return [];
  const own = kind === "Ingress" ? "daddr" : "saddr";
  return [`ip ${own} != ${set([...closed])} return`, ...rules, "drop"];
}

/** `policyTypes` that are left out follow from what is there: ingress always, egress where it has rules. */
function appliesTo({ spec }: NetworkPolicy, kind: Direction): boolean {
  if (spec.policyTypes && spec.policyTypes.length > 0) return spec.policyTypes.includes(kind);
  return kind === "Ingress" || (spec.egress ?? []).length > 0;
}

function allowed(
  world: World,
  rule: {
    readonly kind: Direction;
    readonly policy: NetworkPolicy;
    readonly subjects: readonly AddressedPod[];
    readonly peers: readonly Peer[] | undefined;
    readonly ports: readonly PolicyPort[] | undefined;
  },
): string[] {
  const { kind, policy, subjects } = rule;
  const [own, other] = kind === "Ingress" ? ["daddr", "saddr"] : ["saddr", "daddr"];
  const comment = `comment "${identity(policy)}"`;
  // No peers and no ports mean all of them, not none.
  const peers = rule.peers?.length ? rule.peers : [undefined];
  const ports = rule.ports?.length ? rule.ports : [undefined];
  const lines: string[] = [];
  for (const peer of peers) {
    const peerPods = podsOf(world, policy, peer);
    for (const port of ports) {
      if (typeof port?.port !== "string") {
        const from = peerMatch(peer, peerPods, other ?? "");
        if (from === undefined) continue;
        const subject = `ip ${own} ${set(subjects.map(({ ip }) => ip))}`;
        lines.push(parts(subject, from, portMatch(port), "return", comment));
        continue;
      }
      // A name means a number of its own in each pod that is spoken to.
      for (const target of kind === "Ingress" ? subjects : (peerPods ?? world.pods)) {
        const number = namedPort(target, port.port, port.protocol ?? "TCP");
        const ingress = kind === "Ingress";
        const from = ingress
          ? peerMatch(peer, peerPods, "saddr")
          : `ip saddr ${set(subjects.map(({ ip }) => ip))}`;
        if (number === undefined || from === undefined) continue;
        const within = !ingress && peer?.ipBlock ? block(peer.ipBlock, "daddr") : "";
        lines.push(
          parts(
            from,
            within,
            `ip daddr ${target.ip}`,
            portMatch({ ...port, port: number }),
            "return",
            comment,
          ),
        );
      }
    }
  }
  return lines;
}

const parts = (...texts: readonly string[]) => texts.filter((text) => text !== "").join(" ");

/** The pods that a peer names; undefined where it names addresses or everybody. */
function podsOf(world: World, policy: NetworkPolicy, peer: Peer | undefined): AddressedPod[] | undefined {
  if (peer === undefined || peer.ipBlock) return undefined;
  const inNamespace = (namespace: string | undefined) =>
    peer.namespaceSelector
      ? selects(peer.namespaceSelector, world.namespaceLabels.get(namespace ?? ""))
      : namespace === policy.metadata.namespace;
  const selector: Selector = peer.podSelector ?? {};
  return world.pods.filter(
    ({ metadata }) => inNamespace(metadata.namespace) && selects(selector, metadata.labels),
  );
}

/** What a packet's other end must be; undefined where it can be nobody. */
function peerMatch(
  peer: Peer | undefined,
  pods: readonly AddressedPod[] | undefined,
  side: string,
): string | undefined {
  if (peer === undefined) return "";
  if (peer.ipBlock) return block(peer.ipBlock, side);
  return pods === undefined || pods.length === 0 ? undefined : `ip ${side} ${set(pods.map(({ ip }) => ip))}`;
}

function block({ cidr, except }: NonNullable<Peer["ipBlock"]>, side: string): string {
  // Pods of this cluster have IPv4 addresses only.
  const family = cidr.includes(":") ? "ip6" : "ip";
  const outside = except?.length ? ` ${family} ${side} != ${set(except)}` : "";
  return `${everything.has(cidr) ? `meta nfproto ${family === "ip" ? "ipv4" : "ipv6"}` : `${family} ${side} ${cidr}`}${outside}`;
}

const everything = new Set(["0.0.0.0/0", "::/0"]);

function portMatch(port: PolicyPort | undefined): string {
  if (port === undefined) return "";
  const protocol = (port.protocol ?? "TCP").toLowerCase();
  if (port.port === undefined) return `meta l4proto ${protocol}`;
  return `${protocol} dport ${port.port}${port.endPort === undefined ? "" : `-${port.endPort}`}`;
}

function namedPort(pod: AddressedPod, name: string, protocol: string): number | undefined {
  const containers = [...(pod.spec.initContainers ?? []), ...(pod.spec.containers ?? [])];
  return containers
    .flatMap(({ ports }) => ports ?? [])
    .find((port) => port.name === name && (port.protocol ?? "TCP") === protocol)?.containerPort;
}

const set = (members: readonly string[]) => `{ ${[...new Set(members)].join(", ")} }`;
