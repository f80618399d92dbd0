import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { hasErrors } from "./check.ts";
import { loadManifests } from "./load.ts";
import { audienceOf, documentsOf } from "./loaded.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "sallyport-manifests-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const namespace = (name: string): string => `apiVersion: v1\nkind: Namespace\nmetadata: {name: ${name}}\n`;
const write = (path: string, text: string): void => {
  mkdirSync(join(folder, path, ".."), { recursive: true });
  writeFileSync(join(folder, path), text);
};
const names = async (from: string | readonly string[] = folder) =>
  (await loadManifests(from)).documents.map(({ object }) => object.metadata.name);

test("a folder is read with the folders below it, in the order of the names", async () => {
  write("b.yaml", namespace("b"));
  write("a/z.yml", namespace("a"));
  write("c.json", JSON.stringify({ apiVersion: "v1", kind: "Namespace", metadata: { name: "c" } }));
  expect(await names()).toEqual(["a", "b", "c"]);
});

test("secrets, hidden names and other files are not read", async () => {
  write("a.yaml", namespace("a"));
  write("secrets/db/password.yaml", "hunter2: [");
  write(".git/x.yaml", "[");
  write("notes.md", "[");
  const { documents, problems } = await loadManifests(folder);
  expect(documents).toHaveLength(1);
  expect(problems).toEqual([]);
});

test("a file that is named is read whatever its name, and several are one set", async () => {
  write("one", namespace("one"));
  write("two.yaml", namespace("one"));
  expect(await names(join(folder, "one"))).toEqual(["one"]);
  const both = await loadManifests([join(folder, "one"), join(folder, "two.yaml")]);
  expect(both.problems.map(({ message }) => message)).toEqual([
    `Namespace one is there already, at ${join(folder, "one")}:3`,
  ]);
});

test("what is missing, empty, too large or a loop is a problem and no crash", async () => {
  expect(hasErrors(await loadManifests(join(folder, "gone")))).toBe(true);
  expect((await loadManifests(folder)).problems[0]?.message).toContain("holds no manifests");
  write("large.yaml", "");
  truncateSync(join(folder, "large.yaml"), 5 * 1024 * 1024);
  write("nothing.yaml", "");
  symlinkSync(folder, join(folder, "loop"));
  symlinkSync(join(folder, "nowhere"), join(folder, "dangling.yaml"));
  const messages = (await loadManifests(folder)).problems
    .map(({ file, message }) => `${file}: ${message}`)
    .join("\n");
  expect(messages).toContain("is larger than");
  expect(messages).toContain(`${join(folder, "nothing.yaml")}: is empty`);
  expect(messages).toContain("nested deeper");
  expect(messages).toContain("ENOENT");
});

test("files linked as Kubernetes mounts a ConfigMap are read once", async () => {
  write("..2026/a.yaml", namespace("a"));
  symlinkSync("..2026", join(folder, "..data"));
  symlinkSync("..data/a.yaml", join(folder, "a.yaml"));
  expect(await names()).toEqual(["a"]);
});

test("tokens for a resource are for it alone, unless it names an audience", async () => {
  const resource = (name: string, identity: string): string => `---
apiVersion: sallyport.dev/v1alpha1
kind: ProtectedResource
metadata: {name: ${name}, namespace: shop}
spec:
  protocol: postgres
  endpoint: {host: db, port: 5432}
  credentials: [{name: default, secretRef: {name: db}}]
  identity: ${identity}
`;
  write("a.yaml", resource("one", "{}") + resource("two", "{audience: two.example.com}"));
  const { documents } = await loadManifests(folder);
  const audiences = documentsOf(documents, "ProtectedResource").map(({ object }) => audienceOf(object));
  expect(audiences).toEqual(["sallyport:shop/one", "two.example.com"]);
});
