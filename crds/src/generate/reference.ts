/** The policy reference for users: every field of a kind with its type, bounds, default and meaning. */
import type { StructuralSchema } from "../schema.ts";
import type { CrdFile } from "./crd-file.ts";

/** Writes one page of `docs/reference/` for a kind; `example` is one of its documents. */
export function referencePage(crd: CrdFile, example: string): string {
  const { kind, scope, plural, shortNames, schema } = crd;
  const sections: string[] = [];
  for (const part of ["spec", "status"]) {
    const node = schema.properties?.[part];
    if (node !== undefined) section(part, node, sections);
  }
  return [
    `<!-- Generated from crds/${crd.file} by \`make generate\`. Do not edit. -->`,
    `# ${kind}`,
    "",
    schema.description ?? "",
    "",
    `- API: \`sallyport.dev/v1alpha1\`, ${scope === "Cluster" ? "cluster-scoped" : "namespaced"}`,
    `- kubectl: \`${[plural, ...shortNames].join("`, `")}\`, and with all others under \`sallyport\``,
    "",
    "A field marked **required** must be set; unknown fields are refused.",
    "",
    "```yaml",
    example.trim(),
    "```",
    "",
    `A *name* matches \`${DNS_NAME}\`, a *label* \`${DNS_LABEL}\`: letters in lower case, digits and dashes.`,
    "A *duration* is one or more numbers with a unit (`ms`, `s`, `m`, `h`, `d`): `90s`, `1h30m`, `30d`.",
    "",
    ...sections,
  ].join("\n");
}

/** A page of `docs/reference/` that is written by hand. */
export interface WrittenPage {
  readonly file: string;
  readonly title: string;
}

/** Writes the page that lists the kinds, and the pages beside theirs. */
export function referenceIndex(crds: readonly CrdFile[], others: readonly WrittenPage[]): string {
  return [
    "<!-- Generated from crds/*.yaml by `make generate`. Do not edit. -->",
    "# Reference",
    "",
    "The custom resources of the group `sallyport.dev`, version `v1alpha1`. A gateway that runs standalone reads the",
    "same documents from a folder.",
    "",
    "| Kind | What it says |",
    "|---|---|",
    ...crds.map(
      ({ kind, schema }) => `| [${kind}](${kind.toLowerCase()}.md) | ${cell(schema.description)} |`,
    ),
    "",
    ...(others.length === 0 ? [] : ["## Other pages", ""]),
    ...others.map(({ file, title }) => `- [${title}](${file})`),
    ...(others.length === 0 ? [] : [""]),
  ].join("\n");
}

function section(path: string, node: StructuralSchema, sections: string[]): void {
  sections.push(`## \`${path}\``, "", node.description ?? "", "");
  const bounds = boundsOf(node);
  if (bounds !== "") sections.push(`Bounds of one: ${bounds}.`, "");
  sections.push("| Field | Type | Bounds | Default | Meaning |", "|---|---|---|---|---|");
  const below: [string, StructuralSchema][] = [];
  for (const [key, value] of Object.entries(node.properties ?? {})) {
    const name = `\`${key}\`${node.required?.includes(key) === true ? " **required**" : ""}`;
    const fallback = value.default === undefined ? "" : `\`${JSON.stringify(value.default)}\``;
    const nested = nestedOf(value);
    const place = `${path}.${key}${nested?.suffix ?? ""}`;
    if (nested !== undefined) below.push([place, nested.node]);
    // GitHub's anchors keep letters and digits only.
    const type =
      nested === undefined
        ? typeName(value)
        : `[${typeName(value)}](#${place.replace(/[^a-z]/gi, "").toLowerCase()})`;
    sections.push(
      `| ${name} | ${type} | ${cell(boundsOf(value))} | ${cell(fallback)} | ${cell(value.description)} |`,
    );
  }
  if (node["x-kubernetes-preserve-unknown-fields"] === true) {
    sections.push("| any other | any | | | Read by protocols that know it. |");
  }
  sections.push("");
  const rules = node["x-kubernetes-validations"] ?? [];
  if (rules.length > 0) {
    sections.push("Refused, with this message:", "", ...rules.map(({ message }) => `- ${message}`), "");
  }
  for (const [name, child] of below) section(name, child, sections);
}

function nestedOf(
  schema: StructuralSchema,
): { readonly suffix: string; readonly node: StructuralSchema } | undefined {
  if (schema.properties !== undefined) return { suffix: "", node: schema };
  if (schema.items?.properties !== undefined) return { suffix: "[]", node: schema.items };
  return undefined;
}

function typeName(schema: StructuralSchema): string {
  if (schema["x-kubernetes-int-or-string"] === true) return "integer or string";
  if (schema.type === "array") {
    const kind = schema["x-kubernetes-list-type"] === "set" ? "set" : "list";
    return `${kind} of ${typeName(schema.items ?? {})}`;
  }
  if (schema.additionalProperties) return `map of ${typeName(schema.additionalProperties)}`;
  return schema.type ?? "any";
}

function boundsOf(schema: StructuralSchema): string {
  const { items, additionalProperties: values } = schema;
  const inner = items && items.properties === undefined ? boundsOf(items) : values ? boundsOf(values) : "";
  return [
    schema.enum && `one of ${schema.enum.map((value) => `\`${asWritten(value)}\``).join(", ")}`,
    range(schema.minimum, schema.maximum, ""),
    range(schema.minItems, schema.maxItems, " entries"),
    range(schema.minProperties, schema.maxProperties, " fields"),
    range(schema.minLength, schema.maxLength, " characters"),
    schema.format === "date-time" && "a date and time (RFC 3339)",
    schema.pattern && patternName(schema.pattern),
    uniqueBy(schema),
    inner && `each: ${inner}`,
  ]
    .filter((part) => part)
    .join("; ");
}

const DNS_LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
const DNS_NAME = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/** The patterns that occur everywhere have names; the others are shown. */
function patternName(pattern: string): string {
  if (pattern === DNS_NAME) return "a *name*";
  if (pattern === DNS_LABEL) return "a *label*";
  if (pattern.includes("(ms|s|m|h|d)"))
    return pattern.startsWith("^(0s|") ? "a *duration*" : "a *duration*, not zero";
  if (pattern.startsWith("-----BEGIN CERTIFICATE")) return "PEM certificates";
  return `matches \`${pattern}\``;
}

function uniqueBy(schema: StructuralSchema): string {
  const keys = schema["x-kubernetes-list-map-keys"];
  return keys === undefined ? "" : `unique by \`${keys.join("`, `")}\``;
}

/** Words that YAML, or the older YAML of kubectl, reads as something else are shown in the quotes that they need. */
function asWritten(value: unknown): string {
  const text = String(value);
  return typeof value === "string" && /^(y|n|yes|no|on|off|null)$/i.test(text) ? JSON.stringify(text) : text;
}

const singular = (unit: string): string => unit.replace(/ies$/, "y").replace(/s$/, "");

function range(min: number | undefined, max: number | undefined, unit: string): string {
  const [least, most] = [min ?? 0, max];
  if (most === undefined) return least === 0 ? "" : `at least ${least}${least === 1 ? singular(unit) : unit}`;
  return least === 0 ? `at most ${most}${unit}` : `${least} to ${most}${unit}`;
}

/** A pipe would end the table cell. */
const cell = (text: string | undefined): string => (text ?? "").replaceAll("|", "\\|");
