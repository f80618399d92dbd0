import { childName, keptLabel, labelValue, type RenderedObject } from "../../placement/index.ts";
import { type ControllerRevision, kinds } from "../kinds.ts";
import type { KeptGeneration, Policy } from "./in-force.ts";

/** How many accepted generations are kept: one would do, and another lets a new release disagree with one. */
export const keptGenerationsMax = 3;

/** Names the policy that a kept generation is of. */
const policyLabel = "sallyport.dev/policy";

/** The key by which the kept generations of a policy are found. */
export function revisionKey({ kind, metadata }: Pick<Policy, "kind" | "metadata">): string {
  return `${kind}/${metadata.uid ?? ""}`;
}

/** What the cache of revisions holds: of those with the second label admission sees to it that we alone write them. */
export const revisionSelector = `${policyLabel},${keptLabel}`;

/** The index of the cache of revisions: an owner is whoever its writer says, so that only what we have kept has one. */
export function revisionKeys(revision: ControllerRevision): readonly string[] {
  if (revision.metadata.labels?.[keptLabel] === undefined) return [];
  const owner = revision.metadata.ownerReferences?.find(({ controller }) => controller === true);
  return owner === undefined ? [] : [`${owner.kind}/${owner.uid}`];
}

/** The object that keeps an accepted generation; those of cluster policies live in the operator's own namespace. */
export function renderRevision(policy: Policy, systemNamespace: string): RenderedObject {
  const { kind, apiVersion, metadata, spec } = policy;
  const generation = metadata.generation ?? 1;
  const prefix = kind === "AccessPolicy" ? "policy" : "cluster-policy";
  return {
    apiVersion: kinds.controllerRevision.apiVersion,
    kind: kinds.controllerRevision.kind,
    metadata: {
      name: childName(metadata.name, `${prefix}-${generation}`),
      namespace: metadata.namespace ?? systemNamespace,
      labels: {
        "app.kubernetes.io/part-of": "sallyport",
        "app.kubernetes.io/managed-by": "sallyport-operator",
        [policyLabel]: labelValue(metadata.name),
        [keptLabel]: "true",
      },
      ownerReferences: [
        {
          apiVersion,
          kind,
          name: metadata.name,
          uid: metadata.uid ?? "",
          controller: true,
          blockOwnerDeletion: true,
        },
      ],
    },
    revision: generation,
    data: { spec },
  };
}

/** Reads a kept generation; undefined for data that is none. */
export function readRevision({ revision, data }: ControllerRevision): KeptGeneration | undefined {
  if (typeof data !== "object" || data === null || !("spec" in data)) return undefined;
  const { spec } = data;
  // The API server checked it when it was accepted; whoever may change revisions may change policies.
  return typeof spec === "object" && spec !== null
    ? { generation: revision, spec: spec as Policy["spec"] }
    : undefined;
}
