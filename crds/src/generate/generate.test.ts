import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { schemaFindings } from "../manifests/schema-check.ts";
import type { StructuralSchema } from "../schema.ts";
import { readCrdFiles } from "./crd-file.ts";
import { compareOutputs } from "./outputs.ts";
import { structuralFaults } from "./structural.ts";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../../..");
const crds = readCrdFiles(join(root, "crds"));

describe("the CRD files", () => {
  test.each(crds)("$kind is structural, described and bounded", ({ schema }) => {
    expect(structuralFaults(schema)).toEqual([]);
  });

  test.each(crds)("$file says the same to kubectl, which reads YAML 1.1", ({ file }) => {
    const text = readFileSync(join(root, "crds", file), "utf8");
    expect(parse(text, { version: "1.1" })).toEqual(parse(text));
  });

  test.each(crds)("$kind has one version, which is stored and needs no conversion", ({ file }) => {
    const { spec } = parse(readFileSync(join(root, "crds", file), "utf8"));
    expect(spec.conversion).toBeUndefined();
    expect(spec.versions).toEqual([
      expect.objectContaining({ name: "v1alpha1", served: true, storage: true }),
    ]);
  });

  test("nothing is kept that no schema knows, but the options of other protocols", () => {
    const open = crds.flatMap(({ kind, file }) => {
      const text = readFileSync(join(root, "crds", file), "utf8");
      return [...text.matchAll(/x-kubernetes-preserve-unknown-fields: true/g)].map(() => kind);
    });
    expect(open).toEqual(["ProtectedResource"]);
    const options = crds.find(({ kind }) => kind === "ProtectedResource")?.schema.properties?.spec?.properties
      ?.options;
    expect(options).toMatchObject({ "x-kubernetes-preserve-unknown-fields": true, maxProperties: 64 });
  });

  test("a schema that is not structural is found out", () => {
    const faults = structuralFaults({
      properties: {
        spec: {
          type: "object",
          description: "x",
          properties: {
            open: { type: "string", description: "x" },
            list: { type: "array", description: "x", items: { type: "string", maxLength: 1 } },
            share: { type: "number", description: "x" },
            wait: {
              type: "string",
              description: "A duration such as `90s`.",
              maxLength: 9,
              pattern: "^[0-9]+s$",
            },
            things: {
              type: "object",
              description: "x",
              maxProperties: 1,
              additionalProperties: { type: "object", description: "x", properties: {} },
            },
          },
          additionalProperties: { type: "string" },
        },
        status: { type: "object", description: "x", properties: {}, required: ["gone"] },
      },
    });
    expect(faults).toEqual([
      "spec: properties and additionalProperties exclude each other",
      "spec: has no maxProperties",
      "spec.open: has no maxLength",
      "spec.list: has no maxItems",
      "spec.list: has no list type",
      "spec.list[]: has no description",
      "spec.share: is a float",
      "spec.wait: is a duration with another pattern than the others",
      "spec.things: is a map of objects",
      "spec{}: has no description",
      "spec{}: has no maxLength",
      "status: requires gone, which is not a property",
    ]);
  });

  test("ClusterAccessPolicy says what AccessPolicy says, which namespaces, and what it requires", () => {
    const spec = (kind: string) => crds.find((crd) => crd.kind === kind)?.schema.properties?.spec;
    const { namespaceSelector, requires, ...shared } = spec("ClusterAccessPolicy")?.properties ?? {};
    expect(namespaceSelector).toBeDefined();
    expect(requires).toBeDefined();
    expect(shared).toEqual(spec("AccessPolicy")?.properties);
    const rules = (kind: string) => spec(kind)?.["x-kubernetes-validations"] ?? [];
    const own = rules("ClusterAccessPolicy").filter(({ rule }) => !rule.includes("self.requires"));
    expect(rules("AccessPolicy")).toEqual(expect.arrayContaining(own));
  });

  test("every default obeys its own schema", () => {
    const wrong: string[] = [];
    const visit = (node: StructuralSchema, path: string): void => {
      if (node.enum && node.default !== undefined && !node.enum.includes(node.default)) wrong.push(path);
      if (node.pattern && typeof node.default === "string" && !new RegExp(node.pattern).test(node.default)) {
        wrong.push(path);
      }
      for (const [key, value] of Object.entries(node.properties ?? {})) visit(value, `${path}.${key}`);
      if (node.items) visit(node.items, `${path}[]`);
    };
    for (const { schema, kind } of crds) visit(schema, kind);
    expect(wrong).toEqual([]);
  });

  test("no CEL rule reads a field that a default alone brings, unless the default object holds it", () => {
    // An API server judges a default object before nested defaults are filled in.
    const visit = (node: StructuralSchema, path: string): void => {
      if (typeof node.default === "object" && !Array.isArray(node.default)) {
        for (const { rule } of node["x-kubernetes-validations"] ?? []) {
          for (const [, field = ""] of rule.matchAll(/self\.([a-zA-Z]+)/g)) {
            const guarded = rule.includes(`has(self.${field})`);
            expect(guarded || Object.hasOwn(node.default as object, field), `${path}: ${rule}`).toBe(true);
          }
        }
      }
      for (const [key, value] of Object.entries(node.properties ?? {})) visit(value, `${path}.${key}`);
      if (node.items) visit(node.items, `${path}[]`);
    };
    for (const { schema, kind } of crds) visit(schema, kind);
  });

  test("the smallest resource gets every default", () => {
    const resource = {
      apiVersion: "sallyport.dev/v1alpha1",
      kind: "ProtectedResource",
      metadata: { name: "shop" },
      spec: {
        protocol: "postgres",
        endpoint: { host: "db", port: 5432 },
        credentials: [{ name: "default", secretRef: { name: "db" } }],
      },
    };
    expect(schemaFindings("ProtectedResource", resource)).toEqual([]);
    expect(resource.spec).toMatchObject({
      enforcement: "Enforce",
      identity: { providers: [] },
      placement: { mode: "Shared" },
      recording: { mode: "Required", durability: "Accepted", content: ["commands"] },
      tls: { upstream: { mode: "verify-full" } },
      bypassProtection: { networkPolicy: "Enforce", exec: "Enforce" },
    });
  });
});

