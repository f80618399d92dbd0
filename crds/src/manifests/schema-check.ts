/**
 * Checks one document against its kind's schema as an API server would with strict field validation: types and
 * bounds (ajv), unknown fields, unique list entries, and the CEL rules. Defaults are filled in on the way.
 */
import { type CelInput, type CelResult, celEnv, isCelError, parse, plan } from "@bufbuild/cel";
import { Ajv, type ErrorObject, type ValidateFunction } from "ajv";
import formats from "ajv-formats";
import type { KindSchema, PathSegment, StructuralSchema, ValidationRule } from "../schema.ts";
import { kindSchemas } from "../schemas.generated.ts";
import { type Finding, formatPath } from "./problem.ts";

/** The schema of a kind of ours; undefined for every other word. */
export function kindSchema(kind: string): KindSchema | undefined {
  return Object.hasOwn(kindSchemas, kind) ? kindSchemas[kind] : undefined;
}

/** The names of our kinds. */
export const kindNames: readonly string[] = Object.keys(kindSchemas);

/** Fills in defaults and returns everything that the schema of the kind does not accept. */
export function schemaFindings(kind: string, document: object): readonly Finding[] {
  const known = kindSchema(kind);
  if (known === undefined) return [{ severity: "error", path: "kind", message: "unknown kind" }];
  const validate = validatorOf(kind, known.schema);
  const findings = validate(document)
    ? []
    : (validate.errors ?? []).map((error) => ajvFinding(error, known.schema));
  const shapeHolds = findings.length === 0;
  walk(known.schema, document, { path: [], findings, shapeHolds });
  return unique(findings);
}

const validators = new Map<string, ValidateFunction>();

function validatorOf(kind: string, schema: StructuralSchema): ValidateFunction {
  let validate = validators.get(kind);
  if (validate === undefined) {
    const ajv = new Ajv({ allErrors: true, useDefaults: true, strict: false, verbose: false });
    formats.default(ajv, ["date-time", "int32", "int64"]);
    validate = ajv.compile(ajvSchema(schema));
    validators.set(kind, validate);
  }
  return validate;
}

/** ajv knows nothing of int-or-string. */
function ajvSchema(schema: StructuralSchema): object {
  const { properties, items, additionalProperties, ...rest } = schema;
  return {
    ...rest,
    ...(schema["x-kubernetes-int-or-string"] === true ? { type: ["integer", "string"] } : {}),
    ...(properties && {
      properties: Object.fromEntries(
        Object.entries(properties).map(([key, value]) => [key, ajvSchema(value)]),
      ),
    }),
    ...(items && { items: ajvSchema(items) }),
    ...(additionalProperties !== undefined && {
      additionalProperties: additionalProperties && ajvSchema(additionalProperties),
    }),
  };
}

function ajvFinding(error: ErrorObject, schema: StructuralSchema): Finding {
  const path = segmentsOf(error.instancePath, schema);
  const params = error.params as Readonly<Record<string, unknown>>;
  const at = (segments: readonly PathSegment[], message: string): Finding => ({
    severity: "error",
    path: formatPath(segments),
    message,
  });
  switch (error.keyword) {
    case "additionalProperties": {
      const name = String(params.additionalProperty);
      return at([...path, name], `unknown field${suggestion(name, fieldsAt(schema, path))}`);
    }
    case "required":
      return at([...path, String(params.missingProperty)], "is required");
    case "enum":
      return at(path, `must be one of ${(params.allowedValues as readonly unknown[]).join(", ")}`);
    case "const":
      return at(path, `must be ${String(params.allowedValue)}`);
    case "type":
      return at(path, `must be ${[params.type].flat().map(String).join(" or ")}`);
    default:
      return at(path, error.message ?? "is not valid");
  }
}

/** A JSON pointer to steps; only the schema tells an index from a key of digits. */
function segmentsOf(pointer: string, root: StructuralSchema): readonly PathSegment[] {
  const segments: PathSegment[] = [];
  let schema: StructuralSchema | undefined = root;
  for (const part of pointer.split("/").slice(1)) {
    const key = part.replaceAll("~1", "/").replaceAll("~0", "~");
    const isIndex = schema?.type === "array";
    segments.push(isIndex ? Number(key) : key);
    schema = below(schema, key);
  }
  return segments;
}

function below(schema: StructuralSchema | undefined, key: string): StructuralSchema | undefined {
  if (schema?.type === "array") return schema.items;
  if (schema?.properties !== undefined && Object.hasOwn(schema.properties, key))
    return schema.properties[key];
  return schema?.additionalProperties || undefined;
}

