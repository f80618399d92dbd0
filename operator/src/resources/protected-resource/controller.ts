/** ProtectedResource: puts gateways where the resource says, and tells what became of it. */
import type { ProtectedResource } from "@sallyport/crds";
import {
  type EventRecorder,
  type KubeClient,
  KubeError,
  type KubeObject,
  keyOf,
  type UntypedObject,
} from "../../kube/index.ts";
import {
  type GatewaySettings,
  isOwnCluster,
  namesOf,
  placeResource,
  type RenderedObject,
  resourceLabel,
} from "../../placement/index.ts";
import {
  mergedConditions,
  progressConditions,
  type ReconcileContext,
  type ReconcileResult,
  type Reconciler,
  type WantedCondition,
  writeStatus,
} from "../../reconcile/index.ts";
import type { PolicyBook } from "../access-policy/policy-book.ts";
import { labelsOfNamespace, type OperatorCaches } from "../caches.ts";
import type { GatewayReports } from "../gateway-reports.ts";
import { kinds, ownedKinds, type Pod } from "../kinds.ts";
import {
  decideResource,
  type ExecFindings,
  existingKey,
  faultOf,
  type ProbeResult,
  type ResourceDecision,
  type ResourceFacts,
  serverPods,
  type WrittenFacts,
} from "./decide.ts";
import { GatewayKeys } from "./gateway-key.ts";
import { mayReach } from "./tenancy.ts";

/** What the controller is made of. */
export interface ResourceControllerParts {
  readonly client: KubeClient;
  readonly caches: OperatorCaches;
  readonly book: PolicyBook;
  readonly reports: GatewayReports;
  readonly events: EventRecorder;
  readonly settings: GatewaySettings;
  /** PEM of what gateways trust; undefined until the authorities are there. */
  readonly controlCa: () => string | undefined;
  readonly probe: (resource: ProtectedResource) => ProbeResult;
  readonly execFindings: () => ExecFindings;
  /** As it was found last. */
  readonly approvalAdmission: { readonly isInForce: boolean | undefined };
  readonly clock: () => Date;
}

const fieldManager = "sallyport-protected-resource";
/** While gateways start, nothing may tell that they have: pods of a Deployment are watched, their absence is not. */
const lookAgainMs = 30_000;
/** What a probe found grows old without an event. */
const settledLookMs = 600_000;

/** Makes the controller's reconciler. */
export function resourceReconciler(
  parts: ResourceControllerParts,
): Reconciler<ResourceFacts | undefined, ResourceDecision | undefined> {
  const keys = new GatewayKeys(parts.client);
  return {
    observe: (context) => observe(parts, context),
    decide: (facts) => (facts === undefined ? undefined : decideResource(facts)),
    act: (decision, context) => act(parts, keys, decision, context),
  };
}

