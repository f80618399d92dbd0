/** A folder of manifests as the gateway would take it: everything that is wrong, and what is in force. */
import { stat } from "node:fs/promises";
import { relative } from "node:path";
import type { LoadedDocument, Problem } from "@sallyport/crds";
import type {
  PolicyDocument,
  PolicyProblem,
  PolicySet,
  ResourceDocument,
  ResourceFacts,
} from "@sallyport/policy";
import { CliFailure } from "./failure.ts";
import type { Terminal } from "./terminal.ts";
import { inFolder, type ResourceName } from "./values.ts";

/** What a folder holds once it is read, checked and compiled. */
export interface ManifestFolder {
  readonly documents: readonly LoadedDocument[];
  /** Every problem, of schemas, references, policies and identity providers, in the order of the files. */
  readonly problems: readonly Problem[];
  readonly policies: readonly PolicyDocument[];
  readonly resources: readonly ResourceDocument[];
  readonly set: PolicySet;
  /** False where a document was not accepted: a gateway takes none of such a folder, and keeps what it has. */
  readonly isTaken: boolean;
}

/** Reads a folder (or one file); fails only where there is nothing to read. */
export async function readManifests(path: string, terminal: Terminal): Promise<ManifestFolder> {
  const { hasErrors, loadManifests } = await import("@sallyport/crds");
  const folder = inFolder(terminal.cwd, path);
  await stat(folder).catch((cause: unknown) => {
    throw new CliFailure(`cannot read ${path}`, { next: "Name a folder of manifests (*.yaml).", cause });
  });
  // Problems name files as the person would: from where they stand.
  const fromHere = relative(process.cwd(), folder);
  const loaded = await loadManifests(fromHere.startsWith("..") ? folder : fromHere || ".");
  const compiled = await compile(loaded.documents);
  const problems = [...loaded.problems];
  const others = await identityProblems(loaded.documents);
  for (const problem of [...(await compiled.problems(hasErrors(loaded))), ...others]) {
    // Some references are checked on both sides; one finding a field is enough.
    if (!problems.some((known) => isSameField(known, problem))) problems.push(problem);
  }
  return {
    ...compiled.folder,
    documents: loaded.documents,
    problems: problems.sort(byPlace),
    isTaken: !hasErrors(loaded),
  };
}

/** A resource that is asked for. */
export interface AskedResource {
  readonly facts: ResourceFacts;
  /** `Audit`: the gateway records verdicts and lets everything through. */
  readonly enforcement: "Enforce" | "Audit";
}

/** The resource as policies select it; fails with the resources that there are. */
export async function findResource(
  { documents }: ManifestFolder,
  { namespace, name }: ResourceName,
): Promise<AskedResource> {
  const { documentsOf, namespaceLabels } = await import("@sallyport/crds");
  const resources = documentsOf(documents, "ProtectedResource").map(({ object }) => object);
  const found = resources.find(({ metadata }) => metadata.namespace === namespace && metadata.name === name);
  if (found === undefined) {
    const known = resources.map(({ metadata }) => `${metadata.namespace ?? ""}/${metadata.name}`);
    throw new CliFailure(`there is no resource ${namespace}/${name} in these manifests`, {
      next:
        known.length === 0 ? "They hold no accepted ProtectedResource." : `There are: ${known.join(", ")}`,
    });
  }
  const facts = {
    namespace,
    name,
    labels: found.metadata.labels ?? {},
    namespaceLabels: namespaceLabels(documents, namespace),
    protocol: found.spec.protocol,
  };
  return { facts, enforcement: found.spec.enforcement === "Audit" ? "Audit" : "Enforce" };
}

interface Compiled {
  readonly folder: Pick<ManifestFolder, "policies" | "resources" | "set">;
  /** A document that was not accepted is missing here, which is not the fault of what refers to it. */
  readonly problems: (isIncomplete: boolean) => Promise<readonly Problem[]>;
}

async function compile(documents: readonly LoadedDocument[]): Promise<Compiled> {
  const [{ documentsOf, namespaceLabels }, { compilePolicies }] = await Promise.all([
    import("@sallyport/crds"),
    import("@sallyport/policy"),
  ]);
  const loaded = [
    ...documentsOf(documents, "AccessPolicy"),
    ...documentsOf(documents, "ClusterAccessPolicy"),
  ];
  const policies = loaded.map(({ object: { kind, metadata, spec } }): PolicyDocument => {
    const { namespace, name, generation } = metadata;
    return {
      kind,
      name,
      generation: generation ?? 1,
      spec,
      ...(namespace === undefined ? {} : { namespace }),
    };
  });
  const resources = documentsOf(documents, "ProtectedResource").map(
    ({ object: { metadata, spec } }): ResourceDocument => ({
      namespace: metadata.namespace ?? "default",
      name: metadata.name,
      labels: metadata.labels ?? {},
      spec,
    }),
  );
  const spaces = [
    ...resources,
    ...documentsOf(documents, "Namespace").map(({ object }) => ({ namespace: object.metadata.name })),
  ];
  const namespaces = new Map(
    spaces.map(({ namespace }) => [namespace, namespaceLabels(documents, namespace)]),
  );
  const { set, problems } = compilePolicies(policies, resources, { namespaces });
  const placed = (problem: PolicyProblem): Promise<Problem> => {
    const index = policies.findIndex(
      ({ kind, namespace, name }) =>
        kind === problem.kind && namespace === problem.namespace && name === problem.policy,
    );
    return place(loaded[index], problem.path, `${problem.message} (${problem.reason})`);
  };
  return {
    folder: { policies, resources, set },
    problems: (isIncomplete) =>
      Promise.all(
        problems.filter(({ reason }) => !isIncomplete || reason !== "UnknownReference").map(placed),
      ),
  };
}

async function identityProblems(documents: readonly LoadedDocument[]): Promise<readonly Problem[]> {
  const { documentsOf } = await import("@sallyport/crds");
  const loaded = documentsOf(documents, "IdentityProvider");
  if (loaded.length === 0) return [];
  const { createAuthenticator } = await import("@sallyport/sidecar");
  const providers = loaded.map(({ object }) => object);
  const authenticator = createAuthenticator({ providers, clock: Date.now });
  authenticator.close();
  const placed = authenticator.problems.map(({ provider, path, message, reason }) => {
    const document = loaded.find(({ object }) => object.metadata.name === provider);
    return place(document, path, `${message} (${reason})`);
  });
  return Promise.all(placed);
}

async function place(document: LoadedDocument | undefined, path: string, message: string): Promise<Problem> {
  const { parsePath } = await import("@sallyport/crds");
  const { line, column } = document?.locate(parsePath(path)) ?? { line: 1, column: 1 };
  const { kind, metadata } = document?.object ?? {};
  const name = [metadata?.namespace, metadata?.name].filter((part) => part !== undefined).join("/");
  const title = kind === undefined ? "" : `${kind} ${name}`;
  return { severity: "error", file: document?.file ?? "", line, column, path, message, document: title };
}

const isSameField = (a: Problem, b: Problem): boolean =>
  a.file === b.file &&
  a.line === b.line &&
  a.column === b.column &&
  a.path === b.path &&
  a.severity === b.severity;

function byPlace(a: Problem, b: Problem): number {
  if (a.file !== b.file) return a.file < b.file ? -1 : 1;
  return a.line - b.line || a.column - b.column;
}
