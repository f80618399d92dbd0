import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { billOfMaterials } from "./bill-of-materials.ts";

const root = join(import.meta.dirname, "../..");
let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sallyport-bill-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** The bundle that all scenarios of this run use. */
const bundle = dirname(process.env.SALLYPORT_PROGRAM ?? "");
const billOf = (dist: string, node?: string) =>
  billOfMaterials({
    ...{ name: "localhost/sallyport:dev", programs: ["sallyport.mjs"], dist },
    ...(node !== undefined && { node }),
  });

test("each package of the bundle stands in it once, with version, licence and hash, and none that only builds or tests", async () => {
  const { components } = await billOf(bundle, "24.1.2");
  const names = components.map(({ name }) => name);
  expect(names).toEqual(
    expect.arrayContaining(["node", "pino", "jose", "ssh2", "yaml", "libpg-query", "asciinema-player"]),
  );
  for (const absent of ["vitest", "esbuild", "typescript", "pg", "tsx"]) expect(names).not.toContain(absent);
  expect(new Set(components.map(({ purl }) => purl)).size).toBe(components.length);
  for (const { type, name, version, licenses, hashes } of components) {
    if (type === "platform") continue;
    const manifest = JSON.parse(await readFile(join(root, "node_modules", name, "package.json"), "utf8"));
    // Another version may lie deeper, for one package that wants it.
    if (names.filter((one) => one === name).length === 1)
      expect([name, version]).toEqual([name, manifest.version]);
    expect(licenses?.[0]?.expression, name).toMatch(/\w/);
    expect(hashes?.[0]?.content, name).toMatch(/^[0-9a-f]{128}$/);
  }
});

test("every licence that is written beside the bundle is of a package that is in it", async () => {
  const { components } = await billOf(bundle);
  const names = new Set(components.map(({ name }) => name));
  const texts = (await readdir(join(bundle, "parts"))).filter((name) => name.endsWith(".LEGAL.txt"));
  expect(texts.length).toBeGreaterThan(0);
  for (const file of texts) {
    const text = await readFile(join(bundle, "parts", file), "utf8");
    for (const [, name] of text.matchAll(/^(\S+)\/[\w.\-/]+\.[cm]?js:$/gm)) {
      const [first = "", second = ""] = (name ?? "").split("/");
      expect(names).toContain(first.startsWith("@") ? `${first}/${second}` : first);
    }
  }
});

test("a package that the lock file does not know is an error, and not left out", async () => {
  await mkdir(join(folder, "parts"));
  const source = join(root, "node_modules/of-nowhere/index.js");
  await writeFile(join(folder, "sallyport.mjs.map"), JSON.stringify({ sources: [relative(folder, source)] }));
  await expect(billOf(folder)).rejects.toThrow("node_modules/of-nowhere is in the bundle");
});
