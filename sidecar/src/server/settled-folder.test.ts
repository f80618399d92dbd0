import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { loadManifestSet } from "./manifest-set.ts";
import { folderFingerprint, lookAt, manifestsFingerprint, readEarly, readSettled } from "./settled-folder.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "sallyport-settled-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const policy = (name: string, action: string) => `---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: ${name}}
spec:
  resources: {selector: {}}
  subjects: [{kind: Human}]
  rules: [{name: orders, match: {objects: [public.orders]}, action: ${action}}]
`;
const allow = policy("staff", "Allow");
const deny = policy("closed", "Deny");

/** Writes as `cp` and editors do: the file is emptied, then filled piece by piece. */
function inPlace(name: string, ...pieces: readonly string[]): (() => void)[] {
  const path = join(folder, name);
  return [() => writeFileSync(path, ""), ...pieces.map((piece) => () => appendFileSync(path, piece))];
}

/** Reads the policies while somebody takes one step of theirs in each of the pauses, or while it reads. */
async function policiesRead(during: { pauses?: (() => void)[]; reads?: (() => void)[]; atOnce?: number }) {
  const fingerprint = () => manifestsFingerprint(folder);
  const first = await lookAt(fingerprint);
  const pauses = [...(during.pauses ?? [])];
  const reads = [...(during.reads ?? [])];
  for (const step of pauses.splice(0, during.atOnce ?? 0)) step();
  const seen: string[][] = [];
  const { value } = await readSettled({
    first,
    fingerprint,
    pause: async () => pauses.shift()?.(),
    read: async () => {
      const loaded = await loadManifestSet(folder, undefined);
      reads.shift()?.();
      const names = loaded.kind === "loaded" ? loaded.set.policies.policies.map(({ name }) => name) : [];
      seen.push(names.toSorted());
      return names.toSorted();
    },
  });
  return { policies: value, reads: seen.length };
}

test("a policy file that is written in place is never read half", async () => {
  writeFileSync(join(folder, "policies.yaml"), allow + deny);
  const steps = () => inPlace("policies.yaml", allow, deny);
  const both = ["closed", "staff"];
  for (const atOnce of [0, 1, 2, 3]) {
    expect(await policiesRead({ pauses: steps(), atOnce })).toEqual({ policies: both, reads: 1 });
  }
});

test("what changed while it was read is read again", async () => {
  writeFileSync(join(folder, "policies.yaml"), allow);
  const found = await policiesRead({ reads: inPlace("policies.yaml", allow, deny) });
  expect(found).toEqual({ policies: ["closed", "staff"], reads: 4 });
});

test("a file that an editor moves aside before it writes the new one is not taken for removed", async () => {
  writeFileSync(join(folder, "allow.yaml"), allow);
  writeFileSync(join(folder, "deny.yaml"), deny);
  const aside = () => renameSync(join(folder, "deny.yaml"), join(folder, "deny.yaml~"));
  const found = await policiesRead({ pauses: [aside, () => writeFileSync(join(folder, "deny.yaml"), deny)] });
  expect(found).toEqual({ policies: ["closed", "staff"], reads: 1 });
});

test("nothing is read before two looks are far enough apart for a pause within one write", async () => {
  const look = await lookAt(() => Promise.resolve("same"));
  const read = () => Promise.resolve(performance.now());
  const { value } = await readSettled({ first: look, fingerprint: () => Promise.resolve("same"), read });
  // Timers run by a clock that is read once a turn, and may be some milliseconds early.
  expect(value - look.atMs).toBeGreaterThanOrEqual(190);
});

test("what was read early, between two looks that saw the same, is not read again", async () => {
  const first = await lookAt(() => Promise.resolve("same"));
  const early = readEarly(() => Promise.resolve(performance.now()));
  const read = () => Promise.reject(new Error("it was read"));
  const { value } = await readSettled({ first, early, fingerprint: () => Promise.resolve("same"), read });
  const settledMs = performance.now() - first.atMs;
  // A file system's clock may have stood still since the look; timers may be some milliseconds early.
  expect(value - first.atMs).toBeGreaterThanOrEqual(10);
  expect(settledMs).toBeGreaterThanOrEqual(190);
});

