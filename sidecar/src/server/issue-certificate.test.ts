import { createPrivateKey, X509Certificate } from "node:crypto";
import { copyFile, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { issueServingCertificate } from "./serving-certificate.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "issue-certificate-"));
});
afterEach(() => rm(folder, { recursive: true }));

const place = (name: string) => join(folder, name);
const authorityIn = async (state: string) => new X509Certificate(await readFile(join(state, "ca.pem")));
const keyIn = async (state: string) => createPrivateKey(await readFile(join(state, "ca.key")));

async function issuedIn(state: string): Promise<X509Certificate> {
  return new X509Certificate((await issueServingCertificate(state, [])).certificate);
}

test("of several gateways that start at once on a new folder all show what its authority signed", async () => {
  const state = place("state");
  const leaves = await Promise.all(Array.from({ length: 4 }, () => issuedIn(state)));
  const authority = await authorityIn(state);
  expect(leaves.map((leaf) => leaf.verify(authority.publicKey))).toEqual(leaves.map(() => true));
  expect(authority.checkPrivateKey(await keyIn(state))).toBe(true);
  expect((await readdir(state)).sort()).toEqual(["ca.key", "ca.pem"]);
  expect((await stat(join(state, "ca.key"))).mode & 0o777).toBe(0o600);
});

test("a later start keeps the authority that clients know", async () => {
  const state = place("state");
  await issuedIn(state);
  const before = await readFile(join(state, "ca.pem"), "utf8");
  const leaf = await issuedIn(state);
  expect(await readFile(join(state, "ca.pem"), "utf8")).toBe(before);
  expect(leaf.verify((await authorityIn(state)).publicKey)).toBe(true);
});

test.each([
  ["is not there", "none"],
  ["is another key's", "another"],
])(
  "a crash that left a key whose certificate %s ends with the next start, and the key stays",
  async (_, what) => {
    const [state, other] = [place("state"), place("other")];
    await issuedIn(state);
    await issuedIn(other);
    const key = await readFile(join(state, "ca.key"), "utf8");
    if (what === "none") await rm(join(state, "ca.pem"));
    else await copyFile(join(other, "ca.pem"), join(state, "ca.pem"));
    const leaf = await issuedIn(state);
    const authority = await authorityIn(state);
    expect(leaf.verify(authority.publicKey)).toBe(true);
    expect(authority.verify(authority.publicKey)).toBe(true);
    expect(await readFile(join(state, "ca.key"), "utf8")).toBe(key);
  },
);