describe("generate", () => {
  let folder = "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "sallyport-generate-"));
    for (const name of readdirSync(join(root, "crds")).filter((file) => file.endsWith(".yaml"))) {
      cpSync(join(root, "crds", name), join(folder, "crds", name));
    }
    cpSync(join(root, "crds/examples/good"), join(folder, "crds/examples/good"), { recursive: true });
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const generate = (...args: readonly string[]) =>
    spawnSync(
      process.execPath,
      [join(root, "node_modules/tsx/dist/cli.mjs"), join(here, "main.ts"), "--root", folder, ...args],
      { encoding: "utf8" },
    );

  test("the committed files are what the CRD files say", () => {
    const { faults, stale, stray } = compareOutputs(root);
    expect({ faults, stale: [...stale.keys()], stray }).toEqual({ faults: [], stale: [], stray: [] });
  });

  test("--check passes after generating, and fails when anything differs", () => {
    expect(generate().status).toBe(0);
    expect(generate("--check").status).toBe(0);
    const page = join(folder, "docs/reference/accesspolicy.md");
    writeFileSync(page, `${readFileSync(page, "utf8")}edited by hand\n`);
    writeFileSync(join(folder, "docs/reference/gone.md"), "<!-- Generated from crds/gone.yaml -->\n");
    writeFileSync(join(folder, "docs/reference/mine.md"), "# Written by hand\n");
    const checked = generate("--check");
    expect(checked.status).toBe(1);
    expect(checked.stderr).toContain("docs/reference/accesspolicy.md is not what crds/ says");
    expect(checked.stderr).toContain("docs/reference/gone.md");
    expect(checked.stderr).not.toContain("mine.md");
    expect(generate().status).toBe(0);
    const index = readFileSync(join(folder, "docs/reference/README.md"), "utf8");
    expect(index).toContain("- [Written by hand](mine.md)");
    expect(index).not.toContain("- [AccessPolicy]");
    expect(readdirSync(join(folder, "docs/reference"))).toEqual([
      "README.md",
      "accesspolicy.md",
      "approval.md",
      "clusteraccesspolicy.md",
      "identityprovider.md",
      "mine.md",
      "protectedresource.md",
      "resourcegrant.md",
      "session.md",
    ]);
  });

  test("nothing is generated from a CRD that is not structural", () => {
    const file = join(folder, "crds/accesspolicies.yaml");
    const text = readFileSync(file, "utf8");
    writeFileSync(file, text.replace(/ +maxItems: 128\n/, ""));
    const result = generate();
    expect(result.status).toBe(1);
    expect(result.stderr).toContain("has no maxItems");
    expect(readdirSync(folder)).toEqual(["crds"]);
  });
});
