import { type Reach, readReach } from "@sallyport/control";
import {
  audienceOf,
  formatProblem,
  hasErrors,
  type IdentityProvider,
  loadManifests,
  type Manifest,
  type ProtectedResource,
} from "@sallyport/crds";
import { compilePolicies, type PolicySet, type ResourceFacts, withFloors } from "@sallyport/policy";

/** A protected resource with what policy selects it by. */
export interface ServedResource {
  readonly facts: ResourceFacts;
  readonly spec: ProtectedResource["spec"];
  readonly audience: string;
  /** Which addresses may be dialled for it, where the operator says so. */
  readonly reach?: Reach;
}

/** Everything that the manifests say, accepted as a whole. */
export interface ManifestSet {
  readonly resources: ReadonlyMap<string, ServedResource>;
  readonly providers: readonly IdentityProvider[];
  readonly policies: PolicySet;
  /** Secret manifests by namespace/name. */
  readonly secrets: ReadonlyMap<string, ReadonlyMap<string, string>>;
}

/** What this gateway can do that another cannot. */
export interface SetAbilities {
  /** Somebody can be asked where a rule wants approval. */
  readonly approvals?: boolean;
}

/** What a folder of manifests amounts to. */
export type LoadedSet =
  | { readonly kind: "loaded"; readonly set: ManifestSet; readonly problems: readonly string[] }
  | { readonly kind: "broken"; readonly problems: readonly string[] };

/** Reads a folder of manifests. Schema errors break the whole set; a broken policy keeps its last accepted form. */
export async function loadManifestSet(
  folder: string,
  previous: ManifestSet | undefined,
  abilities: SetAbilities = {},
): Promise<LoadedSet> {
  const loaded = await loadManifests(folder);
  const problems = loaded.problems.map(formatProblem);
  if (hasErrors(loaded)) return { kind: "broken", problems };
  const { documents } = loaded;
  const built = manifestSetOf(
    documents.map(({ object }) => object),
    previous,
    abilities,
  );
  return { kind: "loaded", set: built.set, problems: [...problems, ...built.problems] };
}

/** Makes a set of accepted objects, wherever they came from; a broken policy keeps its last accepted form. */
export function manifestSetOf(
  objects: readonly Manifest[],
  previous: ManifestSet | undefined,
  abilities: SetAbilities = {},
): { readonly set: ManifestSet; readonly problems: readonly string[] } {
  const problems: string[] = [];
  const resources = new Map<string, ServedResource>();
  for (const object of ofKind(objects, "ProtectedResource")) {
    const namespace = object.metadata.namespace ?? "default";
    const labels = ofKind(objects, "Namespace").find(({ metadata }) => metadata.name === namespace);
    const facts: ResourceFacts = {
      namespace,
      name: object.metadata.name,
      labels: object.metadata.labels ?? {},
      namespaceLabels: { ...labels?.metadata.labels, "kubernetes.io/metadata.name": namespace },
      protocol: object.spec.protocol,
    };
    const reach = readReach((object as { readonly reach?: unknown }).reach);
    const served = { facts, spec: object.spec, audience: audienceOf(object), ...(reach && { reach }) };
    resources.set(`${namespace}/${facts.name}`, served);
  }
  const policies = [...ofKind(objects, "AccessPolicy"), ...ofKind(objects, "ClusterAccessPolicy")].map(
    (object) => ({
      kind: object.kind,
      ...(object.kind === "AccessPolicy" ? { namespace: object.metadata.namespace ?? "default" } : {}),
      name: object.metadata.name,
      generation: object.metadata.generation ?? 1,
      spec: object.spec,
    }),
  );
  const described = [...resources.values()].map(({ facts, spec }) => ({ ...facts, spec }));
  const compiled = compilePolicies(policies, described, {
    ...(previous === undefined ? {} : { previous: previous.policies }),
    ...(abilities.approvals === true && {
      features: { masking: true, approvals: true, rowLimits: true },
    }),
  });
  for (const problem of compiled.problems) {
    problems.push(
      `${problem.kind} ${problem.policy}: ${problem.path}: ${problem.reason}: ${problem.message}`,
    );
  }
  for (const [name, served] of resources) {
    const required = compiled.set.policies.flatMap(({ mode, requires, namesResource }) =>
      requires !== undefined && mode === "Enforce" && namesResource(served.facts) ? [requires] : [],
    );
    resources.set(name, { ...served, spec: withFloors(served.spec, required) });
  }
  const providers = ofKind(objects, "IdentityProvider");
  const secrets = new Map(
    ofKind(objects, "Secret").map((object) => {
      const values = new Map(Object.entries(object.data ?? {}).map(([key, value]) => [key, decode(value)]));
      for (const [key, value] of Object.entries(object.stringData ?? {})) values.set(key, value);
      return [`${object.metadata.namespace ?? "default"}/${object.metadata.name}`, values] as const;
    }),
  );
  return { set: { resources, providers, policies: compiled.set, secrets }, problems };
}

function ofKind<K extends Manifest["kind"]>(objects: readonly Manifest[], kind: K) {
  return objects.filter((object): object is Extract<Manifest, { kind: K }> => object.kind === kind);
}

const decode = (base64: string) => Buffer.from(base64, "base64").toString("utf8");
