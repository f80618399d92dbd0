import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import type { StructuralSchema } from "../schema.ts";
import { kindSchemas } from "../schemas.generated.ts";
import { checkManifests } from "./check.ts";
import { isTransition } from "./schema-check.ts";

const examples = join(dirname(fileURLToPath(import.meta.url)), "../../examples");
const read = (folder: string) =>
  readdirSync(join(examples, folder)).map((file) => ({
    file,
    text: readFileSync(join(examples, folder, file), "utf8"),
  }));
// What no object shows by itself stands apart: an API server sees one at a time.
const bad = [...read("bad"), ...read("bad-together")];

describe("examples that must be accepted", () => {
  test.each(read("good"))("$file", (source) => {
    expect(checkManifests([source], { protocols: ["postgres", "kubernetes"] }).problems).toEqual([]);
  });
});

describe("examples say the same to kubectl, which reads YAML 1.1", () => {
  test.each(read("good"))("$file", ({ text }) => {
    const documents = (version: "1.1" | "1.2") =>
      parseAllDocuments(text, { version }).map((document) =>
        "errors" in document ? document.toJS() : undefined,
      );
    expect(documents("1.1")).toEqual(documents("1.2"));
  });
});

describe("examples that must be refused, at the field that is wrong", () => {
  test.each(bad)("$file", (source) => {
    const [, path, message] = /^# expect: ([^ ]*): (.+)$/m.exec(source.text) ?? [];
    expect(message).toBeDefined();
    const errors = checkManifests([source]).problems.filter(({ severity }) => severity === "error");
    expect(errors).toContainEqual(
      expect.objectContaining({ path, file: source.file, message: expect.stringContaining(message ?? "?") }),
    );
  });

  test("every CEL rule of every kind refuses one of them", () => {
    const seen = new Set(
      bad.flatMap((source) => checkManifests([source]).problems).map(({ message }) => message),
    );
    const unseen: string[] = [];
    const visit = (node: StructuralSchema): void => {
      for (const rule of node["x-kubernetes-validations"] ?? []) {
        if (!isTransition(rule) && !seen.has(rule.message)) unseen.push(rule.message);
      }
      for (const child of Object.values(node.properties ?? {})) visit(child);
      if (node.items) visit(node.items);
    };
    for (const { schema } of Object.values(kindSchemas)) visit(schema);
    expect([...new Set(unseen)]).toEqual([]);
  });
});
