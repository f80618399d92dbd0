import { createHash } from "node:crypto";

/** One manifest of a bundle, as JSON text: the resource, a policy, an identity provider or a namespace's labels. */
export interface BundleDocument {
  /** `Kind/namespace/name`; cluster-scoped ones have no namespace: `Kind//name`. */
  readonly key: string;
  readonly json: string;
}

/** How new each list behind a bundle was, by name: resource versions, which only grow. */
export type Revision = Readonly<Record<string, string>>;

/** All that concerns one resource. */
export interface Bundle {
  readonly revision: Revision;
  readonly documents: readonly BundleDocument[];
}

/** What turns one set of documents into the next; without a base it is the whole set. */
export interface BundleUpdate {
  readonly revision: Revision;
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
export function updateFrom(held: Bundle | undefined, next: Bundle): BundleUpdate {
  const digest = digestOf(next.documents);
  const { revision } = next;
  if (held === undefined) return { revision, digest, put: next.documents, remove: [] };
  const before = new Map(held.documents.map(({ key, json }) => [key, json]));
  const after = new Set(next.documents.map(({ key }) => key));
  return {
    revision,
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
  const bundle = { revision: update.revision, documents: [...documents.values()] };
  const digest = digestOf(bundle.documents);
  if (digest !== update.digest) return { kind: "mismatch" };
  if (held !== undefined) {
    // The same content from a replica that has heard less is no step back.
    const isSame = digestOf(held.documents) === digest;
    if (isSame) return { kind: "applied", bundle: { ...bundle, revision: newer(held, bundle) }, digest };
    if (isOlder(update.revision, held.revision)) return { kind: "stale" };
  }
  return { kind: "applied", bundle, digest };
}

/** True where a list is older than the one that the other revision knows. */
export function isOlder(revision: Revision, than: Revision): boolean {
  return Object.entries(than).some(([name, version]) => compare(revision[name] ?? "0", version) < 0);
}

function newer(held: Bundle, next: Bundle): Revision {
  const merged: Record<string, string> = { ...held.revision };
  for (const [name, version] of Object.entries(next.revision)) {
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
