import {
  type IdentityProvider,
  isSelectedBy,
  type ProtectedResource,
  type ProtectedResourceStatus,
  unknownOptions,
} from "@sallyport/crds";
import { controllerOf, type KubeObject, type UntypedObject } from "../../kube/index.ts";
import {
  comparePod,
  type GatewaySettings,
  hashOf,
  holds,
  isOwnCluster,
  listenPort,
  namesOf,
  type PlacedResource,
  placementFault,
  placeResource,
  protectionLabel,
  type RenderedObject,
  renderedAnnotation,
  type ServerPods,
} from "../../placement/index.ts";
import type { WantedCondition } from "../../reconcile/index.ts";
import type { PolicyInForce } from "../access-policy/in-force.ts";
import { approvalsGuarded } from "../approval/guarded-condition.ts";
import { byAge } from "../caches.ts";
import type { GatewayReport } from "../gateway-reports.ts";
import { type Deployment, kinds, type Pod, type Service } from "../kinds.ts";
import { autoscalerCondition } from "./autoscaler-condition.ts";
import { conditionsOf, type Fault } from "./conditions.ts";
import type { ForeignTarget } from "./tenancy.ts";

/** Everything that a decision about one resource reads. */
export interface ResourceFacts {
  readonly resource: ProtectedResource;
  readonly namespaceLabels: Readonly<Record<string, string>>;
  /** The Service that the endpoint names. */
  readonly service?: Service;
  readonly providers: readonly IdentityProvider[];
  readonly neighbours: readonly ProtectedResource[];
  readonly reach: { readonly target?: ForeignTarget; readonly isAllowed: boolean };
  readonly policies: readonly PolicyInForce[];
  /** What exists under the names that we render, by kind and name, ours or not. */
  readonly existing: ReadonlyMap<string, UntypedObject>;
  /** What is labelled as made for this resource. */
  readonly owned: readonly UntypedObject[];
  readonly pods: readonly Pod[];
  readonly deployment?: Deployment;
  readonly reports: readonly GatewayReport[];
  /** Whether admission for Approvals is in force; undefined: nobody knows yet. */
  readonly approvalsGuarded?: boolean;
  /** Where the cluster's own API servers listen behind their Service. */
  readonly apiServerPort?: number;
  /** What the probe pod found, where one has run. */
  readonly probe: ProbeResult;
  /** In which namespaces exec was found closed. */
  readonly exec: ExecFindings;
  readonly settings: GatewaySettings;
  readonly controlCa: string;
}

/** What a pod without any right found when it dialled the server. */
export type ProbeResult = "refused" | "connected" | "unknown";

/** The label of namespaces in which the chart's admission closes exec past gateways of protocol kubernetes. */
export const protectExecLabel = "sallyport.dev/protect-exec";

/** The labelled namespaces by name, after what was found when exec was tried. */
export interface ExecFindings {
  readonly closed: readonly string[];
  readonly open: readonly string[];
  readonly unknown: readonly string[];
  /** What is open in some of those that are: `pods/exec`, `services/proxy`. */
  readonly openWays?: readonly string[];
}

/** What is to be done for a resource. */
export interface ResourceDecision {
  readonly resource: ProtectedResource;
  readonly apply: readonly RenderedObject[];
  readonly remove: readonly UntypedObject[];
  /** At most one at a time, and only where the resource asks for it. */
  readonly evict?: Pod;
  /** Whether a gateway's pod has not begun to run: it may wait for something that is to be made. */
  readonly isPodWaiting: boolean;
  readonly conditions: readonly WantedCondition[];
  readonly status: Omit<ProtectedResourceStatus, "conditions">;
}

/** The key of an object among those of one namespace. */
export const existingKey = (kind: string, name: string): string => `${kind}/${name}`;

const supportedProtocols: ReadonlySet<string> = new Set(["postgres", "kubernetes", "ssh"]);
const policiesMax = 512;
const rulesMax = 1024;
const namespacesShown = 5;

