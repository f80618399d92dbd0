/**
 * Checks one document against its kind's schema as an API server would with strict field validation: types, bounds,
 * unknown fields and unique entries, then the CEL rules. Defaults are filled in on the way.
 */
import { type CelInput, type CelResult, celEnv, isCelError, parse, plan } from "@bufbuild/cel";
import { strings } from "@bufbuild/cel/ext";
import type { KindSchema, PathSegment, StructuralSchema, ValidationRule } from "../schema.ts";
import { kindSchemas } from "../schemas.generated.ts";
import { type Finding, formatPath } from "./problem.ts";
import { isRecord, schemaBelow, shapeFindings } from "./shape-check.ts";

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
  const shape = shapeFindings(known.schema, document);
  const rules: Finding[] = [];
  walk(known.schema, document, { path: [], findings: rules, shapeHolds: shape.length === 0 });
  return [...shape, ...rules];
}

interface Walk {
  readonly path: readonly PathSegment[];
  readonly findings: Finding[];
  /** False where the shape is wrong: a CEL rule that cannot be evaluated is then no news. */
  readonly shapeHolds: boolean;
}

function walk(schema: StructuralSchema, value: unknown, at: Walk): void {
  if (schema.type === "object" && isRecord(value)) {
    for (const rule of schema["x-kubernetes-validations"] ?? []) {
      if (!isTransition(rule)) judge(rule, schema, value, at);
    }
    for (const [key, child] of Object.entries(value)) {
      const node = schemaBelow(schema, key);
      if (node !== undefined) walk(node, child, { ...at, path: [...at.path, key] });
    }
  } else if (schema.type === "array" && Array.isArray(value)) {
    // That a list is too long has been said; the rest of it would cost without telling more.
    for (const [index, child] of value.slice(0, schema.maxItems).entries()) {
      if (schema.items) walk(schema.items, child, { ...at, path: [...at.path, index] });
    }
  }
}

/** Speaks of what a field was before: only an API server knows that, and a document that is new passes. */
export function isTransition({ rule }: ValidationRule): boolean {
  return /\boldSelf\b/.test(rule);
}

// An API server knows these functions of texts, too.
const env = celEnv({ funcs: [...strings] });
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
function evaluate(rule: string, self: CelInput): boolean | undefined {
  try {
    let program = programs.get(rule);
    if (program === undefined) {
      program = plan(env, parse(rule)) as (bindings: { self: CelInput }) => CelResult;
      programs.set(rule, program);
    }
    const result = program({ self });
    return isCelError(result) || typeof result !== "boolean" ? undefined : result;
  } catch {
    // A value of a type that the rule does not expect; the caller turns "no answer" into a refusal.
    return undefined;
  }
}

/** CEL tells integers from doubles, JavaScript does not: the schema decides. */
function celValue(schema: StructuralSchema | undefined, value: unknown): CelInput {
  // No rule can read what the schema does not know; leaving it out bounds the depth too.
  if (schema === undefined) return null;
  if (Array.isArray(value)) return value.map((item: unknown) => celValue(schema.items, item));
  if (isRecord(value)) {
    return new Map(
      Object.entries(value).map(([key, item]) => [key, celValue(schemaBelow(schema, key), item)]),
    );
  }
  if (typeof value === "number") return Number.isInteger(value) ? BigInt(value) : value;
  if (typeof value === "string" || typeof value === "boolean") return value;
  return null;
}