test("what was read early of a file that is written in place does not count", async () => {
  const policies = join(folder, "policies.yaml");
  for (const written of [1, 2]) {
    writeFileSync(policies, allow + deny);
    const steps = inPlace("policies.yaml", allow, deny);
    const fingerprint = () => manifestsFingerprint(folder);
    const first = await lookAt(fingerprint);
    for (const step of steps.splice(0, written)) step();
    const names = async () => {
      const loaded = await loadManifestSet(folder, undefined);
      return loaded.kind === "loaded" ? loaded.set.policies.policies.map(({ name }) => name).toSorted() : [];
    };
    const early = names();
    expect(await early).not.toContain("closed");
    const pause = async () => {
      for (const step of steps.splice(0)) step();
    };
    const { value } = await readSettled({ first, early, fingerprint, read: names, pause });
    expect(value).toEqual(["closed", "staff"]);
  }
});

test("reading early may fail while somebody writes, and is an error where nobody does", async () => {
  const options = {
    first: await lookAt(() => Promise.resolve("before")),
    early: readEarly(() => Promise.reject<string>(new Error("half a file"))),
    read: () => Promise.resolve("all of it"),
    pause: () => Promise.resolve(),
  };
  const writing = await readSettled({ ...options, fingerprint: () => Promise.resolve("after") });
  expect(writing).toEqual({ value: "all of it", fingerprint: "after" });
  const broken = readSettled({ ...options, fingerprint: () => Promise.resolve("before") });
  await expect(broken).rejects.toThrow("half a file");
});

test("who never stops writing gets an error, and nothing of what is there is read", async () => {
  let writes = 0;
  const fingerprint = () => Promise.resolve(`${writes++}`);
  const read = () => Promise.reject(new Error("it was read"));
  const look = await lookAt(fingerprint);
  const pauses: number[] = [];
  const pause = async (ms: number) => void pauses.push(ms);
  await expect(readSettled({ first: look, fingerprint, read, pause })).rejects.toThrow("goes on writing");
  expect(pauses).toHaveLength(10);
});

test("waiting ends when the gateway stops", async () => {
  const look = await lookAt(() => Promise.resolve("same"));
  const read = () => Promise.reject(new Error("it was read"));
  const waiting = readSettled({
    ...{ first: look, fingerprint: () => Promise.resolve("same"), read },
    signal: AbortSignal.abort(),
  });
  await expect(waiting).rejects.toThrow("aborted");
});

test("a fingerprint is of the files that are read and of no others", async () => {
  const changes = async (path: string, of: (folder: string) => Promise<string>) => {
    mkdirSync(join(folder, path, ".."), { recursive: true });
    const before = await of(folder);
    appendFileSync(join(folder, path), "x");
    return (await of(folder)) !== before;
  };
  const deep = `${Array.from({ length: 12 }, (_, depth) => `below${depth}`).join("/")}/a.yml`;
  for (const path of ["a.yaml", "a.json", deep]) expect(await changes(path, manifestsFingerprint)).toBe(true);
  for (const path of ["gateway.log", ".a.yaml.swp", "secrets/shop/ca.json"]) {
    expect(await changes(path, manifestsFingerprint)).toBe(false);
    expect(await changes(path, folderFingerprint)).toBe(true);
  }
});

test("a copy of the same size that keeps the old time is a change", async () => {
  const path = join(folder, "a.yaml");
  writeFileSync(path, allow);
  utimesSync(path, 1, 1);
  const before = await manifestsFingerprint(folder);
  // A file system's clock may stand still for some milliseconds.
  await vi.waitFor(
    async () => {
      writeFileSync(path, allow.replace("Allow", "Never"));
      utimesSync(path, 1, 1);
      expect(await manifestsFingerprint(folder)).not.toBe(before);
    },
    { timeout: 20_000 },
  );
});
