/** What no single document can say: names that other documents must hold, and documents that contradict each other. */
import type { PathSegment } from "../schema.ts";
import { isSelectedBy } from "../selector.ts";
import type { AccessPolicy, ClusterAccessPolicy, ProtectedResource, Subject } from "../types.generated.ts";
import { documentsOf, type LoadedDocument, namespaceLabels } from "./loaded.ts";
import { type Finding, formatPath, type Severity } from "./problem.ts";

/** Everything that is there, and the names of what is there but broken, which must not be reported as missing. */
export interface ReferenceScope {
  readonly documents: readonly LoadedDocument[];
  /** `Kind/namespace/name` (cluster-scoped: `Kind//name`) of documents that did not pass their schema. */
  readonly broken: ReadonlySet<string>;
  /** True where a broken document may hold any name or label: what is missing is then only a warning less. */
  readonly hasNamelessBroken: boolean;
}

type Report = (
  document: LoadedDocument,
  severity: Severity,
  path: readonly PathSegment[],
  message: string,
) => void;
type PolicyDocument = LoadedDocument<AccessPolicy> | LoadedDocument<ClusterAccessPolicy>;

/** Checks references between documents. */
export function referenceFindings(
  scope: ReferenceScope,
): readonly { readonly document: LoadedDocument; readonly finding: Finding }[] {
  const findings: { document: LoadedDocument; finding: Finding }[] = [];
  const report: Report = (document, severity, path, message) =>
    findings.push({ document, finding: { severity, path: formatPath(path), message } });
  const policies: readonly PolicyDocument[] = [
    ...documentsOf(scope.documents, "AccessPolicy"),
    ...documentsOf(scope.documents, "ClusterAccessPolicy"),
  ];
  const prefixes = providerPrefixes(scope, report);
  for (const resource of documentsOf(scope.documents, "ProtectedResource")) {
    resourceReferences(resource, scope, report);
    for (const [index, { subjects = [] }] of resource.object.spec.credentials.entries()) {
      subjectReferences(resource, ["spec", "credentials", index, "subjects"], subjects, prefixes, report);
    }
  }
  for (const policy of policies) {
    policyReferences(policy, scope, report);
    subjectReferences(policy, ["spec", "subjects"], policy.object.spec.subjects, prefixes, report);
    breakGlassReferences(policy, prefixes, report);
  }
  return findings;
}

/** Two providers with one prefix could each speak for the other's users. */
function providerPrefixes(
  { documents, broken }: ReferenceScope,
  report: Report,
): readonly string[] | undefined {
  const owners = new Map<string, string>();
  for (const provider of documentsOf(documents, "IdentityProvider")) {
    const { prefix } = provider.object.spec;
    const owner = owners.get(prefix);
    if (owner === undefined) owners.set(prefix, provider.object.metadata.name);
    else report(provider, "error", ["spec", "prefix"], `is the prefix of IdentityProvider ${owner} too`);
  }
  const anyBroken = [...broken].some((key) => key.startsWith("IdentityProvider/"));
  return anyBroken ? undefined : [...owners.keys()];
}

function resourceReferences(
  resource: LoadedDocument<ProtectedResource>,
  scope: ReferenceScope,
  report: Report,
): void {
  const { providers } = resource.object.spec.identity;
  if (providers.length === 0) {
    report(resource, "warning", ["spec", "identity", "providers"], "is empty: nobody gets in");
  }
  const known = new Set(
    documentsOf(scope.documents, "IdentityProvider").map(({ object }) => object.metadata.name),
  );
  for (const [index, name] of providers.entries()) {
    if (known.has(name) || isBroken(scope, "IdentityProvider", undefined, name)) continue;
    report(
      resource,
      "error",
      ["spec", "identity", "providers", index],
      `there is no IdentityProvider ${name}`,
    );
  }
}