async function observe(
  parts: ResourceControllerParts,
  { ref, signal }: ReconcileContext,
): Promise<ResourceFacts | undefined> {
  const { caches, client, book, reports, settings } = parts;
  const latest = caches.protectedResources.get(ref);
  const resource = latest && book.floored(latest);
  const controlCa = parts.controlCa();
  // Once the authorities are there, every resource is looked at anew.
  if (resource === undefined || isGoing(resource) || controlCa === undefined) return undefined;
  const namespace = resource.metadata.namespace ?? "default";
  const home = caches.namespaces.get({ name: namespace });
  // What goes with its namespace cannot be made again there.
  if (home !== undefined && isGoing(home)) return undefined;
  const label = namesOf(resource).label;
  const { serviceRef } = resource.spec.endpoint;
  const service = serviceRef && caches.services.get({ namespace, name: serviceRef.name });
  const server = serverPods(service, serviceRef?.port);
  const providers = caches.identityProviders.list();
  const placed = placeResource({
    resource,
    ...(server !== undefined && { server }),
    providers,
    settings,
    controlCa,
  });
  const owned = [...ownedKinds.values()].flatMap(({ kind, apiVersion }) =>
    cacheOf(caches, kind)
      .list(namespace)
      .filter(({ metadata }) => metadata.labels?.[resourceLabel] === label)
      .map((object) => ({ ...object, kind, apiVersion })),
  );
  const existing = new Map(owned.map((object) => [existingKey(object.kind, object.metadata.name), object]));
  const written: WrittenFacts = {
    resource,
    ...(service !== undefined && { service }),
    providers,
    neighbours: caches.protectedResources.list(namespace),
    reach: mayReach(resource, caches),
    settings,
  };
  // Nothing is taken over: before something is made, the API server is asked who else has the name. For a resource that
  // cannot be used as it is written nothing is made.
  const unknown =
    faultOf(written) === undefined
      ? placed.objects.filter(({ kind, metadata }) => !existing.has(existingKey(kind, metadata.name)))
      : [];
  await Promise.all(
    unknown.map(async ({ kind, metadata }) => {
      const type = ownedKinds.get(kind);
      if (type === undefined) return;
      const found = await client.find(type, { namespace, name: metadata.name }, { signal });
      if (found === undefined) return;
      existing.set(existingKey(kind, metadata.name), { ...found, kind, apiVersion: type.apiVersion });
    }),
  );
  const apiServer = caches.services.get({ namespace: "default", name: "kubernetes" });
  const apiServerPort = apiServer?.spec?.ports?.find(({ port }) => port === 443)?.targetPort;
  const deployment = caches.deployments.get({ namespace, name: namesOf(resource).gateway });
  return {
    ...written,
    namespaceLabels: labelsOfNamespace(caches, namespace),
    policies: book.forResource(resource),
    existing,
    owned,
    pods: caches.pods.byIndex("resource", `${namespace}/${label}`),
    ...(deployment !== undefined && { deployment }),
    reports: reports.of(keyOf(resource.metadata)),
    probe: parts.probe(resource),
    exec: isOwnCluster(resource) ? parts.execFindings() : notLookedAt,
    ...(typeof apiServerPort === "number" && { apiServerPort }),
    ...(parts.approvalAdmission.isInForce !== undefined && {
      approvalsGuarded: parts.approvalAdmission.isInForce,
    }),
    controlCa,
  };
}

/** Only resources of protocol kubernetes that stand for this cluster tell of exec. */
const notLookedAt: ExecFindings = { closed: [], open: [], unknown: [] };

async function act(
  parts: ResourceControllerParts,
  keys: GatewayKeys,
  decision: ResourceDecision | undefined,
  context: ReconcileContext,
): Promise<ReconcileResult> {
  if (decision === undefined) return { kind: "done" };
  const { client, events } = parts;
  const { resource, apply, remove, evict, isPodWaiting } = decision;
  const isScaled = resource.spec.placement.autoscaling !== undefined;
  const { signal } = context;
  try {
    await keys.ensure(resource, isPodWaiting, signal);
    for (const object of apply) {
      if (object.kind === "Deployment" && isScaled) await handOverReplicas(client, object, signal);
      await client.apply(typeOf(object), object, { fieldManager, force: true, signal });
    }
    for (const { kind, metadata } of remove) {
      const type = ownedKinds.get(kind ?? "");
      if (type === undefined || metadata.uid === undefined) continue;
      await client.delete(type, metadata, { uid: metadata.uid, signal });
    }
  } catch (error) {
    if (isRefusal(error)) await report(parts, refused(decision, error), context);
    throw error;
  }
  if (evict !== undefined) {
    await evictPod(client, evict, signal);
    const note = `The pod ${evict.metadata.name} holds an outdated gateway and is evicted.`;
    events.record({
      regarding: resource,
      type: "Normal",
      reason: "Evicted",
      action: "Evict",
      note,
      related: evict,
    });
  }
  await report(parts, decision, context);
  const isReady = decision.conditions.some(({ type, status }) => type === "Ready" && status === "True");
  return { kind: "requeue", afterMs: isReady && !isPodWaiting ? settledLookMs : lookAgainMs };
}

/** The key of the cache's index of pods. */
export function podKeys({ metadata }: Pod): readonly string[] {
  const label = metadata.labels?.["sallyport.dev/gateway"];
  return label === undefined ? [] : [`${metadata.namespace ?? ""}/${label}`];
}

