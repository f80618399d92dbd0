/** Texts of manifests in, accepted documents and every problem at once out. No I/O, and no exception for any text. */
import type { PathSegment } from "../schema.ts";
import { type LoadedDocument, type Manifest, titleOf } from "./loaded.ts";
import { type Finding, type Problem, parsePath } from "./problem.ts";
import { referenceFindings } from "./references.ts";
import { kindNames, kindSchema, schemaFindings } from "./schema-check.ts";
import { isRecord } from "./shape-check.ts";
import { suggestion } from "./suggestion.ts";
import { readYaml, type YamlDocument } from "./yaml-document.ts";

/** A file's name and text. */
export interface ManifestSource {
  readonly file: string;
  readonly text: string;
}

/** A check of one document that lives elsewhere: whether a policy's CEL and patterns compile, for one. */
export type DocumentCheck = (document: LoadedDocument) => readonly Finding[];

/** How manifests are checked. */
export interface CheckOptions {
  /** Further checks, run on each document that its schema accepts. */
  readonly checkPolicy?: readonly DocumentCheck[];
  /** Protocols that this build speaks; absent accepts any. */
  readonly protocols?: readonly string[];
  /** For namespaced documents that name none; `default` where absent. */
  readonly defaultNamespace?: string;
}

/** The documents that their schemas accept, and everything that is wrong. Look at the problems before using any. */
export interface Manifests {
  readonly documents: readonly LoadedDocument[];
  readonly problems: readonly Problem[];
}

/** More than this many problems tell nobody more. */
const PROBLEMS_MAX = 1000;

/** Whether anything found is an error; warnings alone do not keep manifests from use. */
export function hasErrors({ problems }: Pick<Manifests, "problems">): boolean {
  return problems.some(({ severity }) => severity === "error");
}

/** Checks manifests: YAML, schema, CEL rules, names, references, and the checks that the caller plugs in. */
export function checkManifests(sources: readonly ManifestSource[], options: CheckOptions = {}): Manifests {
  const run = new Run(options);
  for (const source of sources) run.read(source);
  run.checkReferences();
  return run.result();
}

/** What a document says of itself before it is known to be right. */
interface Claimed {
  readonly apiVersion: unknown;
  readonly kind: unknown;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
}

class Run {
  readonly #options: CheckOptions;
  readonly #documents: LoadedDocument[] = [];
  readonly #problems: Problem[] = [];
  readonly #names = new Map<string, string>();
  readonly #broken = new Set<string>();
  #hasNamelessBroken = false;

  constructor(options: CheckOptions) {
    this.#options = options;
  }

  read({ file, text }: ManifestSource): void {
    const { documents, faults } = readYaml(text);
    for (const { line, column, message } of faults) {
      this.#hasNamelessBroken = true;
      this.#problems.push({ severity: "error", file, line, column, path: "", message, document: "" });
    }
    for (const document of documents) this.#readDocument(file, document);
  }

  checkReferences(): void {
    const scope = {
      documents: this.#documents,
      broken: this.#broken,
      hasNamelessBroken: this.#hasNamelessBroken,
    };
    for (const { document, finding } of referenceFindings(scope)) this.#place(document, finding);
  }

