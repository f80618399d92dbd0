import { generateKeyPairSync } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { appendFile, cp, mkdir, readdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sealBlock } from "./journal-format.ts";
import { logNames } from "./log-history.ts";
import type { PublishedHead } from "./model.ts";
import { createRecorder } from "./recorder.ts";
import { listSessions } from "./sessions.ts";
import { allowedCommand, opening, recordingFolder } from "./testing.ts";
import { type Verification, verifyRecordings } from "./verify.ts";

const { privateKey, publicKey } = generateKeyPairSync("ed25519");
const limits = { flushMs: 2, signBlocks: 3 };
let place: Awaited<ReturnType<typeof recordingFolder>>;
/** What every test takes a copy of: two runs of a recorder, sessions one and two in the first, three in the second. */
let pristine: string;
/** The same by paths, since hundreds of copies are taken. */
let files: readonly (readonly [path: string, bytes: Buffer])[];
let paths: Record<string, string>;
let head: PublishedHead;

beforeAll(async () => {
  place = await recordingFolder();
  const options = { folder: place.folder, key: privateKey, limits };
  const first = await createRecorder(options);
  for (const id of ["one", "two"]) {
    const session = first.open(opening(id));
    for (let i = 0; i < 4; i++) {
      const n = session.command(allowedCommand(`SELECT ${i} -- ${id}`));
      await session.stored("Accepted");
      session.response(n, { tag: "SELECT 1", rows: 1, bytes: 4, ms: 0.5 });
    }
    await session.close("done");
  }
  await first.close();
  const second = await createRecorder(options);
  await second.open(opening("three")).close("done");
  await second.close();
  const logs = await logNames(place.folder);
  paths = Object.fromEntries(
    (await listSessions(place.folder)).map(({ sessionId, path }) => [sessionId, path]),
  );
  logs.forEach((name, index) => {
    paths[`log${index + 1}`] = `log/${name}.journal`;
  });
  pristine = await place.copy();
  const entries = await readdir(pristine, { recursive: true, withFileTypes: true });
  files = await Promise.all(
    entries
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => join(parentPath, name))
      .map(async (path) => [relative(pristine, path), await readFile(path)] as const),
  );
  const verification = await verifyRecordings(pristine, publicKey);
  expect(verification.ok).toBe(true);
  head = verification.head as PublishedHead;
});

afterAll(() => place.remove());

/** Verifies a copy after something was done to it, and says what each session and the log came to. */
async function after(
  tamper: (folder: string) => Promise<unknown>,
  options: { readonly key?: typeof publicKey; readonly expectedHead?: PublishedHead } = {},
): Promise<Record<string, string> & { readonly ok: string }> {
  const folder = join(dirname(pristine), "tampered");
  rmSync(folder, { recursive: true, force: true });
  for (const [path, bytes] of files) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), bytes);
  }
  await tamper(folder);
  return found(await verifyRecordings(folder, options.key ?? publicKey, options));
}

function found({ ok, log, sessions }: Verification): Record<string, string> & { readonly ok: string } {
  const statuses = Object.fromEntries(sessions.map(({ sessionId, status }) => [sessionId, status]));
  return { ok: String(ok), log: log.status, ...statuses };
}

const edit = (folder: string, name: string, change: (text: Buffer) => Buffer | string) =>
  readFile(join(folder, paths[name] as string)).then((bytes) =>
    writeFile(join(folder, paths[name] as string), change(bytes)),
  );

const all = { ok: "true", log: "ok", one: "ok", two: "ok", three: "ok" };
const anyFile = fc.constantFrom("one", "two", "three", "log1", "log2");
const where = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });

test("a byte changed anywhere is found as a change, or as a cut where it undoes the last block", async () => {
  const change = fc.integer({ min: 1, max: 255 });
  await fc.assert(
    fc.asyncProperty(anyFile, where, change, async (name, at, mask) => {
      const result = await after((folder) =>
        edit(folder, name, (bytes) => {
          const index = Math.floor(at * bytes.length);
          bytes[index] = (bytes[index] as number) ^ mask;
          return bytes;
        }),
      );
      expect(result.ok).toBe("false");
      if (!name.startsWith("log")) expect(result).toEqual({ ...all, ok: "false", [name]: "changed" });
    }),
    { numRuns: 100 },
  );
});

