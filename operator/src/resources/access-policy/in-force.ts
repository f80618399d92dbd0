import {
  type AccessPolicy,
  type ClusterAccessPolicy,
  isSelectedBy,
  type ProtectedResource,
} from "@sallyport/crds";
import { type ApprovalTerms, compilePolicies, type PolicyProblem, type PolicySet } from "@sallyport/policy";

/** A policy of either kind. */
export type Policy = AccessPolicy | ClusterAccessPolicy;

/** A generation of a policy that was accepted once. */
export interface KeptGeneration {
  readonly generation: number;
  readonly spec: Policy["spec"];
}

/** Labels by namespace. */
export type NamespaceLabels = (namespace: string) => Readonly<Record<string, string>>;

/** How sure one rule of a policy is. */
export interface RuleStrength {
  readonly policy: string;
  readonly rule: string;
  readonly enforcement: "authoritative" | "heuristic";
}

/** What of a policy counts now. */
export interface PolicyInForce {
  /** Empty where the latest generation is accepted. */
  readonly problems: readonly PolicyProblem[];
  /**
   * The policy with the spec that counts: the latest, or the last that was accepted. Where there is none it is the
   * latest, broken as it is: gateways then deny what it names (PolicyInvalid).
   */
  readonly policy: Policy;
  /** Absent where no generation was ever accepted. */
  readonly acceptedGeneration?: number;
  readonly rules: readonly RuleStrength[];
  /** What its rules ask that want approval; nothing where it is only tried out. */
  readonly asks: readonly ApprovalTerms[];
}

/**
 * Decides which generation of a policy is in force: the same on every replica and after every restart. The resources
 * are those that the policy could speak of; their tags are what masks may name.
 */
export function policyInForce(
  latest: Policy,
  kept: readonly KeptGeneration[],
  resources: readonly ProtectedResource[],
): PolicyInForce {
  const { set, problems } = compile(latest, resources);
  if (problems.length === 0) return inForce(latest, set, latest.metadata.generation ?? 1, problems);
  for (const { generation, spec } of kept.toSorted((a, b) => b.generation - a.generation)) {
    const restored = { ...latest, spec } as Policy;
    const compiled = compile(restored, resources);
    if (compiled.problems.length > 0) continue;
    return inForce(restored, compiled.set, generation, problems);
  }
  return inForce(latest, set, undefined, problems);
}

/** The same policy for the gateways of one resource: they hear of no other resource's name. */
export function narrowedTo(policy: Policy, resource: ProtectedResource): Policy {
  const { names } = policy.spec.resources;
  if (names === undefined || names.length < 2) return policy;
  return { ...policy, spec: { ...policy.spec, resources: { names: [resource.metadata.name] } } } as Policy;
}

/** Whether a policy names or selects a resource. */
export function isSpokenOf(
  { metadata }: ProtectedResource,
  policy: Policy,
  namespaceLabels: NamespaceLabels,
): boolean {
  const namespace = metadata.namespace ?? "default";
  if (policy.kind === "AccessPolicy" && policy.metadata.namespace !== namespace) return false;
  const { names, selector } = policy.spec.resources;
  const isChosen =
    names === undefined
      ? selector !== undefined && isSelectedBy(selector, metadata.labels ?? {})
      : names.includes(metadata.name);
  if (!isChosen || policy.kind === "AccessPolicy") return isChosen;
  const { namespaceSelector } = policy.spec;
  return namespaceSelector === undefined || isSelectedBy(namespaceSelector, namespaceLabels(namespace));
}

/** The users and groups that a policy names, each with the prefix of a provider. */
export function namesIn({ spec }: Policy): readonly string[] {
  const { subjects, rules = [] } = spec;
  return [
    ...subjects.flatMap(({ user, group }) => [user ?? [], group ?? []].flat()),
    ...rules.flatMap(({ approval }) => approval?.breakGlass?.group ?? []),
  ];
}

function compile(policy: Policy, resources: readonly ProtectedResource[]) {
  const { kind, metadata, spec } = policy;
  const { namespace } = metadata;
  const document = {
    kind,
    ...(namespace !== undefined && { namespace }),
    name: metadata.name,
    generation: metadata.generation ?? 1,
    spec,
  };
  // A name that nothing carries breaks no policy: what is applied first must not matter. It is told apart.
  const awaited = (spec.resources.names ?? []).map((name) => ({
    namespace: namespace ?? "",
    name,
    labels: {},
    spec: { protocol: "" },
  }));
  const tagged = resources.filter(({ spec }) => spec.classification !== undefined);
  const described = tagged.map(({ metadata, spec }) => ({
    namespace: metadata.namespace ?? "default",
    name: metadata.name,
    labels: metadata.labels ?? {},
    spec,
  }));
  return compilePolicies([document], [...described, ...awaited]);
}

function inForce(
  policy: Policy,
  set: PolicySet,
  acceptedGeneration: number | undefined,
  problems: readonly PolicyProblem[],
): PolicyInForce {
  return {
    problems,
    policy,
    ...(acceptedGeneration !== undefined && { acceptedGeneration }),
    rules: set.policies.flatMap(({ rules }) => rules.map(({ ref }) => ref)),
    asks: set.policies.flatMap(({ mode, rules }) =>
      mode === "Enforce" ? rules.flatMap(({ terms }) => terms ?? []) : [],
    ),
  };
}
