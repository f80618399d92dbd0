/**
 * Checks a value against a structural schema and fills in defaults. Walks the schema instead of compiling it: compiled
 * by ajv, our kinds cost 40 MB of resident memory, more than all else in an idle gateway. ajv is the oracle in the tests.
 */
import type { PathSegment, StructuralSchema } from "../schema.ts";
import { type Finding, formatPath } from "./problem.ts";
import { suggestion } from "./suggestion.ts";

/** Fills in defaults and returns what the schema's types and bounds do not accept. */
export function shapeFindings(schema: StructuralSchema, value: unknown): readonly Finding[] {
  const findings: Finding[] = [];
  check(schema, value, [], (path, message) =>
    findings.push({ severity: "error", path: formatPath(path), message }),
  );
  return findings;
}

/** The schema of a field, an entry or a value below a node; undefined where the node does not know it. */
export function schemaBelow(schema: StructuralSchema, key: string): StructuralSchema | undefined {
  if (schema.type === "array") return schema.items;
  if (schema.properties !== undefined && Object.hasOwn(schema.properties, key)) return schema.properties[key];
  return schema.additionalProperties || undefined;
}

/** Whether a value is a mapping, as YAML and JSON have it. */
export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

type Report = (path: readonly PathSegment[], message: string) => void;
type Path = readonly PathSegment[];

function check(schema: StructuralSchema, value: unknown, path: Path, report: Report): void {
  if (isRecord(value)) fillIn(schema, value);
  const message = fault(schema, value);
  // Below a value of the wrong type or size there is nothing to tell that would help.
  if (message !== undefined) report(path, message);
  else if (Array.isArray(value)) checkEntries(schema, value, path, report);
  else if (isRecord(value)) checkFields(schema, value, path, report);
}

function fillIn({ properties = {} }: StructuralSchema, value: Record<string, unknown>): void {
  for (const [key, child] of Object.entries(properties)) {
    // A copy: two documents must not share what one of them may change.
    if (child.default !== undefined && !Object.hasOwn(value, key))
      value[key] = structuredClone(child.default);
  }
}

/** What is wrong with a value itself, apart from what it holds. */
function fault(schema: StructuralSchema, value: unknown): string | undefined {
  const { const: only, enum: allowed } = schema;
  if (value === null && allowed?.includes("Null"))
    return 'must be string: write "Null" in quotes, YAML reads it as nothing';
  if (!hasType(schema, value)) return `must be ${typeName(schema)}`;
  if (only !== undefined && value !== only) return `must be ${String(only)}`;
  if (allowed !== undefined && !allowed.includes(value))
    return `must be one of ${allowed.map(String).join(", ")}`;
  if (typeof value === "string") return textFault(schema, value);
  if (typeof value === "number") return rangeFault(value, schema.minimum, schema.maximum, "be");
  if (Array.isArray(value))
    return rangeFault(value.length, schema.minItems, schema.maxItems, "have", "entry");
  if (!isRecord(value)) return undefined;
  return rangeFault(Object.keys(value).length, schema.minProperties, schema.maxProperties, "have", "field");
}

function hasType(schema: StructuralSchema, value: unknown): boolean {
  if (schema["x-kubernetes-int-or-string"] === true) {
    return typeof value === "string" || Number.isSafeInteger(value);
  }
  switch (schema.type) {
    case "object":
      return isRecord(value);
    case "array":
      return Array.isArray(value);
    // An unsafe integer is not the number that was written.
    case "integer":
      return Number.isSafeInteger(value);
    case "number":
      return typeof value === "number" && Number.isFinite(value);
    case "string":
    case "boolean":
      return typeof value === schema.type;
    default:
      return true;
  }
}

function typeName(schema: StructuralSchema): string {
  if (schema["x-kubernetes-int-or-string"] === true) return "integer or string";
  return schema.type ?? "a value";
}

function textFault(schema: StructuralSchema, text: string): string | undefined {
  const { minLength, maxLength, pattern, format } = schema;
  // Kubernetes counts characters, not UTF-16 units. A text that is too long never meets a pattern.
  const length = text.length <= (maxLength ?? 0) ? text.length : [...text].length;
  const tooLong = rangeFault(length, minLength, maxLength, "have", "character");
  if (tooLong !== undefined) return tooLong;
  if (pattern !== undefined && !expression(pattern).test(text)) return `must match ${pattern}`;
  if (format === "date-time" && !isDateTime(text))
    return "must be a date and time such as 2026-01-31T12:00:00Z";
  return undefined;
}

function rangeFault(
  value: number,
  min: number | undefined,
  max: number | undefined,
  verb: "be" | "have",
  noun?: string,
): string | undefined {
  const counted = (count: number): string => {
    if (noun === undefined) return String(count);
    return `${count} ${count === 1 ? noun : noun.replace(/y$/, "ie").concat("s")}`;
  };
  if (min !== undefined && value < min) return `must ${verb} at least ${counted(min)}`;
  if (max !== undefined && value > max) return `must ${verb} at most ${counted(max)}`;
  return undefined;
}

const expressions = new Map<string, RegExp>();

function expression(pattern: string): RegExp {
  const known = expressions.get(pattern) ?? new RegExp(pattern, "u");
  expressions.set(pattern, known);
  return known;
}

function isDateTime(text: string): boolean {
  const match =
    /^(\d{4})-(\d\d)-(\d\d)T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$/.exec(
      text,
    );
  if (match === null) return false;
  const [year, month, day] = match.slice(1, 4).map(Number) as [number, number, number];
  const date = new Date(Date.UTC(year, month - 1, day));
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
}

function checkEntries(schema: StructuralSchema, list: readonly unknown[], path: Path, report: Report): void {
  if (schema.items === undefined) return;
  for (const [index, item] of list.entries()) check(schema.items, item, [...path, index], report);
  checkUnique(schema, list, path, report);
}

function checkUnique(schema: StructuralSchema, list: readonly unknown[], path: Path, report: Report): void {
  const keys = schema["x-kubernetes-list-map-keys"];
  if (schema["x-kubernetes-list-type"] !== "set" && keys === undefined) return;
  const seen = new Set<string>();
  for (const [index, item] of list.entries()) {
    if (keys !== undefined && !isRecord(item)) continue;
    const identity = JSON.stringify(
      keys === undefined ? item : keys.map((key) => (item as never)[key] ?? null),
    );
    if (seen.has(identity)) report([...path, index, ...(keys?.slice(0, 1) ?? [])], "is there twice");
    seen.add(identity);
  }
}

function checkFields(
  schema: StructuralSchema,
  value: Record<string, unknown>,
  path: Path,
  report: Report,
): void {
  const { properties = {}, required = [], additionalProperties } = schema;
  for (const key of required) if (!Object.hasOwn(value, key)) report([...path, key], "is required");
  let unknown = 0;
  for (const [key, child] of Object.entries(value)) {
    const node = schemaBelow(schema, key);
    if (node !== undefined) check(node, child, [...path, key], report);
    else if (additionalProperties === false && ++unknown <= unknownFieldsMax) {
      report([...path, key], `unknown field${suggestion(key, Object.keys(properties))}`);
    }
  }
  if (unknown > unknownFieldsMax) report(path, `has ${unknown} unknown fields`);
}

/** So many unknown fields of one mapping are told one by one; looking for what was meant is not free. */
const unknownFieldsMax = 50;