  result(): Manifests {
    const order = (a: Problem, b: Problem): number =>
      a.file === b.file ? a.line - b.line || a.column - b.column : a.file < b.file ? -1 : 1;
    const sorted = [...this.#problems].sort(order);
    // Errors first where some must go: a list cut to warnings would look harmless.
    const kept =
      sorted.length <= PROBLEMS_MAX
        ? sorted
        : [...sorted.filter(isError), ...sorted.filter((problem) => !isError(problem))].slice(
            0,
            PROBLEMS_MAX,
          );
    return { documents: this.#documents, problems: kept };
  }

  #readDocument(file: string, yaml: YamlDocument): void {
    const { value } = yaml;
    const report = (finding: Finding): unknown =>
      this.#problems.push(placed(finding, file, isRecord(value) ? claimedTitle(claims(value)) : "", yaml));
    if (!isRecord(value)) {
      this.#hasNamelessBroken = true;
      report({
        severity: "error",
        path: "",
        message: "must be a Kubernetes object: a mapping with apiVersion and kind",
      });
      return;
    }
    const role = roleOf(claims(value));
    if (role.kind === "ignored") return;
    if (role.kind === "foreign") {
      report({
        severity: "warning",
        path: "apiVersion",
        message: "is not of the group sallyport.dev: ignored",
      });
      return;
    }
    if (role.kind === "refused") {
      this.#hasNamelessBroken = true;
      report(role.finding);
      return;
    }
    if (role.kind === "ours") this.#warnOfWords(file, value, yaml);
    const findings = this.#findings(value, role.kind === "ours");
    for (const finding of findings) report(finding);
    // An unaccepted document is not passed on, and what refers to it is not blamed.
    const claimed = claims(value);
    const isNew = this.#register(file, claimed, yaml, report);
    if (findings.some(isError) || !isNew) {
      if (claimed.name === undefined) this.#hasNamelessBroken = true;
      else this.#broken.add(keyOf(claimed));
      return;
    }
    const loaded: LoadedDocument = {
      object: value as unknown as Manifest,
      file,
      line: yaml.locate([]).line,
      locate: (path) => yaml.locate(path),
    };
    this.#documents.push(loaded);
    for (const check of this.#options.checkPolicy ?? []) {
      for (const finding of guarded(() => check(loaded))) report(finding);
    }
  }

  #warnOfWords(file: string, value: Record<string, unknown>, { ambiguous }: YamlDocument): void {
    const document = claimedTitle(claims(value));
    for (const { word, line, column } of ambiguous.slice(0, PROBLEMS_MAX)) {
      const message = `quote it: kubectl reads an unquoted ${word} as true or false, and the API server refuses it`;
      this.#problems.push({ severity: "warning", file, line, column, path: "", message, document });
    }
  }

  #findings(value: Record<string, unknown>, isOurs: boolean): readonly Finding[] {
    const kind = String(value.kind);
    const isNamespaced = isOurs ? kindSchema(kind)?.scope === "Namespaced" : kind === "Secret";
    if (isNamespaced && isRecord(value.metadata) && value.metadata.namespace === undefined) {
      value.metadata.namespace = this.#options.defaultNamespace ?? "default";
    }
    if (!isOurs) return coreFindings(value);
    return guarded(() => [
      ...schemaFindings(kind, value),
      ...(kind === "ProtectedResource" ? this.#protocolFindings(value) : []),
    ]);
  }

  #protocolFindings({ spec }: Record<string, unknown>): readonly Finding[] {
    if (!isRecord(spec) || typeof spec.protocol !== "string") return [];
    const { protocol } = spec;
    const { protocols } = this.#options;
    if (protocols !== undefined && !protocols.includes(protocol)) {
      const message = `is not spoken by this build, which speaks ${protocols.join(", ")}`;
      return [{ severity: "error", path: "spec.protocol", message }];
    }
    if (!isRecord(spec.options)) return [];
    return unknownOptions(protocol, spec.options).map(({ option, message }) => ({
      severity: "error",
      path: `spec.options.${option}`,
      message,
    }));
  }

  /** False where the name is taken: then neither document is the one that was meant. */
  #register(file: string, claimed: Claimed, yaml: YamlDocument, report: (finding: Finding) => void): boolean {
    if (claimed.name === undefined) return true;
    const key = keyOf(claimed);
    const taken = this.#names.get(key);
    if (taken !== undefined) {
      const message = `${claimedTitle(claimed)} is there already, at ${taken}`;
      report({ severity: "error", path: "metadata.name", message });
      return false;
    }
    this.#names.set(key, `${file}:${yaml.locate(["metadata", "name"]).line}`);
    return true;
  }

  #place(document: LoadedDocument, finding: Finding): void {
    const title = titleOf(document.object.kind, document.object.metadata);
    this.#problems.push(placed(finding, document.file, title, document));
  }
}

/** The options of a resource that its protocol does not know, and what is wrong with each. */
export function unknownOptions(
  protocol: string,
  options: object,
): readonly { readonly option: string; readonly message: string }[] {
  const known = protocolOptions.get(protocol);
  if (known === undefined) return [];
  return Object.keys(options)
    .filter((option) => !known.includes(option))
    .map((option) => ({
      option,
      message: `unknown option of protocol ${protocol}${suggestion(option, known)}`,
    }));
}

/** What options a protocol knows; protocols that are not here check their own. */
const protocolOptions: ReadonlyMap<string, readonly string[]> = new Map([
  [
    "postgres",
    Object.keys(
      kindSchema("ProtectedResource")?.schema.properties?.spec?.properties?.options?.properties ?? {},
    ),
  ],
]);

