/**
 * The schemas as a gateway needs them: without descriptions, closed against unknown fields (which an API server would
 * refuse under strict field validation), and with metadata spelled out.
 */
import type { KindSchema, StructuralSchema } from "../schema.ts";
import type { CrdFile } from "./crd-file.ts";

/** Writes the module `schemas.generated.ts`. */
export function schemasModule(crds: readonly CrdFile[]): string {
  const lines = crds.map((crd) => `  ${crd.kind}: ${JSON.stringify(kindSchema(crd))},`);
  return [
    "// Generated from crds/*.yaml by `make generate`. Do not edit.",
    'import type { KindSchema } from "./schema.ts";',
    "",
    "/** The kinds of the group sallyport.dev with their schemas. */",
    "export const kindSchemas: Readonly<Record<string, KindSchema>> = {",
    ...lines,
    "};",
    "",
  ].join("\n");
}

function kindSchema({ kind, scope, schema }: CrdFile): KindSchema {
  const closed = close(schema);
  return {
    scope,
    schema: {
      ...closed,
      required: ["apiVersion", "kind", "metadata", ...(schema.required ?? [])],
      properties: {
        ...closed.properties,
        apiVersion: { type: "string", const: "sallyport.dev/v1alpha1" },
        kind: { type: "string", const: kind },
        metadata: metadataSchema(scope),
      },
    },
  };
}

function close(schema: StructuralSchema): StructuralSchema {
  const { description: _, title: __, properties, items, additionalProperties, ...rest } = schema;
  const isOpen = schema["x-kubernetes-preserve-unknown-fields"] === true;
  return {
    ...rest,
    ...(properties && {
      properties: Object.fromEntries(Object.entries(properties).map(([key, value]) => [key, close(value)])),
      ...(isOpen ? {} : { additionalProperties: false }),
    }),
    ...(items && { items: close(items) }),
    ...(additionalProperties && { additionalProperties: close(additionalProperties) }),
  };
}

const text = (maxLength: number, pattern?: string): StructuralSchema => ({
  type: "string",
  maxLength,
  ...(pattern === undefined ? {} : { pattern }),
});

const DNS_NAME = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const DNS_LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/** What an API server accepts as metadata; a cluster-scoped object has no namespace. */
function metadataSchema(scope: "Namespaced" | "Cluster"): StructuralSchema {
  const anyObjects: StructuralSchema = {
    type: "array",
    maxItems: 1024,
    items: { type: "object", "x-kubernetes-preserve-unknown-fields": true },
  };
  return {
    type: "object",
    required: ["name"],
    additionalProperties: false,
    properties: {
      name: text(253, DNS_NAME),
      ...(scope === "Namespaced" ? { namespace: text(63, DNS_LABEL) } : {}),
      labels: {
        type: "object",
        maxProperties: 256,
        additionalProperties: text(63, "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"),
      },
      annotations: { type: "object", maxProperties: 256, additionalProperties: text(262144) },
      generation: { type: "integer" },
      resourceVersion: text(64),
      uid: text(64),
      selfLink: text(1024),
      generateName: text(253),
      creationTimestamp: text(64),
      deletionTimestamp: text(64),
      deletionGracePeriodSeconds: { type: "integer" },
      finalizers: { type: "array", maxItems: 64, items: text(317) },
      ownerReferences: anyObjects,
      managedFields: anyObjects,
    },
  };
}
