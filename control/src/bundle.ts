import { createHash } from "node:crypto";

/** One manifest of a bundle, as JSON text: the resource, a policy, an identity provider or a namespace's labels. */
export interface BundleDocument {
  /** `Kind/namespace/name`; cluster-scoped ones have no namespace: `Kind//name`. */
  readonly key: string;
  readonly json: string;
}

/** A moment of each list behind a bundle, by name: resource versions, which only grow. */
export type Revision = Readonly<Record<string, string>>;

/** All that concerns one resource. */
export interface Bundle {
  /** The last change of each list that its maker knew, deletions included. */
  readonly revision: Revision;
  readonly documents: readonly BundleDocument[];
}

/** What turns one set of documents into the next; without a base it is the whole set. */
export interface BundleUpdate {
  readonly revision: Revision;
  /**
   * Up to where the sender has followed each list: beyond its last change where that was deleted before the sender
   * began. An operator of an earlier release does not say it.
   */
  readonly heard?: Revision;
  /** The digest that the update builds on. */
  readonly base?: string;
  /** The digest that must come out. */
  readonly digest: string;
  readonly put: readonly BundleDocument[];
  readonly remove: readonly string[];
}

/** The kinds that a gateway takes from the control stream. Secrets are mounted and never travel. */
export const bundleKinds: ReadonlySet<string> = new Set([
  "ProtectedResource",
  "AccessPolicy",
  "ClusterAccessPolicy",
  "IdentityProvider",
  "Namespace",
]);

/** The kind that a key names. */
export function kindOf(key: string): string {
  return key.slice(0, key.indexOf("/"));
}

/** Names a set of documents, whatever their order. */
export function digestOf(documents: readonly BundleDocument[]): string {
  const known = digests.get(documents);
  if (known !== undefined) return known;
  const lines = documents.map((document) => `${document.key}\0${hashOfDocument(document)}\n`).sort();
  const digest = hashOf(lines.join(""));
  digests.set(documents, digest);
  return digest;
}

// Bundles and documents are never changed once made, and compared far more often than made.
const digests = new WeakMap<readonly BundleDocument[], string>();
const hashes = new WeakMap<BundleDocument, string>();

function hashOfDocument(document: BundleDocument): string {
  const known = hashes.get(document);
  if (known !== undefined) return known;
  const hash = hashOf(document.json);
  hashes.set(document, hash);
  return hash;
}

/** The update from what a gateway holds; whole where it holds nothing. */
export function updateFrom(held: Bundle | undefined, next: Bundle, heard?: Revision): BundleUpdate {
  const digest = digestOf(next.documents);
  const known = { revision: next.revision, ...(heard && { heard }) };
  if (held === undefined) return { ...known, digest, put: next.documents, remove: [] };
  const before = new Map(held.documents.map(({ key, json }) => [key, json]));
  const after = new Set(next.documents.map(({ key }) => key));
  return {
    ...known,
    base: digestOf(held.documents),
    digest,
    put: next.documents.filter(({ key, json }) => before.get(key) !== json),
    remove: [...before.keys()].filter((key) => !after.has(key)),
  };
}

/** What became of an update. */
export type Applied =
  | { readonly kind: "applied"; readonly bundle: Bundle; readonly digest: string }
  /** Ask for the whole set: the update builds on another one, or does not give what it says. */
  | { readonly kind: "mismatch" }
  /** The sender knows less than what is held: an older state must not come back. */
  | { readonly kind: "stale" };

/** Applies an update to what is held. */
export function applyUpdate(held: Bundle | undefined, update: BundleUpdate): Applied {
  const documents = new Map<string, BundleDocument>();
  if (update.base !== undefined) {
    if (held === undefined || digestOf(held.documents) !== update.base) return { kind: "mismatch" };
    for (const document of held.documents) documents.set(document.key, document);
  }
  for (const key of update.remove) documents.delete(key);
  for (const document of update.put) documents.set(document.key, document);
  const next = [...documents.values()];
  const digest = digestOf(next);
  if (digest !== update.digest) return { kind: "mismatch" };
  if (held === undefined)
    return { kind: "applied", bundle: { revision: update.revision, documents: next }, digest };
  // The same content from a replica that has heard less is no step back.
  const isSame = digestOf(held.documents) === digest;
  if (!isSame && isOlder(update.heard ?? update.revision, held.revision)) return { kind: "stale" };
  // What is known of the lists is not forgotten: who has heard further may know less of what was deleted.
  return {
    kind: "applied",
    bundle: { revision: newer(held.revision, update.revision), documents: next },
    digest,
  };
}

/** True where a list is older than the one that the other revision knows. */
export function isOlder(revision: Revision, than: Revision): boolean {
  return Object.entries(than).some(([name, version]) => compare(revision[name] ?? "0", version) < 0);
}

/** The later moment of each list. */
export function newer(one: Revision, other: Revision): Revision {
  const merged: Record<string, string> = { ...one };
  for (const [name, version] of Object.entries(other)) {
    if (compare(version, merged[name] ?? "0") > 0) merged[name] = version;
  }
  return merged;
}

/** Resource versions are decimal numbers of any length. */
function compare(a: string, b: string): number {
  return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
}

function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