/** Decides, from facts alone. */
export function decideResource(facts: ResourceFacts): ResourceDecision {
  const { resource, owned } = facts;
  const server = serverPods(facts.service, resource.spec.endpoint.serviceRef?.port);
  const fault = faultOf(facts);
  const placed = placeResource({
    resource,
    ...(server !== undefined && { server }),
    ...(facts.apiServerPort !== undefined && { apiServerPort: facts.apiServerPort }),
    providers: facts.providers,
    settings: facts.settings,
    controlCa: facts.controlCa,
  });
  const conflict = conflictOf(facts, placed);
  const obstacle = conflict ?? injectionObstacle(facts);
  // What is running goes on: a mistake in an edit takes no gateway away, and lets nobody in that was not let in before.
  const apply = fault !== undefined || conflict !== undefined ? [] : changed(facts, placed.objects);
  const wanted = new Set(placed.objects.map(({ kind, metadata }) => existingKey(kind, metadata.name)));
  const remove =
    fault === undefined && conflict === undefined
      ? owned.filter((object) => isOurs(object, resource) && !wanted.has(keyOf(object)))
      : [];
  const pods = gatewayPods(facts, server);
  const gateways = countsOf(facts, pods);
  const evict = evictable(facts, pods);
  const isOurAutoscaler = (object: UntypedObject) =>
    object.kind === kinds.autoscaler.kind && isOurs(object, resource);
  return {
    resource,
    apply,
    remove,
    ...(evict !== undefined && { evict }),
    isPodWaiting: [...pods.current, ...pods.outdated].some(({ status }) => status?.phase === "Pending"),
    conditions: [
      ...conditionsOf({
        resource,
        ...(fault !== undefined && { fault }),
        ...(obstacle !== undefined && { obstacle }),
        gateways,
        reports: facts.reports,
        bypass: bypassOf(facts, server),
      }),
      ...approvalsGuarded(facts.policies, facts.approvalsGuarded),
      ...autoscalerCondition(resource, owned.find(isOurAutoscaler)),
    ],
    status: {
      ...(resource.metadata.generation !== undefined && { observedGeneration: resource.metadata.generation }),
      ...(fault === undefined && { address: placed.address, caBundle: facts.controlCa }),
      ...knownHostsOf(resource, facts.reports),
      gateways,
      ...policiesOf(facts.policies),
    },
  };
}

/** A line for known_hosts, where every gateway that is heard from shows the same key: of several none can be told. */
function knownHostsOf(
  resource: ProtectedResource,
  reports: readonly GatewayReport[],
): { readonly knownHosts?: string } {
  const keys = new Set(reports.flatMap(({ knownHosts }) => knownHosts ?? []));
  const [key] = keys;
  const port = listenPort(resource);
  // What stands in a file of each user is one line, of a type and a key.
  if (key === undefined || keys.size > 1 || port === undefined || !hostKeyForm.test(key)) return {};
  const host = `${namesOf(resource).service}.${resource.metadata.namespace ?? "default"}.svc`;
  return { knownHosts: `${port === 22 ? host : `[${host}]:${port}`} ${key}` };
}

const hostKeyForm = /^[a-z0-9@.-]{1,64} [A-Za-z0-9+/]{1,2000}={0,2}$/;

/** The pods behind a Service, and their port. */
export function serverPods(service: Service | undefined, port: number | undefined): ServerPods | undefined {
  const selector = service?.spec?.selector;
  const ports = service?.spec?.ports ?? [];
  const found = ports.find((one) => one.port === port);
  if (selector === undefined || Object.keys(selector).length === 0 || found === undefined) return undefined;
  return { selector, targetPort: found.targetPort ?? found.port };
}

/** What a resource's own mistakes are found by. */
export type WrittenFacts = Pick<
  ResourceFacts,
  "resource" | "service" | "providers" | "neighbours" | "reach" | "settings"
>;

