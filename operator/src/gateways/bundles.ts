import { isDeepStrictEqual } from "node:util";
import { type BundleDocument, newer, type Reach, type Revision } from "@sallyport/control";
import type { ProtectedResource } from "@sallyport/crds";
import type { BundleStore } from "../control/index.ts";
import { type Cache, compareVersions, controllerOf, type KubeObject, keyOf } from "../kube/index.ts";
import { listenPort } from "../placement/index.ts";
import {
  isStatusOnly,
  labelsOfNamespace,
  narrowedTo,
  type OperatorCaches,
  type Policy,
  type PolicyBook,
  providerProblem,
  type Service,
  speaksOf,
} from "../resources/index.ts";

/** What bundles are made from. */
export interface BundlerParts {
  readonly caches: OperatorCaches;
  readonly book: PolicyBook;
  readonly bundles: BundleStore;
  /** Which addresses a resource's gateways may dial. */
  readonly reach: (resource: ProtectedResource) => Reach;
}

/**
 * Keeps the bundle of every resource like the caches say: the resource, the policies in force there, its providers
 * and its namespace's labels, and nothing of anybody else's. Every replica comes to the same documents.
 */
export class Bundler {
  readonly #parts: BundlerParts;
  readonly #dirty = new Set<string>();
  readonly #revision: Record<string, string> = {};
  /** Where namespaces are watched one by one: what was last heard of the lists of each. */
  readonly #revisions = new Map<string, Record<string, string>>();
  readonly #lists = new Map<string, (namespace: string) => string>();
  #timer: NodeJS.Immediate | undefined;

