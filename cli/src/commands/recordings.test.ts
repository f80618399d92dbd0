import { generateKeyPairSync } from "node:crypto";
import { cp, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Verdict } from "@sallyport/policy";
import { createRecorder, type SessionOpening } from "@sallyport/sidecar";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sallyport } from "../testing.ts";

let cwd = "";

const verdict: Verdict = {
  action: "Allow",
  rule: { policy: "analysts", rule: "profile/ReadOnly", enforcement: "authoritative" },
  message: "",
  limits: {},
  audit: [],
  cacheable: true,
  enforcement: "authoritative",
};

const opening = (sessionId: string, user: string): SessionOpening => ({
  sessionId,
  namespace: "demo",
  resource: "shop",
  protocol: "postgres",
  identity: { provider: "local", user, groups: [], kind: "Human", claims: {} },
  account: "app",
  database: "shop",
  clientAddress: "192.0.2.7:51344",
  startedAt: new Date().toISOString(),
});

beforeAll(async () => {
  cwd = await mkdtemp(join(tmpdir(), "sallyport-recordings-"));
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  await writeFile(join(cwd, "key.pem"), publicKey.export({ type: "spki", format: "pem" }));
  const recorder = await createRecorder({ folder: join(cwd, "recordings"), key: privateKey });
  const alice = recorder.open(opening("s-alice", "local:alice"));
  const n = alice.command({ text: "SELECT '\u001b]0;owned\u0007\u202e'", verdict, at: Date.now() });
  alice.response(n, { tag: "SELECT 1", rows: 1, bytes: 12, ms: 3 });
  const denied = { ...verdict, action: "Deny", message: "no unbounded writes" } as const;
  alice.command({ text: "DELETE FROM orders", verdict: denied, at: Date.now() });
  await alice.close("client left");
  const eve = recorder.open(opening("s-eve", "local:\u001b[31meve\n"));
  eve.command({ text: "SELECT 2", verdict, at: Date.now() });
  await eve.close("client left");
  await recorder.close();
});
afterAll(() => rm(cwd, { recursive: true }));

/** A copy of the recordings, for a test to spoil the journal of one session. */
async function tampered(name: string, spoil: (journal: string) => Promise<void>): Promise<string> {
  await cp(join(cwd, "recordings"), join(cwd, name), { recursive: true });
  const files = await readdir(join(cwd, name), { recursive: true });
  const journal = files.find((file) => file.includes("s-alice") && file.endsWith(".journal"));
  await spoil(join(cwd, name, journal!));
  return name;
}

const verify = (folder: string, ...more: readonly string[]) =>
  sallyport(["verify", folder, "--public-key", "key.pem", ...more], { cwd });

// biome-ignore lint/suspicious/noControlCharactersInRegex: the absence of control characters is the promise
const steering = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;

describe("sallyport verify", () => {
  test("what was recorded and left alone is unchanged", async () => {
    const { code, out, err } = await verify("recordings", "--all");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^s-alice +ok /m);
    expect(out).toMatch(/^2 sessions: 2 ok\nunchanged\n$/m);
  });

  test("a changed word is found", async () => {
    const folder = await tampered("changed", async (journal) => {
      await writeFile(
        journal,
        (await readFile(journal, "utf8")).replace("DELETE FROM orders", "SELECT FROM orders"),
      );
    });
    const { code, out } = await verify(folder);
    expect(code).toBe(1);
    expect(out).toMatch(/^s-alice +changed +\S/m);
    expect(out).not.toContain("s-eve");
    expect(out).toMatch(/1 ok, 1 changed\nNOT AS WRITTEN\n$/);
  });

  test("a removed session is missing, and a shortened one is cut", async () => {
    const missing = await tampered("missing", (journal) => rm(journal));
    expect(JSON.parse((await verify(missing, "-o", "json")).out)).toMatchObject({
      ok: false,
      sessions: expect.arrayContaining([
        expect.objectContaining({ sessionId: "s-alice", status: "missing" }),
      ]),
    });
    const cut = await tampered("cut", (journal) => truncate(journal, 10));
    const { code, out } = await verify(cut, "-o", "json");
    expect(code).toBe(1);
    const found = JSON.parse(out).sessions.find((one: { sessionId: string }) => one.sessionId === "s-alice");
    expect(["cut", "changed"]).toContain(found.status);
  });

  test("a head kept elsewhere finds a log that was rolled back", async () => {
    expect((await verify("recordings", "--write-head", "head.json")).code).toBe(0);
    expect((await verify("recordings", "--expected-head", "head.json")).code).toBe(0);
    await cp(join(cwd, "recordings"), join(cwd, "emptied"), { recursive: true });
    for (const name of await readdir(join(cwd, "emptied")))
      await rm(join(cwd, "emptied", name), { recursive: true });
    const { code, out } = await verify("emptied", "--expected-head", "head.json");
    expect(code).toBe(1);
    expect(out).toContain("log: missing");
  });

  test("another key's signatures are not taken, and no head is kept of what does not verify", async () => {
    const { publicKey } = generateKeyPairSync("ed25519");
    await writeFile(join(cwd, "other.pem"), publicKey.export({ type: "spki", format: "pem" }));
    const argv = ["verify", "recordings", "--public-key", "other.pem", "--write-head", "bad.json"];
    expect((await sallyport(argv, { cwd })).code).toBe(1);
    expect(await readdir(cwd)).not.toContain("bad.json");
  });

  test("what cannot be read is a usage error that says what to name", async () => {
    for (const [argv, next] of [
      [["nowhere", "--public-key", "key.pem"], "folder of recordings"],
      [["recordings", "--public-key", "none.pem"], "public key in PEM form"],
      [["recordings", "--public-key", "key.pem", "--expected-head", "key.pem"], "--write-head"],
      [["recordings"], "--public-key"],
    ] as const) {
      const { code, err } = await sallyport(["verify", ...argv], { cwd });
      expect(code).toBe(2);
      expect(err).toContain(next);
    }
  });
});

