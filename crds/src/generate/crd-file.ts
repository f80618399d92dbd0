/** Reads the CRD files, the source of truth that everything generated comes from. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import type { StructuralSchema } from "../schema.ts";

/** What the generators and tests need of one CustomResourceDefinition. */
export interface CrdFile {
  readonly file: string;
  readonly kind: string;
  readonly plural: string;
  readonly shortNames: readonly string[];
  readonly scope: "Namespaced" | "Cluster";
  readonly schema: StructuralSchema;
}

interface CrdDocument {
  readonly spec: {
    readonly scope: "Namespaced" | "Cluster";
    readonly names: {
      readonly kind: string;
      readonly plural: string;
      readonly shortNames: readonly string[];
    };
    readonly versions: readonly { readonly schema: { readonly openAPIV3Schema: StructuralSchema } }[];
  };
}

/** Reads every CRD of a folder, in the order of their file names. */
export function readCrdFiles(folder: string): readonly CrdFile[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(".yaml"))
    .sort()
    .map((name) => crdFrom(name, parse(readFileSync(join(folder, name), "utf8")) as CrdDocument));
}

function crdFrom(file: string, { spec }: CrdDocument): CrdFile {
  const version = spec.versions[0];
  if (version === undefined || spec.versions.length !== 1) {
    throw new Error(`${file}: exactly one version is expected`);
  }
  const { kind, plural, shortNames } = spec.names;
  return { file, kind, plural, shortNames, scope: spec.scope, schema: version.schema.openAPIV3Schema };
}
