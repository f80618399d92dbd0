/**
 * CRD schemas to TypeScript: every object with a `title` becomes an interface of that name. A field with a default is
 * never optional, because documents are read with defaults applied.
 */
import type { StructuralSchema } from "../schema.ts";
import type { CrdFile } from "./crd-file.ts";

/** Writes the module `types.generated.ts`. */
export function typesModule(crds: readonly CrdFile[]): string {
  const interfaces = new Map<string, string>();
  const kinds = crds.map((crd) => kindInterface(crd, interfaces));
  const names = crds.map(({ kind }) => kind);
  return [
    "// Generated from crds/*.yaml by `make generate`. Do not edit.",
    META,
    ...kinds,
    ...[...interfaces].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, text]) => text),
    "/** Any object of the group sallyport.dev. */",
    `export type SallyportObject = ${names.join(" | ")};`,
    "",
  ].join("\n");
}

const META = `
/** The parts of Kubernetes metadata that are read here. */
export interface ObjectMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly generation?: number;
  readonly resourceVersion?: string;
  readonly uid?: string;
}
`;

function kindInterface({ kind, schema }: CrdFile, interfaces: Map<string, string>): string {
  const spec = typeOf(property(schema, "spec"), interfaces);
  const status = typeOf(property(schema, "status"), interfaces);
  return [
    `/** ${schema.description} */`,
    `export interface ${kind} {`,
    `  readonly apiVersion: "sallyport.dev/v1alpha1";`,
    `  readonly kind: "${kind}";`,
    "  readonly metadata: ObjectMeta;",
    `  readonly spec: ${spec};`,
    `  readonly status?: ${status};`,
    "}",
    "",
  ].join("\n");
}

function property(schema: StructuralSchema, name: string): StructuralSchema {
  const found = schema.properties?.[name];
  if (found === undefined) throw new Error(`the schema has no ${name}`);
  return found;
}

function typeOf(schema: StructuralSchema, interfaces: Map<string, string>): string {
  if (schema["x-kubernetes-int-or-string"] === true) return "number | string";
  if (schema.enum !== undefined) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  switch (schema.type) {
    case "string":
    case "boolean":
      return schema.type;
    case "integer":
    case "number":
      return "number";
    case "array": {
      const items = typeOf(schema.items ?? {}, interfaces);
      return `readonly ${items.includes(" ") ? `(${items})` : items}[]`;
    }
    case "object":
      return objectType(schema, interfaces);
    default:
      throw new Error(`a field needs a type: ${schema.description}`);
  }
}

function objectType(schema: StructuralSchema, interfaces: Map<string, string>): string {
  if (schema.additionalProperties) {
    return `Readonly<Record<string, ${typeOf(schema.additionalProperties, interfaces)}>>`;
  }
  if (schema.title === undefined) throw new Error(`an object needs a title: ${schema.description}`);
  const text = interfaceText(schema.title, schema, interfaces);
  const known = interfaces.get(schema.title);
  // The same title in two places must mean the same shape; only what is said of it may differ.
  if (known !== undefined && body(known) !== body(text)) throw new Error(`two shapes share ${schema.title}`);
  if (known === undefined) interfaces.set(schema.title, text);
  return schema.title;
}

const body = (text: string): string => text.slice(text.indexOf("export interface"));

function interfaceText(name: string, schema: StructuralSchema, interfaces: Map<string, string>): string {
  const fields = Object.entries(schema.properties ?? {}).flatMap(([key, value]) => {
    const present = value.default !== undefined || schema.required?.includes(key) === true;
    const type = typeOf(value, interfaces);
    return [...comment(value.description ?? "", "  "), `  readonly ${key}${present ? "" : "?"}: ${type};`];
  });
  if (schema["x-kubernetes-preserve-unknown-fields"] === true)
    fields.push("  readonly [key: string]: unknown;");
  return [...comment(schema.description ?? ""), `export interface ${name} {`, ...fields, "}", ""].join("\n");
}

function comment(text: string, indent = ""): readonly string[] {
  const safe = text.replaceAll("*/", "*\\/");
  if (safe.length + indent.length < 104) return [`${indent}/** ${safe} */`];
  const lines: string[] = [];
  for (const word of safe.split(" ")) {
    const last = lines.at(-1);
    if (last === undefined || last.length + word.length > 100) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return [`${indent}/**`, ...lines.map((line) => `${indent} * ${line}`), `${indent} */`];
}