/** Why a resource cannot be used as it is written. */
export function faultOf(facts: WrittenFacts): Fault | undefined {
  const server = serverPods(facts.service, facts.resource.spec.endpoint.serviceRef?.port);
  const { resource, service, providers, neighbours, reach } = facts;
  const { protocol, endpoint, identity, placement } = resource.spec;
  if (!supportedProtocols.has(protocol)) {
    return { reason: "UnsupportedProtocol", message: `This release does not speak ${protocol}.` };
  }
  const [unknown] = unknownOptions(protocol, resource.spec.options ?? {});
  if (unknown !== undefined) {
    return { reason: "UnknownOption", message: `spec.options.${unknown.option}: ${unknown.message}.` };
  }
  const misplaced = placementFault(resource, facts.settings);
  if (misplaced !== undefined) return misplaced;
  const { serviceRef } = endpoint;
  if (serviceRef !== undefined && service === undefined) {
    return {
      reason: "ServiceNotFound",
      message: `There is no Service ${serviceRef.name} in this namespace.`,
    };
  }
  if (
    serviceRef !== undefined &&
    !(service?.spec?.ports ?? []).some(({ port }) => port === serviceRef.port)
  ) {
    return {
      reason: "PortNotFound",
      message: `The Service ${serviceRef.name} has no port ${serviceRef.port}.`,
    };
  }
  const missing = identity.providers.filter(
    (name) => !providers.some(({ metadata }) => metadata.name === name),
  );
  if (missing.length > 0) {
    return { reason: "ProviderNotFound", message: `There is no IdentityProvider ${missing.join(", ")}.` };
  }
  // The API server is everybody's; whose gateway speaks to it the chart has said.
  if (!reach.isAllowed && !isOwnCluster(resource)) {
    const { namespace, service: name } = reach.target ?? { namespace: "" };
    const what =
      name === undefined ? `namespace ${namespace}` : `the Service ${name} of namespace ${namespace}`;
    return {
      reason: "NotGranted",
      message: `The host leads to ${what}, which grants no access: see ResourceGrant.`,
    };
  }
  const port = listenPort(resource);
  const serverPort = server?.targetPort ?? endpoint.port;
  if (placement.mode === "Sidecar" && port === serverPort) {
    return {
      reason: "PortTaken",
      message: `The server listens on ${port} in the same pod: set spec.listen.port.`,
    };
  }
  const claimed = claimedBy(resource, neighbours);
  if (claimed !== undefined) {
    const { service: name } = namesOf(resource);
    const what =
      placement.mode === "Sidecar" && namesOf(claimed).service !== name ? "pods" : `the Service ${name}`;
    return { reason: "Conflict", message: `${claimed.metadata.name} claims ${what} already.` };
  }
  return undefined;
}

/** An elder resource with the same Service, or that puts its gateway into pods by the same selector. */
function claimedBy(
  resource: ProtectedResource,
  neighbours: readonly ProtectedResource[],
): ProtectedResource | undefined {
  const { service } = namesOf(resource);
  const selector = JSON.stringify(resource.spec.placement.podSelector);
  return neighbours.find(
    (other) =>
      other.metadata.name !== resource.metadata.name &&
      byAge(other, resource) < 0 &&
      (namesOf(other).service === service ||
        (selector !== undefined && JSON.stringify(other.spec.placement.podSelector) === selector)),
  );
}

/** Something under one of our names that we did not make: it is left alone. */
function conflictOf(
  { existing, resource }: ResourceFacts,
  { objects }: PlacedResource,
): (Fault & { isTerminal: true }) | undefined {
  for (const { kind, metadata } of objects) {
    const found = existing.get(existingKey(kind, metadata.name));
    if (found === undefined || isOurs(found, resource)) continue;
    const message = `The ${kind} ${metadata.name} exists and was not made for this resource; it is left alone.`;
    return { reason: "Conflict", message, isTerminal: true };
  }
  return undefined;
}

function injectionObstacle({
  resource,
  namespaceLabels,
  pods,
}: ResourceFacts): (Fault & { isTerminal: boolean }) | undefined {
  if (resource.spec.placement.mode !== "Sidecar") return undefined;
  if (namespaceLabels[protectionLabel] !== "enabled") {
    const message = `Pods are injected in namespaces labelled ${protectionLabel}=enabled.`;
    return { reason: "InjectionNotEnabled", message, isTerminal: true };
  }
  if (pods.length > 0) return undefined;
  const message = "No pod with a gateway runs yet: pods that were there before must be restarted.";
  return { reason: "NoPods", message, isTerminal: false };
}