type Role =
  | { readonly kind: "ours" }
  | { readonly kind: "core" }
  | { readonly kind: "ignored" }
  /** One of our kinds' names, in a group that is not ours. */
  | { readonly kind: "foreign" }
  | { readonly kind: "refused"; readonly finding: Finding };

/** Ignoring a document by mistake could drop a Deny, so whatever looks meant for us and is not right is refused. */
function roleOf({ apiVersion, kind }: Claimed): Role {
  const refused = (path: string, message: string): Role => ({
    kind: "refused",
    finding: { severity: "error", path, message },
  });
  if (typeof apiVersion !== "string") return refused("apiVersion", "is required, as text");
  if (typeof kind !== "string") return refused("kind", "is required, as text");
  if (apiVersion === "v1" && (kind === "Secret" || kind === "Namespace")) return { kind: "core" };
  if (apiVersion === "v1" && kind.endsWith("List")) {
    return refused("kind", "a list is not read: write its items as documents of their own");
  }
  const group = apiVersion.split("/", 1)[0] ?? "";
  if (group !== "sallyport.dev") {
    if (group.includes("sallyport") || suggestion(group, ["sallyport.dev"]) !== "") {
      return refused("apiVersion", "unknown group: must be sallyport.dev/v1alpha1");
    }
    if (kindNames.includes(kind)) return { kind: "foreign" };
    return { kind: "ignored" };
  }
  if (apiVersion !== "sallyport.dev/v1alpha1") {
    return refused("apiVersion", "unknown version: must be sallyport.dev/v1alpha1");
  }
  if (kindSchema(kind) === undefined) {
    return refused("kind", `unknown kind${suggestion(kind, kindNames)}; there are ${kindNames.join(", ")}`);
  }
  return { kind: "ours" };
}

/** The little that is read of core kinds must be right; the rest of them is not ours to judge. */
function coreFindings({ metadata, data, stringData }: Record<string, unknown>): readonly Finding[] {
  const findings: Finding[] = [];
  const error = (path: string, message: string): unknown =>
    findings.push({ severity: "error", path, message });
  if (!isRecord(metadata) || typeof metadata.name !== "string" || metadata.name === "") {
    error("metadata.name", "is required, as text");
  } else {
    if (metadata.namespace !== undefined && typeof metadata.namespace !== "string") {
      error("metadata.namespace", "must be text");
    }
    if (metadata.labels !== undefined && !isTextMap(metadata.labels))
      error("metadata.labels", "must map text to text");
  }
  if (data !== undefined && !isTextMap(data)) error("data", "must map text to text in base64");
  else if (data !== undefined && !Object.values(data).every(isBase64))
    error("data", "holds a value that is not base64");
  if (stringData !== undefined && !isTextMap(stringData)) error("stringData", "must map text to text");
  return findings;
}

const isTextMap = (value: unknown): value is Record<string, string> =>
  isRecord(value) && Object.values(value).every((item) => typeof item === "string");

const isBase64 = (text: string): boolean => /^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(text);

/** A check that fails has not said yes. Its reason could hold a value, so it is not shown. */
function guarded(check: () => readonly Finding[]): readonly Finding[] {
  try {
    return check();
  } catch {
    return [{ severity: "error", path: "", message: "could not be checked" }];
  }
}

function placed(finding: Finding, file: string, document: string, at: Pick<YamlDocument, "locate">): Problem {
  const segments: readonly PathSegment[] = parsePath(finding.path);
  return { ...finding, file, ...at.locate(segments), document };
}

function claims(value: Record<string, unknown>): Claimed {
  const metadata = isRecord(value.metadata) ? value.metadata : {};
  const { name, namespace } = metadata;
  return {
    apiVersion: value.apiVersion,
    kind: value.kind,
    name: typeof name === "string" ? name : undefined,
    namespace: typeof namespace === "string" ? namespace : undefined,
  };
}

function claimedTitle({ kind, name, namespace }: Claimed): string {
  if (typeof kind !== "string") return "";
  if (name === undefined) return kind;
  return titleOf(kind, namespace === undefined ? { name } : { namespace, name });
}

const keyOf = ({ kind, namespace, name }: Claimed): string =>
  `${String(kind)}/${namespace ?? ""}/${name ?? ""}`;

const isError = ({ severity }: { severity: string }): boolean => severity === "error";
