import type { PathSegment } from "../schema.ts";
import type {
  AccessPolicy,
  Approval,
  ClusterAccessPolicy,
  IdentityProvider,
  ObjectMeta,
  ProtectedResource,
  ResourceGrant,
  Session,
} from "../types.generated.ts";
import type { Position } from "./yaml-document.ts";

/** A Kubernetes Secret, as far as a standalone gateway reads one. */
export interface Secret {
  readonly apiVersion: "v1";
  readonly kind: "Secret";
  readonly metadata: ObjectMeta;
  /** Values in base64. */
  readonly data?: Readonly<Record<string, string>>;
  /** Values as they are; they win over `data`. */
  readonly stringData?: Readonly<Record<string, string>>;
}

/** A Kubernetes Namespace; only its labels are read. */
export interface Namespace {
  readonly apiVersion: "v1";
  readonly kind: "Namespace";
  readonly metadata: ObjectMeta;
}

/** Any document that the loader keeps. */
export type Manifest =
  | ProtectedResource
  | AccessPolicy
  | ClusterAccessPolicy
  | IdentityProvider
  | Approval
  | Session
  | ResourceGrant
  | Secret
  | Namespace;

/** A document that its schema accepts, defaults filled in, and where it came from. */
export interface LoadedDocument<T extends Manifest = Manifest> {
  readonly object: T;
  readonly file: string;
  /** Where the document starts, counted from 1. */
  readonly line: number;
  /** The place of a field, or of the nearest one above it. */
  locate(path: readonly PathSegment[]): Position;
}

/** The documents of one kind. */
export function documentsOf<K extends Manifest["kind"]>(
  documents: readonly LoadedDocument[],
  kind: K,
): readonly LoadedDocument<Extract<Manifest, { kind: K }>>[] {
  return documents.filter(
    (document): document is LoadedDocument<Extract<Manifest, { kind: K }>> => document.object.kind === kind,
  );
}

/** The labels of a namespace: those of its manifest and the one that Kubernetes always sets. */
export function namespaceLabels(
  documents: readonly LoadedDocument[],
  namespace: string,
): Readonly<Record<string, string>> {
  const found = documentsOf(documents, "Namespace").find(({ object }) => object.metadata.name === namespace);
  return { ...found?.object.metadata.labels, "kubernetes.io/metadata.name": namespace };
}

/** What the `aud` claim of tokens for a resource must hold. */
export function audienceOf({ metadata, spec }: ProtectedResource): string {
  return spec.identity.audience ?? `sallyport:${metadata.namespace ?? "default"}/${metadata.name}`;
}

/** `Kind namespace/name` for messages. */
export function titleOf(kind: string, { namespace, name }: { namespace?: string; name: string }): string {
  return namespace === undefined ? `${kind} ${name}` : `${kind} ${namespace}/${name}`;
}