function changed({ existing }: ResourceFacts, objects: readonly RenderedObject[]): readonly RenderedObject[] {
  return objects.map(stamped).filter((object) => {
    const found = existing.get(existingKey(object.kind, object.metadata.name));
    return found === undefined || !holds(found, object);
  });
}

/** An object that exists may hold more than is wanted (defaults, what others add): by this it shows what we asked for last. */
function stamped(object: RenderedObject): RenderedObject {
  const annotations = { ...object.metadata.annotations, [renderedAnnotation]: hashOf(object) };
  return { ...object, metadata: { ...object.metadata, annotations } };
}

interface GatewayPods {
  readonly current: readonly Pod[];
  readonly outdated: readonly Pod[];
}

function gatewayPods(
  { resource, pods, settings }: ResourceFacts,
  server: ServerPods | undefined,
): GatewayPods {
  const live = pods.filter(
    ({ metadata, status }) =>
      metadata.deletionTimestamp === undefined && status?.phase !== "Succeeded" && status?.phase !== "Failed",
  );
  const isCurrent = (pod: Pod) => comparePod(pod, resource, settings, server).kind === "current";
  return { current: live.filter(isCurrent), outdated: live.filter((pod) => !isCurrent(pod)) };
}

function countsOf({ resource, reports, deployment }: ResourceFacts, pods: GatewayPods) {
  const { current, outdated } = pods;
  const all = [...current, ...outdated];
  const isShared = resource.spec.placement.mode === "Shared";
  const ready = isShared ? (deployment?.status?.readyReplicas ?? 0) : all.filter(isStarted).length;
  const desired = isShared
    ? (deployment?.spec?.replicas ?? resource.spec.placement.replicas ?? 2)
    : all.length;
  const holding = reports.filter((report) => report.isCurrent).length;
  return { desired, ready, current: holding, outdated: outdated.length };
}

/** A native sidecar has no readiness of its own: its startup probe is what tells that it listens. */
function isStarted({ status }: Pod): boolean {
  return (
    status?.initContainerStatuses?.some(({ name, started }) => name === "sallyport-gateway" && started) ??
    false
  );
}

/** The next pod to be replaced: never while another one of the resource is on its way. */
function evictable({ resource, pods }: ResourceFacts, { outdated }: GatewayPods): Pod | undefined {
  const { mode, rolloutPolicy } = resource.spec.placement;
  if (mode !== "Sidecar" || rolloutPolicy !== "Evict") return undefined;
  const isSettled = pods.every((pod) => pod.metadata.deletionTimestamp === undefined && isReady(pod));
  return isSettled ? outdated.toSorted(byAge)[0] : undefined;
}

function isReady({ status }: Pod): boolean {
  return status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True") ?? false;
}

/** The API server cannot be closed to others: what holds there is RBAC, and admission for what goes into pods. */
function besideOwnCluster(exec: "Enforce" | "Off", found: ExecFindings): WantedCondition {
  const type = "BypassProtected";
  const told = (status: WantedCondition["status"], reason: string, message: string) => ({
    ...{ type, status, reason, message },
  });
  if (exec === "Off") return told("False", "Off", "The resource asks for no protection of exec.");
  const rights =
    "Whoever has rights of their own on the API server needs no gateway; `sallyport audit rbac` lists who can enter " +
    "pods past it.";
  const { closed, open, unknown, openWays = ["exec"] } = found;
  if (open.length > 0) {
    const place = `${namespacesOf(open)}, labelled ${protectExecLabel}=true`;
    const message = `The way past the gateway by ${openWays.join(", ")} is open in ${place}.`;
    return told("False", "ExecOpen", `${message} ${rights}`);
  }
  if (unknown.length > 0) {
    const ways = "exec, attach, port-forward and proxies";
    const message = `Whether ${ways} are closed in ${namespacesOf(unknown)} is not known.`;
    return told("Unknown", "NotProbed", `${message} ${rights}`);
  }
  if (closed.length > 0)
    return told(
      "True",
      "ExecClosed",
      `Exec, attach, port-forward and proxies past the gateway are closed in ${namespacesOf(closed)}. ${rights}`,
    );
  const message = `${rights} Exec is closed to them in namespaces labelled ${protectExecLabel}=true.`;
  return told("Unknown", "ApiServerOpen", message);
}