test("every byte of the signed last block counts", async () => {
  const bytes = await readFile(join(pristine, paths.three as string));
  const start = bytes.lastIndexOf('{"chain"');
  for (let index = start; index < bytes.length; index += 7) {
    const result = await after((folder) =>
      edit(folder, "three", (copy) => {
        copy[index] = (copy[index] as number) ^ 1;
        return copy;
      }),
    );
    expect(result.three).toBe("changed");
  }
});

test("a closed session truncated at any byte is cut", async () => {
  await fc.assert(
    fc.asyncProperty(fc.constantFrom("one", "two", "three"), where, async (name, at) => {
      const result = await after(async (folder) => {
        const path = join(folder, paths[name] as string);
        await truncate(path, Math.floor(at * (await readFile(path)).length));
      });
      expect(result).toEqual({ ...all, ok: "false", [name]: "cut" });
    }),
    { numRuns: 60 },
  );
});

test("a truncated log is found, the newest one by its published head or by what sessions say of it", async () => {
  await fc.assert(
    fc.asyncProperty(fc.constantFrom("log1", "log2"), where, async (name, at) => {
      const cut = async (folder: string) => {
        const path = join(folder, paths[name] as string);
        await truncate(path, Math.floor(at * (await readFile(path)).length));
      };
      const result = await after(cut, { expectedHead: head });
      expect(result.ok).toBe("false");
      if (name === "log1") expect(result.log).toBe("cut");
    }),
    { numRuns: 50 },
  );
});

test("a log cut below what a signed session says of it is cut, without any head from elsewhere", async () => {
  const result = await after(async (folder) => {
    const path = join(folder, paths.log2 as string);
    await truncate(path, 0);
  });
  expect(result).toMatchObject({ ok: "false", log: "cut" });
});

test("a log of someone else's making leads no reader out of the folder", async () => {
  const folder = await place.copy();
  const name = "log-00000001-1";
  await rm(join(folder, "log"), { recursive: true });
  await mkdir(join(folder, "log"));
  const lines = ["../../etc/passwd", "sessions/../../2026-01-01/x.journal", "/etc/passwd"].map((path) =>
    JSON.stringify({ kind: "opened", at: 1, session: "x", path }),
  );
  const text = `${[...lines, "no json"].join("\n")}\n`;
  const start = { journal: `log:${name}`, number: 0, previous: "0".repeat(64) };
  const previousLine = `sallyport journal v1 log:${name}\n`;
  const { bytes } = sealBlock({
    ...start,
    records: 4,
    lines: text.replace("no json", '{"kind":"x"}'),
    previousLine,
  });
  await writeFile(join(folder, "log", `${name}.journal`), bytes);
  expect(await listSessions(folder)).toEqual([]);
});

test("a removed session is missing, and a removed log is noticed", async () => {
  for (const name of ["one", "two", "three"]) {
    const result = await after((folder) => rm(join(folder, paths[name] as string)));
    expect(result).toEqual({ ...all, ok: "false", [name]: "missing" });
  }
  expect((await after((folder) => rm(join(folder, paths.log1 as string)))).log).toBe("missing");
  const withoutLast = await after((folder) => rm(join(folder, paths.log2 as string)));
  expect(withoutLast).toMatchObject({ ok: "false", three: "changed" });
  expect((await after((folder) => rm(join(folder, "log"), { recursive: true }))).log).toBe("missing");
});

test("the newest session removed together with its log is found by a head kept elsewhere", async () => {
  const remove = async (folder: string) => {
    await rm(join(folder, paths.three as string));
    await rm(join(folder, paths.log2 as string));
  };
  expect((await after(remove)).ok).toBe("true"); // which is why heads are published
  expect(await after(remove, { expectedHead: head })).toMatchObject({ ok: "false", log: "cut" });
  const other = { ...head, hash: "0".repeat(64) };
  expect((await after(async () => undefined, { expectedHead: other })).log).toBe("changed");
  expect(await after(async () => undefined, { expectedHead: head })).toEqual(all);
});