describe("sallyport sessions", () => {
  test("lists sessions in aligned columns that nothing recorded can break", async () => {
    const { code, out } = await sallyport(["sessions", "recordings"], { cwd });
    expect(code).toBe(0);
    expect(out).not.toMatch(steering);
    const [heading = "", ...rows] = out.trimEnd().split("\n");
    expect(rows).toHaveLength(2);
    for (const row of rows) expect(row.slice(heading.indexOf("RESOURCE"))).toMatch(/^demo\/shop {2}shop /);
    expect(rows[1]).toContain("local:\\u001b[31meve\\n");
  });

  test("filters, and tells programs the same", async () => {
    const { out } = await sallyport(["sessions", "recordings", "--refused", "-o", "json"], { cwd });
    expect(JSON.parse(out)).toMatchObject([
      { sessionId: "s-alice", user: "local:alice", state: "closed", commands: 2, refused: 1 },
    ]);
    const none = await sallyport(["sessions", "recordings", "--user", "local:nobody"], { cwd });
    expect(none).toEqual({ code: 0, out: "", err: "No session matches.\n" });
  });
});

describe("sallyport replay", () => {
  test("shows commands, decisions and results, and lets nothing reach the terminal", async () => {
    const { code, out } = await sallyport(["replay", "recordings", "s-al"], { cwd });
    expect(code).toBe(0);
    expect(out).not.toMatch(steering);
    expect(out).toContain("DELETE FROM orders");
    expect(out).toContain("Deny by analysts/profile/ReadOnly (authoritative): no unbounded writes");
  });

  test("json is one record a line", async () => {
    const { out } = await sallyport(["replay", "recordings", "s-eve", "-o", "json"], { cwd });
    expect(out).not.toMatch(steering);
    const kinds = out
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line).kind);
    expect(kinds).toEqual(["opening", "command", "closing"]);
  });

  test("--follow goes on until the session closes", async () => {
    const { privateKey } = generateKeyPairSync("ed25519");
    const recorder = await createRecorder({ folder: join(cwd, "live"), key: privateKey });
    const session = recorder.open(opening("s-live", "local:alice"));
    session.command({ text: "SELECT 'first'", verdict, at: Date.now() });
    await session.stored("Durable");
    let seen = "";
    let isSeen = () => {};
    const first = new Promise<void>((resolve) => {
      isSeen = resolve;
    });
    const onOut = (text: string) => {
      seen += text;
      if (seen.includes("'first'")) isSeen();
    };
    const followed = sallyport(["replay", "live", "s-live", "--follow"], { cwd, onOut });
    await first;
    session.command({ text: "SELECT 'second'", verdict, at: Date.now() });
    await session.close("client left");
    const { code, out } = await followed;
    await recorder.close();
    expect(code).toBe(0);
    expect(out).toContain("SELECT 'second'");
    expect(out).toContain("closed: client left");
  });

  test("--web serves a player page of what a command printed, until the person has seen it", async () => {
    const { privateKey } = generateKeyPairSync("ed25519");
    const recorder = await createRecorder({ folder: join(cwd, "printed"), key: privateKey });
    const session = recorder.open(opening("s-printed", "local:alice"));
    for (const word of ["first", "second"]) {
      const n = session.command({ text: `echo ${word}`, verdict, at: Date.now() });
      session.stream?.(n, "o", Buffer.from(`the ${word} command's output`));
    }
    await session.close("client left");
    await recorder.close();
    const seen = new AbortController();
    let played = "";
    const { promise: url, resolve } = Promise.withResolvers<string>();
    const replayed = sallyport(["replay", "printed", "s-printed", "--web", "2"], {
      ...{ cwd, stop: seen.signal },
      onOut: (text) => resolve(text.trim()),
    });
    try {
      const page = await fetch(await url, { headers: { connection: "close" } });
      expect(page.headers.get("content-type")).toContain("text/html");
      await page.text();
      const cast = await fetch(new URL("session.cast", await url), { headers: { connection: "close" } });
      played = await cast.text();
    } finally {
      seen.abort();
    }
    expect(await replayed).toMatchObject({ code: 0, err: expect.stringContaining("Ctrl-C ends it") });
    expect(played).toContain("the second command's output");
    expect(played).not.toContain("first");
    await expect(fetch(await url)).rejects.toThrow();
  });

  test("--web says so where nothing was printed", async () => {
    const { code, err } = await sallyport(["replay", "recordings", "s-alice", "--web"], { cwd });
    expect(code).toBe(1);
    expect(err).toContain("printed nothing");
  });

  test("an unknown or ambiguous session says how to name one", async () => {
    const unknown = await sallyport(["replay", "recordings", "zzz"], { cwd });
    expect(unknown.code).toBe(1);
    expect(unknown.err).toContain("sallyport sessions recordings");
    const ambiguous = await sallyport(["replay", "recordings", "s-"], { cwd });
    expect(ambiguous.code).toBe(2);
    expect(ambiguous.err).toContain("s-alice, s-eve");
  });
});
