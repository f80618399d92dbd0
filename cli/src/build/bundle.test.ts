import { execFile } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { transform } from "esbuild";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testdata } from "../testing.ts";
import { writeBundle } from "./bundle.ts";

const run = promisify(execFile);
let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sallyport-bundle-"));
  await writeBundle(folder);
});
afterAll(() => rm(folder, { recursive: true }));

/** Runs the bundle from a folder that has no node_modules above it. */
const bundle = (...argv: readonly string[]) =>
  run(process.execPath, ["--enable-source-maps", join(folder, "sallyport.mjs"), ...argv], { cwd: folder });

test("the bundle parses SQL with the WebAssembly beside it", async () => {
  const { stdout, stderr } = await bundle("policy", "test", join(testdata, "cases.yaml"));
  expect(stdout).toContain("5 passed, 0 failed");
  expect(stderr).toBe("");
});

test("the bundle checks manifests, keys and certificates as the sources do", async () => {
  expect((await bundle("validate", join(testdata, "manifests"))).stdout).toContain("0 errors");
  await bundle("token", "--new-key", "ci.key");
  const { stdout } = await bundle("token", "--key", "ci.key", "--user", "alice", "--resource", "demo/shop");
  expect(stdout.split(".")).toHaveLength(3);
});

test("the bundle is kept in memory at one byte a character", async () => {
  const names = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith(".mjs"));
  expect(names).toContain("sallyport.mjs");
  const texts = await Promise.all(names.map((name) => readFile(join(folder, name), "latin1")));
  expect(texts.filter((text) => /[\u0080-\uffff]/.test(text))).toEqual([]);
});

test("every part can be loaded: nothing in it is declared twice", async () => {
  const names = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith(".mjs"));
  expect(names).toContain("sallyport.mjs");
  for (const name of names) {
    const text = await readFile(join(folder, name), "utf8");
    await expect(transform(text, { format: "esm", logLevel: "silent" }), name).resolves.toBeDefined();
  }
});

test("a part of an earlier build does not stay", async () => {
  const stale = join(folder, "parts/stale.mjs");
  await writeFile(stale, "");
  await writeBundle(folder);
  await expect(readFile(stale)).rejects.toMatchObject({ code: "ENOENT" });
});

test("the bundle issues the gateway's certificate in a program of its own", async () => {
  const program = join(folder, "parts/issue-certificate.mjs");
  const { stdout } = await run(process.execPath, [program, join(folder, "state"), "localhost", "::1"]);
  const leaf = new X509Certificate(JSON.parse(stdout).certificate);
  const ca = new X509Certificate(await readFile(join(folder, "state/ca.pem")));
  expect(leaf.verify(ca.publicKey)).toBe(true);
  expect(leaf.checkHost("localhost")).toBe("localhost");
  expect(leaf.checkIP("::1")).toBe("::1");
  expect(leaf.ca).toBe(false);
});

test("the bundle holds the gateway", async () => {
  const empty = { ...process.env, SALLYPORT_MANIFESTS: join(folder, "nowhere"), SALLYPORT_STATE: folder };
  const argv = [join(folder, "sallyport.mjs"), "gateway", "--admin", "127.0.0.1:0"];
  const failed = await run(process.execPath, argv, { cwd: folder, env: empty, timeout: 50_000 }).catch(
    (error: unknown) => error,
  );
  expect(failed).toMatchObject({ code: 1, stderr: expect.stringContaining("nowhere") });
});
