import type { ClusterAccessPolicy, ProtectedResource } from "@sallyport/crds";
import { withFloors } from "@sallyport/policy";
import { hashOf } from "../../placement/index.ts";
import { labelsOfNamespace, type OperatorCaches } from "../caches.ts";
import { isSpokenOf, type Policy, type PolicyInForce, policyInForce } from "./in-force.ts";
import { readRevision, revisionKey } from "./revision.ts";

type BookCaches = Pick<
  OperatorCaches,
  "protectedResources" | "accessPolicies" | "clusterAccessPolicies" | "namespaces" | "revisions"
>;

/**
 * Which policies are in force where, worked out from the caches alone: every replica comes to the same answer, and
 * compiles a policy again only when it, its kept generations or the tags that it may speak of have changed.
 */
export class PolicyBook {
  readonly #caches: BookCaches;
  /** By the object itself: a cache hands out the same one until it has changed. */
  readonly #known = new WeakMap<Policy, Known>();
  #tags: { readonly version: number; readonly text: string } | undefined;
  #version = 0;

  constructor(caches: BookCaches) {
    this.#caches = caches;
    caches.protectedResources.onChange(() => {
      this.#version += 1;
    });
  }

  /** What of one policy counts now. */
  inForce(policy: Policy): PolicyInForce {
    const tags = this.#tagsKey();
    const known = this.#known.get(policy);
    const isSame = known?.tags === tags;
    // Kept generations matter to a broken policy alone.
    if (isSame && known.entry.problems.length === 0) return known.entry;
    const kept = this.#caches.revisions.byIndex("policy", revisionKey(policy));
    const versions = kept
      .map(({ metadata }) => metadata.resourceVersion)
      .sort()
      .join();
    if (isSame && known.versions === versions) return known.entry;
    const generations = kept.flatMap((revision) => readRevision(revision) ?? []);
    const resources = this.#caches.protectedResources.list(policy.metadata.namespace);
    const entry = policyInForce(policy, generations, resources);
    this.#known.set(policy, { tags, versions, entry });
    return entry;
  }

  /** Every policy that speaks of a resource, broken ones included: gateways deny what those name. */
  forResource(resource: ProtectedResource): readonly PolicyInForce[] {
    const { accessPolicies, clusterAccessPolicies } = this.#caches;
    const all: readonly Policy[] = [
      ...accessPolicies.list(resource.metadata.namespace),
      ...clusterAccessPolicies.list(),
    ];
    return all
      .map((policy) => this.inForce(policy))
      .filter(({ policy }) => isSpokenOf(resource, policy, this.#labels));
  }

  /** The resource with what ClusterAccessPolicies require of it: nothing is decided from less. */
  floored(resource: ProtectedResource): ProtectedResource {
    const { clusterAccessPolicies } = this.#caches;
    const requirements = clusterAccessPolicies.list().flatMap((latest) => {
      const { policy } = this.inForce(latest);
      const { requires, mode } = (policy as ClusterAccessPolicy).spec;
      const counts = requires !== undefined && mode !== "Audit" && isSpokenOf(resource, policy, this.#labels);
      return counts ? [requires] : [];
    });
    return requirements.length === 0
      ? resource
      : { ...resource, spec: withFloors(resource.spec, requirements) };
  }

  /** The resources that a policy speaks of. */
  selectedBy({ policy }: PolicyInForce): readonly ProtectedResource[] {
    const resources = this.#caches.protectedResources.list(policy.metadata.namespace);
    return resources.filter((resource) => isSpokenOf(resource, policy, this.#labels));
  }

  readonly #labels = (namespace: string) => labelsOfNamespace(this.#caches, namespace);

  #tagsKey(): string {
    if (this.#tags?.version !== this.#version) {
      const tags = this.#caches.protectedResources
        .list()
        .flatMap(({ metadata, spec }) =>
          (spec.classification ?? []).map(({ tag }) => `${metadata.namespace}/${tag}`),
        );
      this.#tags = { version: this.#version, text: hashOf([...new Set(tags)].sort()) };
    }
    return this.#tags.text;
  }
}

interface Known {
  readonly tags: string;
  readonly versions: string;
  readonly entry: PolicyInForce;
}
