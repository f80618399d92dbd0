/**
 * The rules that an API server holds a CustomResourceDefinition's schema to, and our own: everything is described and
 * bounded. See https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
 */
import type { StructuralSchema } from "../schema.ts";

const FORBIDDEN = [
  "$ref",
  "definitions",
  "dependencies",
  "deprecated",
  "discriminator",
  "id",
  "oneOf",
  "anyOf",
  "allOf",
  "not",
  "patternProperties",
  "readOnly",
  "uniqueItems",
  "writeOnly",
  "xml",
];

/** As `durationMs` reads it, and where none at all is a choice. */
const duration = "[1-9][0-9]{0,5}(ms|s|m|h|d)([0-9]{1,6}(ms|s|m|h|d)){0,4}";
const durationPatterns: readonly unknown[] = [`^${duration}$`, `^(0s|${duration})$`];

/** Says everything about a schema that an API server or we would not accept, each with its path. */
export function structuralFaults(schema: StructuralSchema): readonly string[] {
  const faults: string[] = [];
  for (const part of ["spec", "status"]) {
    const node = schema.properties?.[part];
    if (node === undefined) faults.push(`${part}: is missing`);
    else walk(node, part, faults);
  }
  return faults;
}

function walk(node: StructuralSchema, path: string, faults: string[]): void {
  const fault = (text: string): unknown => faults.push(`${path}: ${text}`);
  if (!node.description) fault("has no description");
  if (node.type === undefined && node["x-kubernetes-int-or-string"] !== true) fault("has no type");
  for (const key of FORBIDDEN) if (key in node) fault(`${key} is not structural`);
  if (node.properties && node.additionalProperties !== undefined) {
    fault("properties and additionalProperties exclude each other");
  }
  for (const key of node.required ?? []) {
    if (node.properties?.[key] === undefined) fault(`requires ${key}, which is not a property`);
  }
  if (node.type === "object" && !node.properties && !node.additionalProperties) fault("has no fields");
  if (node.type === "string" && node.enum === undefined && node.maxLength === undefined)
    fault("has no maxLength");
  if (node.type === "array") listFaults(node, fault);
  // Floats are read differently by every language, and things with fields are lists by their name.
  if (node.type === "number") fault("is a float");
  const values = node.additionalProperties;
  if (values && "properties" in values) fault("is a map of objects");
  if (/\bduration such as\b/.test(node.description ?? "") && !durationPatterns.includes(node.pattern))
    fault("is a duration with another pattern than the others");
  if (node.additionalProperties && node.maxProperties === undefined) fault("has no maxProperties");
  if (node.type === "integer" && (node.minimum === undefined || !Number.isSafeInteger(node.maximum ?? 0))) {
    fault("has no minimum, or a maximum that JSON cannot carry");
  }
  for (const { rule, message, fieldPath } of node["x-kubernetes-validations"] ?? []) {
    if (message.includes("\n") || message === "") fault("a rule's message is one line");
    if (rule.length > 1024) fault("a rule is longer than 1024 characters");
    const field = fieldPath?.slice(1);
    if (field !== undefined && node.properties?.[field] === undefined)
      fault(`fieldPath .${field} is no field`);
  }
  for (const [key, value] of Object.entries(node.properties ?? {})) walk(value, `${path}.${key}`, faults);
  if (node.items) walk(node.items, `${path}[]`, faults);
  if (node.additionalProperties) walk(node.additionalProperties, `${path}{}`, faults);
}

function listFaults(node: StructuralSchema, fault: (text: string) => unknown): void {
  const { items } = node;
  const kind = node["x-kubernetes-list-type"];
  if (items === undefined) fault("has no items");
  if (node.maxItems === undefined) fault("has no maxItems");
  if (kind === undefined) fault("has no list type");
  if (kind === "set" && items?.properties !== undefined) fault("a set holds scalars");
  const keys = node["x-kubernetes-list-map-keys"] ?? [];
  if ((kind === "map") !== keys.length > 0) fault("list-map-keys go with list type map");
  for (const key of keys) {
    const isSet = items?.required?.includes(key) || items?.properties?.[key]?.default !== undefined;
    if (!isSet) fault(`the list's key ${key} is neither required nor defaulted`);
  }
}