test("lines reordered, dropped or doubled, and blocks of another session, are changes", async () => {
  const lines = (change: (lines: string[]) => string[]) => (bytes: Buffer) =>
    `${change(bytes.toString().trimEnd().split("\n")).join("\n")}\n`;
  const tricks: ((lines: string[]) => string[])[] = [
    (l) => [l[1]!, l[0]!, ...l.slice(2)],
    (l) => [...l.slice(0, 2), ...l.slice(3)],
    (l) => [l[0]!, l[0]!, ...l.slice(1)],
    (l) => [...l, l[0]!],
    (l) => [...l, l.at(-1)!],
    (l) => l.filter((line) => !line.includes("SELECT 2")),
  ];
  for (const trick of tricks) {
    expect((await after((folder) => edit(folder, "one", lines(trick)))).one).toBe("changed");
  }
  const two = (await readFile(join(pristine, paths.two as string), "utf8")).split("\n");
  const splice = lines((l) => [...two.slice(0, 3), ...l.slice(3)]);
  expect((await after((folder) => edit(folder, "one", splice))).one).toBe("changed");
  const swap = async (folder: string) => {
    await rename(join(folder, paths.one as string), join(folder, "x"));
    await rename(join(folder, paths.two as string), join(folder, paths.one as string));
    await rename(join(folder, "x"), join(folder, paths.two as string));
  };
  expect(await after(swap)).toMatchObject({ one: "changed", two: "changed", three: "ok" });
});

test("a chain computed anew without the key is a change", async () => {
  const forge = (bytes: Buffer, key?: typeof privateKey) => {
    const lines = bytes
      .toString()
      .split("\n")
      .filter((line) => line && !line.startsWith('{"chain"'));
    const text = `${lines.join("\n").replaceAll("SELECT 1", "SELECT 9")}\n`;
    const journal = "session:one";
    const chain = { journal, number: 0, records: lines.length, previous: "0".repeat(64), final: true };
    return sealBlock({ ...chain, lines: text, previousLine: `sallyport journal v1 ${journal}\n`, key }).bytes;
  };
  expect((await after((folder) => edit(folder, "one", (b) => forge(b)))).one).toBe("changed");
  const other = generateKeyPairSync("ed25519");
  expect((await after((folder) => edit(folder, "one", (b) => forge(b, other.privateKey)))).one).toBe(
    "changed",
  );
  // Even who has the key does not get past the log.
  expect((await after((folder) => edit(folder, "one", (b) => forge(b, privateKey)))).one).toBe("changed");
  expect((await after(async () => undefined, { key: other.publicKey })).ok).toBe("false");
});

test("a session that no log knows is a change, and so is anything after a closing", async () => {
  const planted = "sessions/shop/orders-db/2026-01-01/planted.journal";
  const plant = async (folder: string) => {
    await mkdir(dirname(join(folder, planted)), { recursive: true });
    await cp(join(folder, paths.one as string), join(folder, planted));
  };
  expect(await after(plant)).toMatchObject({ ok: "false", planted: "changed", one: "ok" });
  const append = (text: string) => (folder: string) => appendFile(join(folder, paths.one as string), text);
  expect((await after(append("x"))).one).toBe("changed");
  expect((await after(append('{"kind":"event","name":"x"}\n'))).one).toBe("changed");
});

test("garbage instead of a journal is a finding, and never an exception", async () => {
  await fc.assert(
    fc.asyncProperty(anyFile, fc.uint8Array({ maxLength: 200 }), async (name, bytes) => {
      const result = await after((folder) => edit(folder, name, () => Buffer.from(bytes)), {
        expectedHead: head,
      });
      expect(result.ok).toBe("false");
    }),
    { numRuns: 60 },
  );
});