function fieldsAt(root: StructuralSchema, path: readonly PathSegment[]): readonly string[] {
  let schema: StructuralSchema | undefined = root;
  for (const segment of path) schema = below(schema, String(segment));
  return Object.keys(schema?.properties ?? {});
}

/** Names the known field that was probably meant: the same but for case, or at most two letters off. */
export function suggestion(name: string, known: readonly string[]): string {
  const short = name.slice(0, 64).toLowerCase();
  const near = known
    .map((candidate) => ({ candidate, distance: editDistance(short, candidate.toLowerCase()) }))
    .filter(({ distance, candidate }) => distance <= Math.min(2, candidate.length - 2))
    .sort((a, b) => a.distance - b.distance)[0];
  return near === undefined ? "" : `; did you mean ${near.candidate}?`;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

interface Walk {
  readonly path: readonly PathSegment[];
  readonly findings: Finding[];
  /** False where ajv found something: a CEL rule that fails to evaluate is then no news. */
  readonly shapeHolds: boolean;
}

function walk(schema: StructuralSchema, value: unknown, at: Walk): void {
  if (schema.type === "object" && isRecord(value)) {
    for (const rule of schema["x-kubernetes-validations"] ?? []) judge(rule, schema, value, at);
    for (const [key, child] of Object.entries(value)) {
      const node = below(schema, key);
      if (node !== undefined) walk(node, child, { ...at, path: [...at.path, key] });
    }
  } else if (schema.type === "array" && Array.isArray(value)) {
    repeated(schema, value, at);
    // ajv has said that the list is too long; walking all of it would cost without telling more.
    for (const [index, child] of value.slice(0, schema.maxItems).entries()) {
      if (schema.items) walk(schema.items, child, { ...at, path: [...at.path, index] });
    }
  }
}

function repeated(schema: StructuralSchema, list: readonly unknown[], { path, findings }: Walk): void {
  const keys = schema["x-kubernetes-list-map-keys"];
  if (schema["x-kubernetes-list-type"] !== "set" && keys === undefined) return;
  const seen = new Set<string>();
  for (const [index, item] of list.entries()) {
    const identity = keys === undefined ? item : isRecord(item) ? keys.map((key) => item[key]) : undefined;
    const text = JSON.stringify(identity);
    if (text === undefined) continue;
    if (seen.has(text)) {
      const here = [...path, index, ...(keys?.slice(0, 1) ?? [])];
      findings.push({ severity: "error", path: formatPath(here), message: "is there twice" });
    }
    seen.add(text);
  }
}

const env = celEnv();
const programs = new Map<string, (bindings: { self: CelInput }) => CelResult>();

function judge(rule: ValidationRule, schema: StructuralSchema, value: object, at: Walk): void {
  const segments = [...at.path, ...(rule.fieldPath === undefined ? [] : [rule.fieldPath.slice(1)])];
  const report = (message: string): unknown =>
    at.findings.push({ severity: "error", path: formatPath(segments), message });
  const result = evaluate(rule.rule, celValue(schema, value));
  if (result === true) return;
  if (result === false) report(rule.message);
  // A rule that cannot be answered means no, unless a wrong shape already said so.
  else if (at.shapeHolds) report(`${rule.message} (the rule could not be evaluated)`);
}

/** Evaluates a CEL rule of the schema; undefined where it has no answer. */
export function evaluate(rule: string, self: CelInput): boolean | undefined {
  try {
    let program = programs.get(rule);
    if (program === undefined) {
      program = plan(env, parse(rule)) as (bindings: { self: CelInput }) => CelResult;
      programs.set(rule, program);
    }
    const result = program({ self });
    return isCelError(result) || typeof result !== "boolean" ? undefined : result;
  } catch {
    // A value too deep for the evaluator; the caller turns "no answer" into a refusal.
    return undefined;
  }
}

/** CEL tells integers from doubles, JavaScript does not: the schema decides. */
function celValue(schema: StructuralSchema | undefined, value: unknown): CelInput {
  // No rule can read what the schema does not know; leaving it out bounds the depth too.
  if (schema === undefined) return null;
  if (Array.isArray(value)) return value.map((item: unknown) => celValue(schema.items, item));
  if (isRecord(value)) {
    return new Map(Object.entries(value).map(([key, item]) => [key, celValue(below(schema, key), item)]));
  }
  if (typeof value === "number") return Number.isInteger(value) ? BigInt(value) : value;
  if (typeof value === "string" || typeof value === "boolean") return value;
  return null;
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function unique(findings: readonly Finding[]): readonly Finding[] {
  const seen = new Map(findings.map((finding) => [`${finding.path}\n${finding.message}`, finding]));
  return [...seen.values()];
}