/** How many there are, and the names of the first few. */
function namespacesOf(names: readonly string[]): string {
  const shown = names.slice(0, namespacesShown).join(", ");
  const more = names.length > namespacesShown ? ", …" : "";
  return `${names.length} ${names.length === 1 ? "namespace" : "namespaces"} (${shown}${more})`;
}

function bypassOf(facts: ResourceFacts, server: ServerPods | undefined): WantedCondition {
  const type = "BypassProtected";
  const { resource, namespaceLabels, reports, probe } = facts;
  const { networkPolicy, exec } = resource.spec.bypassProtection;
  const no = (reason: string, message: string): WantedCondition => ({
    type,
    status: "False",
    reason,
    message,
  });
  if (isOwnCluster(resource)) return besideOwnCluster(exec, facts.exec);
  if (networkPolicy === "Off") return no("Off", "The resource asks for no NetworkPolicy.");
  const trusts = reports.flatMap(({ problems }) => problems).find(({ reason }) => reason === "LoopbackTrust");
  if (trusts !== undefined) return no("LoopbackTrust", trusts.message);
  if (exec === "Enforce" && namespaceLabels[protectionLabel] !== "enabled") {
    return no("ExecOpen", `Exec is closed in namespaces labelled ${protectionLabel}=enabled.`);
  }
  if (server === undefined && resource.spec.placement.mode === "Shared") {
    const message = "The server is outside the cluster: nobody here can say who else reaches it.";
    return { type, status: "Unknown", reason: "ExternalHost", message };
  }
  if (probe === "connected") {
    return no("NetworkPolicyNotEnforced", "A pod without any right reached the server's port.");
  }
  if (probe === "refused" && resource.spec.placement.mode === "Sidecar") {
    const untried = untriedLoopback(reports);
    if (untried !== undefined)
      return { type, status: "Unknown", reason: "LoopbackNotProbed", message: untried };
  }
  // A server that nobody reaches has refused nobody.
  const isDown = reports.some(({ problems }) =>
    problems.some(({ reason }) => reason === "UpstreamUnreachable"),
  );
  if (probe === "refused" && !isDown) {
    return {
      type,
      status: "True",
      reason: "Refused",
      message: "A pod without any right could not reach the server.",
    };
  }
  return {
    type,
    status: "Unknown",
    reason: "NotProbed",
    message: "No probe has told yet whether others reach the server.",
  };
}

/** Beside the server every container shares its loopback: the gateway must have tried that without a credential. */
function untriedLoopback(reports: readonly GatewayReport[]): string | undefined {
  const untried = reports
    .flatMap(({ problems }) => problems)
    .find(({ reason }) => reason === "LoopbackNotProbed");
  if (untried !== undefined) return untried.message;
  return reports.length > 0
    ? undefined
    : "No gateway has told whether the server trusts the containers beside it.";
}

function policiesOf(policies: readonly PolicyInForce[]): Pick<ProtectedResourceStatus, "policies" | "rules"> {
  const named = policies.map(({ policy, rules }) => {
    const { name, namespace } = policy.metadata;
    return { title: namespace === undefined ? name : `${namespace}/${name}`, rules };
  });
  named.sort((a, b) => (a.title < b.title ? -1 : 1));
  return {
    policies: named.map(({ title }) => title).slice(0, policiesMax),
    rules: named
      .flatMap(({ title, rules }) =>
        rules.map(({ rule, enforcement }) => ({ policy: title, rule, enforcement })),
      )
      .slice(0, rulesMax),
  };
}

/** Whether a pod is one that a Sidecar resource asks a gateway for. */
export function isSelectedPod(
  { spec }: ProtectedResource,
  labels: Readonly<Record<string, string>> | undefined,
): boolean {
  const { mode, podSelector } = spec.placement;
  return mode === "Sidecar" && podSelector !== undefined && isSelectedBy(podSelector, labels ?? {});
}

function isOurs(object: KubeObject, { metadata }: ProtectedResource): boolean {
  return controllerOf(object)?.uid === metadata.uid;
}

const keyOf = (object: UntypedObject): string => existingKey(object.kind ?? "", object.metadata.name);