async function report(
  { client, events, clock }: ResourceControllerParts,
  { resource, conditions, status }: ResourceDecision,
  { signal }: ReconcileContext,
): Promise<void> {
  const before = resource.status?.conditions;
  const { generation } = resource.metadata;
  const wanted = {
    ...status,
    conditions: mergedConditions(before, conditions, { generation, now: clock() }),
  };
  const type = kinds.protectedResource;
  const manager = `${fieldManager}-status`;
  const written = await writeStatus({
    client,
    type,
    object: resource,
    status: wanted,
    fieldManager: manager,
    signal,
  });
  if (written === undefined) return;
  for (const { type, status, reason, message } of conditions) {
    if (type === "Reconciling" || type === "Stalled") continue;
    const known = before?.find((condition) => condition.type === type);
    if (known?.status === status && known.reason === reason) continue;
    // A first look at something that has not begun is no news.
    if (known === undefined && status === "Unknown") continue;
    events.record({
      regarding: resource,
      type: status === "False" ? "Warning" : "Normal",
      reason,
      action: type,
      note: message,
    });
  }
}

/** The same decision, told as an obstacle: the API server would not have one of the objects. */
function refused(decision: ResourceDecision, error: KubeError): ResourceDecision {
  const reason = "Refused";
  const message = `The API server refused an object of the gateway: ${error.message}`.slice(0, 1024);
  const replaced = decision.conditions
    .filter(({ type }) => type !== "Reconciling" && type !== "Stalled")
    .map(
      (condition): WantedCondition =>
        condition.type === "Programmed" || condition.type === "Ready"
          ? { type: condition.type, status: "False", reason, message }
          : condition,
    );
  return {
    ...decision,
    conditions: [...replaced, ...progressConditions({ kind: "stalled", reason, message })],
  };
}

function isRefusal(error: unknown): error is KubeError {
  return error instanceof KubeError && (error.status === 403 || error.status === 422 || error.status === 400);
}

/**
 * A field that nobody claims any more falls back to its default: one gateway, until the autoscaler has looked. What we
 * never claimed, or have handed over, is not ours to write: what we know of it may be old.
 */
async function handOverReplicas(
  client: KubeClient,
  { apiVersion, kind, metadata: { name, namespace = "default" } }: RenderedObject,
  signal: AbortSignal,
): Promise<void> {
  const found = await client.find(kinds.deployment, { namespace, name }, { signal });
  const replicas = found?.spec?.replicas;
  const claimed = (found?.metadata as ClaimedMeta | undefined)?.managedFields?.some(
    ({ manager, fieldsV1 }) => manager === fieldManager && "f:replicas" in (fieldsV1?.["f:spec"] ?? {}),
  );
  if (replicas === undefined || claimed !== true) return;
  const claim = { apiVersion, kind, metadata: { name, namespace }, spec: { replicas } };
  await client.apply(kinds.deployment, claim, { fieldManager: `${fieldManager}-replicas`, signal });
}

/** Who claims which fields of an object; caches do not keep it. */
interface ClaimedMeta {
  readonly managedFields?: readonly {
    readonly manager?: string;
    readonly fieldsV1?: Readonly<Record<string, object>>;
  }[];
}

/** What is being deleted takes what was made for it along; nothing may be made again meanwhile. */
function isGoing({ metadata }: KubeObject): boolean {
  return metadata.deletionTimestamp !== undefined;
}

async function evictPod(client: KubeClient, { metadata }: Pod, signal: AbortSignal): Promise<void> {
  const { name, namespace = "", uid } = metadata;
  try {
    await client.request({
      method: "POST",
      path: `/api/v1/namespaces/${namespace}/pods/${name}/eviction`,
      body: {
        apiVersion: "policy/v1",
        kind: "Eviction",
        metadata: { name, namespace },
        deleteOptions: { preconditions: { uid } },
      },
      signal,
    });
  } catch (error) {
    // 429: a disruption budget says not now; the next look tries again. 404: it is gone.
    if (error instanceof KubeError && (error.status === 429 || error.status === 404)) return;
    throw error;
  }
}

function cacheOf(
  caches: OperatorCaches,
  kind: string,
): { list(namespace: string): readonly UntypedObject[] } {
  if (kind === "Service")
    return caches.services as unknown as { list(namespace: string): readonly UntypedObject[] };
  if (kind === "Deployment") {
    return caches.deployments as unknown as { list(namespace: string): readonly UntypedObject[] };
  }
  const cache = caches.owned.get(kind);
  if (cache === undefined) throw new TypeError(`there is no cache of ${kind}`);
  return cache;
}

function typeOf({ kind }: RenderedObject) {
  const type = ownedKinds.get(kind);
  if (type === undefined) throw new TypeError(`${kind} is not among the kinds that are made`);
  return type;
}