function policyReferences(policy: PolicyDocument, scope: ReferenceScope, report: Report): void {
  const { resources, masking = [] } = policy.object.spec;
  const inScope = documentsOf(scope.documents, "ProtectedResource").filter((resource) =>
    namespaceReached(policy, resource.object.metadata.namespace ?? "", scope),
  );
  const namespace = policy.object.metadata.namespace;
  for (const [index, name] of (resources.names ?? []).entries()) {
    const exists = inScope.some(({ object }) => object.metadata.name === name);
    if (exists || isBroken(scope, "ProtectedResource", namespace, name)) continue;
    report(policy, "warning", ["spec", "resources", "names", index], `there is no ProtectedResource ${name}`);
  }
  const selected = inScope.filter(({ object }) => isPolicyOf(policy, object));
  if (selected.length === 0) {
    if (resources.selector !== undefined && !anyBrokenResource(scope)) {
      report(policy, "warning", ["spec", "resources", "selector"], "selects no ProtectedResource");
    }
    return;
  }
  if (anyBrokenResource(scope)) return;
  const tags = new Set(
    selected.flatMap(({ object }) => (object.spec.classification ?? []).map(({ tag }) => tag)),
  );
  for (const [entry, { tags: wanted = [] }] of masking.entries()) {
    for (const [index, tag] of wanted.entries()) {
      if (tags.has(tag)) continue;
      const path = ["spec", "masking", entry, "tags", index];
      report(policy, "error", path, `no selected ProtectedResource classifies columns as ${tag}`);
    }
  }
}

function namespaceReached(policy: PolicyDocument, namespace: string, { documents }: ReferenceScope): boolean {
  if (policy.object.kind === "AccessPolicy") return policy.object.metadata.namespace === namespace;
  const { namespaceSelector } = policy.object.spec;
  return (
    namespaceSelector === undefined || isSelectedBy(namespaceSelector, namespaceLabels(documents, namespace))
  );
}

function isPolicyOf({ object }: PolicyDocument, { metadata }: ProtectedResource): boolean {
  const { names, selector } = object.spec.resources;
  if (names !== undefined) return names.includes(metadata.name);
  return selector !== undefined && isSelectedBy(selector, metadata.labels ?? {});
}

function subjectReferences(
  document: LoadedDocument,
  path: readonly PathSegment[],
  subjects: readonly Subject[],
  prefixes: readonly string[] | undefined,
  report: Report,
): void {
  const seen = new Set<string>();
  for (const [index, subject] of subjects.entries()) {
    const text = JSON.stringify(Object.entries(subject).sort());
    if (seen.has(text)) report(document, "warning", [...path, index], "is there twice");
    seen.add(text);
    for (const key of ["user", "group"] as const) {
      const name = subject[key];
      if (name !== undefined && !isVouchedFor(name, prefixes)) {
        report(document, "warning", [...path, index, key], NO_PREFIX);
      }
    }
  }
}

const NO_PREFIX = "no IdentityProvider has this prefix: nobody is meant";

function breakGlassReferences(
  policy: PolicyDocument,
  prefixes: readonly string[] | undefined,
  report: Report,
): void {
  for (const [index, { approval }] of (policy.object.spec.rules ?? []).entries()) {
    const group = approval?.breakGlass?.group;
    if (group === undefined || isVouchedFor(group, prefixes)) continue;
    report(policy, "warning", ["spec", "rules", index, "approval", "breakGlass", "group"], NO_PREFIX);
  }
}

const isVouchedFor = (name: string, prefixes: readonly string[] | undefined): boolean =>
  prefixes === undefined || prefixes.some((prefix) => name.startsWith(prefix));

function isBroken(
  { broken, hasNamelessBroken }: ReferenceScope,
  kind: string,
  namespace: string | undefined,
  name: string,
): boolean {
  if (hasNamelessBroken || broken.has(`${kind}/${namespace ?? ""}/${name}`)) return true;
  // A cluster policy names resources of any namespace.
  return (
    namespace === undefined &&
    [...broken].some((key) => key.startsWith(`${kind}/`) && key.endsWith(`/${name}`))
  );
}

const anyBrokenResource = ({ broken, hasNamelessBroken }: ReferenceScope): boolean =>
  hasNamelessBroken || [...broken].some((key) => key.startsWith("ProtectedResource/"));