  constructor(parts: BundlerParts) {
    this.#parts = parts;
    const { caches, book } = parts;
    parts.bundles.hearsBy((resource) => this.#heard(resource.slice(0, resource.indexOf("/"))));
    this.#follow("resources", caches.protectedResources, (resource) => [resource]);
    const spokenOf = (policy: Policy) => {
      const resources = caches.protectedResources.list(policy.metadata.namespace);
      // Which resources a kept generation names, or has named until now, is not what the latest says.
      const isLatest = !isOutdated(policy) && book.inForce(policy).problems.length === 0;
      return isLatest ? resources.filter((resource) => speaksOf(policy, resource, caches)) : resources;
    };
    this.#follow("policies", caches.accessPolicies, spokenOf, isSamePolicy);
    this.#follow("clusterPolicies", caches.clusterAccessPolicies, spokenOf, isSamePolicy);
    this.#follow("providers", caches.identityProviders, () => caches.protectedResources.list());
    this.#follow("namespaces", caches.namespaces, ({ metadata }) =>
      caches.protectedResources.list(metadata.name),
    );
    this.#follow("services", caches.services, (service) => this.#reaching(service.metadata), isSameService);
    this.#follow("grants", caches.resourceGrants, ({ spec }) =>
      spec.from.flatMap(({ namespace }) => caches.protectedResources.list(namespace)),
    );
    this.#follow("revisions", caches.revisions, (revision) => {
      const { kind, name = "" } = controllerOf(revision) ?? {};
      const { namespace = "" } = revision.metadata;
      const policy =
        kind === "ClusterAccessPolicy"
          ? caches.clusterAccessPolicies.get({ name })
          : caches.accessPolicies.get({ namespace, name });
      // What is kept of a policy counts where its latest generation does not, and for nobody else.
      if (policy === undefined || book.inForce(policy).problems.length === 0) return [];
      return caches.protectedResources.list(policy.metadata.namespace);
    });
  }

  /** What every bundle is made of may have changed. */
  everything(): void {
    for (const { metadata } of this.#parts.caches.protectedResources.list()) this.#dirty.add(keyOf(metadata));
    if (this.#dirty.size > 0) this.#timer ??= setImmediate(() => this.#flush());
  }

  /** Every list is complete: what is known is everything, and is handed out from here on. */
  complete(): void {
    for (const resource of this.#parts.caches.protectedResources.list())
      this.#dirty.add(keyOf(resource.metadata));
    this.#flush();
    this.#parts.bundles.markComplete();
  }

  /** Whose reach speaks of a Service: who names it or a host, and whomever its namespace grants something. */
  #reaching({ namespace = "", name }: KubeObject["metadata"]): readonly ProtectedResource[] {
    const { caches } = this.#parts;
    const granted = caches.resourceGrants.list(namespace).flatMap(({ spec }) => spec.from);
    const elsewhere = new Set(granted.map((from) => from.namespace));
    const own = elsewhere.has(namespace)
      ? []
      : caches.protectedResources
          .list(namespace)
          .filter(
            ({ spec: { endpoint } }) => endpoint.host !== undefined || endpoint.serviceRef?.name === name,
          );
    return [...own, ...[...elsewhere].flatMap((one) => caches.protectedResources.list(one))];
  }

  #follow<T extends KubeObject>(
    name: string,
    cache: Cache<T>,
    concerned: (object: T) => readonly ProtectedResource[],
    isSame: (object: T, before: T) => boolean = isStatusOnly,
  ): void {
    // Of these a bundle knows its own namespace's alone; those of the others may be followed less far.
    const isOwn = cache.heardOf !== undefined && (name === "resources" || name === "policies");
    const heardOf = (namespace: string) => (isOwn && cache.heardOf?.(namespace)) || cache.heard;
    this.#lists.set(name, heardOf);
    cache.onChange((change) => {
      const { object } = change;
      const { namespace = "", resourceVersion = "0" } = object.metadata;
      // What is removed is told of as it was last; the cache has heard when it went.
      const version = change.kind === "removed" ? heardOf(namespace) : resourceVersion;
      const revision = isOwn ? this.#revisionsOf(namespace) : this.#revision;
      if (compareVersions(version, revision[name] ?? "0") > 0) revision[name] = version;
      // A status is in no bundle, and written several times for each change of what is.
      if (change.kind === "changed" && isSame(object, change.before)) return;
      const touched = change.kind === "changed" ? [object, change.before] : [object];
      for (const one of touched) for (const { metadata } of concerned(one)) this.#dirty.add(keyOf(metadata));
      // A change of many objects arrives one by one: one look at the end of it.
      if (this.#dirty.size > 0) this.#timer ??= setImmediate(() => this.#flush());
    });
  }

  #heard(namespace: string): Revision {
    const heard = Object.fromEntries([...this.#lists].map(([name, heardOf]) => [name, heardOf(namespace)]));
    // What a write of ours was answered with may be ahead of the watch.
    return newer(heard, { ...this.#revision, ...this.#revisionsOf(namespace) });
  }

  #revisionsOf(namespace: string): Record<string, string> {
    const known = this.#revisions.get(namespace) ?? {};
    this.#revisions.set(namespace, known);
    return known;
  }

  #flush(): void {
    this.#timer = undefined;
    const { caches, bundles } = this.#parts;
    const keys = [...this.#dirty];
    this.#dirty.clear();
    for (const key of keys) {
      const slash = key.indexOf("/");
      const namespace = key.slice(0, slash);
      const resource = caches.protectedResources.get({ namespace, name: key.slice(slash + 1) });
      if (resource === undefined) bundles.remove(key);
      else
        bundles.set(key, {
          revision: { ...this.#revision, ...this.#revisionsOf(namespace) },
          documents: this.#documents(resource),
        });
    }
  }

  #documents(written: ProtectedResource): readonly BundleDocument[] {
    const { caches, book } = this.#parts;
    // A gateway is told what counts: what is required of the resource stands in its own spec.
    const resource = book.floored(written);
    const namespace = resource.metadata.namespace ?? "default";
    const providers = caches.identityProviders.list();
    const usable = providers.filter(
      (provider) =>
        resource.spec.identity.providers.includes(provider.metadata.name) &&
        providerProblem(provider, providers) === undefined,
    );
    const port = listenPort(resource);
    const spec =
      port === undefined ? resource.spec : { ...resource.spec, listen: { ...resource.spec.listen, port } };
    return [
      documentOf("ProtectedResource", { ...resource, spec }, { reach: this.#parts.reach(resource) }),
      ...book
        .forResource(resource)
        .map(({ policy }) => documentOf(policy.kind, narrowedTo(policy, resource))),
      ...usable.map((provider) => documentOf("IdentityProvider", provider)),
      {
        key: `Namespace//${namespace}`,
        json: JSON.stringify({
          apiVersion: "v1",
          kind: "Namespace",
          metadata: { name: namespace, labels: sorted(labelsOfNamespace(caches, namespace)) },
        }),
      },
    ];
  }
}

/** Which generation counts hangs on more than the policy itself: on tags, and what is kept. The leader writes it down. */
function isSamePolicy(object: Policy, before: Policy): boolean {
  const accepted = ({ status }: Policy) => {
    const condition = status?.conditions?.find(({ type }) => type === "Accepted");
    return `${status?.acceptedGeneration} ${condition?.status}`;
  };
  return isStatusOnly(object, before) && accepted(object) === accepted(before);
}

/** Whether an older generation than the latest was accepted last, as far as anybody has told. */
function isOutdated({ metadata: { generation = 1 }, status }: Policy): boolean {
  return generation > 1 && status?.acceptedGeneration !== generation;
}

function isSameService(object: Service, before: Service): boolean {
  return object.metadata.uid === before.metadata.uid && isDeepStrictEqual(object.spec, before.spec);
}

/** What of an object a gateway reads: no status, no annotations, nothing that changes by itself. */
function documentOf(
  kind: string,
  { metadata, spec }: KubeObject & { readonly spec: unknown },
  more: object = {},
): BundleDocument {
  const { name, namespace, labels, generation } = metadata;
  const apiVersion = "sallyport.dev/v1alpha1";
  const kept = {
    name,
    ...(namespace !== undefined && { namespace }),
    ...(labels !== undefined && { labels: sorted(labels) }),
    ...(generation !== undefined && { generation }),
  };
  return {
    key: `${kind}/${namespace ?? ""}/${name}`,
    json: JSON.stringify({ apiVersion, kind, metadata: kept, spec, ...more }),
  };
}

function sorted(labels: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)));
}
