import { type ChildProcess, spawn } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { appendFile, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { sealBlock } from "./journal-format.ts";
import { createRecorder } from "./recorder.ts";
import { listSessions, readSession } from "./sessions.ts";
import { allowedCommand, opening, recordingFolder, until } from "./testing.ts";
import { verifyRecordings } from "./verify.ts";

const { privateKey, publicKey } = generateKeyPairSync("ed25519");
const keyPem = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
let place: Awaited<ReturnType<typeof recordingFolder>>;
const children: ChildProcess[] = [];

beforeEach(async () => {
  place = await recordingFolder();
});

afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await place.remove();
});

const statuses = async (folder: string): Promise<Record<string, string | boolean>> => {
  const { ok, log, sessions } = await verifyRecordings(folder, publicKey);
  const found = sessions.map(({ sessionId, status }) => [sessionId, status]);
  return { ok, log: log.status, ...Object.fromEntries(found) };
};

const restart = async (folder: string) => (await createRecorder({ folder, key: privateKey })).close();

/** Runs a script with a recorder in a process of its own, below a limit of the shell's. */
function child(script: string, shellLimit = ""): ChildProcess {
  const here = import.meta.dirname;
  const program = `
    import { createPrivateKey } from "node:crypto";
    import { createRecorder } from ${JSON.stringify(join(here, "recorder.ts"))};
    import { allowedCommand, opening } from ${JSON.stringify(join(here, "testing.ts"))};
    const key = createPrivateKey(${JSON.stringify(keyPem)});
    const limits = { flushMs: 5, retryMs: 5 };
    const recorder = await createRecorder({ folder: ${JSON.stringify(place.folder)}, key, limits });
    ${script}`;
  const shell = `${shellLimit} exec "$0" --input-type=module-typescript --no-warnings -e "$1"`;
  const started = spawn("/bin/bash", ["-c", shell, process.execPath, program], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  children.push(started);
  return started;
}

async function output(process: ChildProcess, word: string): Promise<string> {
  let text = "";
  process.stdout?.on("data", (chunk: Buffer) => {
    text += chunk;
  });
  await until(() => text.includes(word) || process.exitCode !== null);
  return text;
}

test("after kill -9 nothing stored is lost, and the next start calls the session torn", async () => {
  const process = child(`
    const session = recorder.open(opening("one"));
    await recorder.open(opening("closed")).close("done");
    session.command(allowedCommand("SELECT 'durable'"));
    await session.stored("Durable");
    console.log("ready");
    setInterval(() => { for (let i = 0; i < 50; i++) session.command(allowedCommand("SELECT " + "x".repeat(500))); }, 1);
  `);
  expect(await output(process, "ready")).toContain("ready");
  process.kill("SIGKILL");
  await until(() => process.signalCode !== null);
  const before = await statuses(place.folder);
  expect(["open", "torn"]).toContain(before.one);
  expect(before.closed).toBe("ok");
  await restart(place.folder);
  expect(await statuses(place.folder)).toEqual({ ok: false, log: "ok", one: "torn", closed: "ok" });
  expect(await listSessions(place.folder)).toMatchObject([{ state: "torn" }, { state: "closed" }]);
  const texts: string[] = [];
  for await (const record of readSession(place.folder, "one")) texts.push(JSON.stringify(record));
  expect(texts.join()).toContain("durable");
});

test("a file-size limit of the system refuses commands and tears nothing", async () => {
  const process = child(
    `
    const session = recorder.open(opening("one"));
    let accepted = 0;
    while (!session.failure) {
      if (session.command(allowedCommand("SELECT " + "x".repeat(1000))) > 0) accepted++;
      await session.stored("Accepted").catch(() => undefined);
    }
    console.log(session.failure.message, session.command(allowedCommand("SELECT 1")), accepted, ".");
    `,
    "ulimit -f 64;",
  );
  const text = await output(process, ".\n");
  expect(text).toMatch(/recording is not possible: EFBIG -1 \d+ \./);
  process.kill("SIGKILL");
  await until(() => process.signalCode !== null);
  await restart(place.folder);
  expect(await statuses(place.folder)).toMatchObject({ log: "ok", one: "torn" });
});

/** A copy of a folder in which a live recorder has just stored two commands: what a crash leaves behind. */
async function crashed(): Promise<string> {
  const recorder = await createRecorder({ folder: place.folder, key: privateKey, limits: { headMs: 10 } });
  const session = recorder.open(opening("one"));
  for (const text of ["SELECT 1", "SELECT 2"]) {
    session.command(allowedCommand(text));
    await session.stored("Durable");
  }
  const log = join(place.folder, "log", `${recorder.publishedHead()?.log}.journal`);
  await until(async () => (await readFile(log, "utf8")).includes('"kind":"head"'));
  const copy = await place.copy();
  await recorder.close();
  return copy;
}

const journal = async (folder: string) => join(folder, (await listSessions(folder))[0]?.path ?? "");

test("a last line cut short by a crash is torn before and after recovery, and sealed from then on", async () => {
  const folder = await crashed();
  const path = await journal(folder);
  expect(await statuses(folder)).toMatchObject({ ok: true, log: "open", one: "open" });
  await appendFile(path, '{"kind":"command","n":3,"at":1,"sq');
  expect(await statuses(folder)).toMatchObject({ ok: false, one: "torn" });
  await restart(folder);
  expect(await statuses(folder)).toMatchObject({ ok: false, log: "ok", one: "torn" });
  const bytes = await readFile(path);
  const last = bytes.length - 1;
  bytes[last] = (bytes[last] as number) ^ 1;
  await writeFile(path, bytes);
  expect((await statuses(folder)).one).toBe("changed");
  await truncate(path, last);
  expect((await statuses(folder)).one).toBe("cut");
  await rm(path);
  expect((await statuses(folder)).one).toBe("missing");
});

test("a live session cut below what the log knows is cut, and changed where its bytes are", async () => {
  const folder = await crashed();
  const path = await journal(folder);
  const bytes = await readFile(path);
  await truncate(path, bytes.indexOf("\n", bytes.indexOf('{"chain":0')) + 1);
  expect((await statuses(folder)).one).toBe("cut");
  await restart(folder);
  expect((await statuses(folder)).one).toBe("cut");
  await writeFile(path, bytes.toString().replace("SELECT 1", "SELECT 3"));
  expect((await statuses(folder)).one).toBe("changed");
});

test("a live session rewritten with a chain of its own is changed, before recovery and after", async () => {
  const folder = await crashed();
  const path = await journal(folder);
  const lines = (await readFile(path, "utf8")).trimEnd().split("\n");
  let previousLine = "sallyport journal v1 session:one\n";
  let previous = "0".repeat(64);
  const blocks: Buffer[] = [];
  let records: string[] = [];
  for (const line of lines) {
    if (!line.startsWith('{"chain"')) {
      records.push(`${line.replace("SELECT 1", "SELECT 9")}\n`);
      continue;
    }
    const content = { lines: records.join(""), records: records.length, previousLine, previous };
    const block = sealBlock({ journal: "session:one", number: blocks.length, ...content });
    blocks.push(block.bytes);
    previousLine = block.chainLine;
    previous = block.hash;
    records = [];
  }
  await writeFile(path, Buffer.concat(blocks));
  expect((await statuses(folder)).one).toBe("changed");
  await restart(folder);
  expect((await statuses(folder)).one).toBe("changed");
});

test("a live session's file removed before recovery is missing, and recovery does not excuse it", async () => {
  const folder = await crashed();
  await rm(await journal(folder));
  expect((await statuses(folder)).one).toBe("missing");
  await restart(folder);
  expect((await statuses(folder)).one).toBe("missing");
});

test("a log torn within its last line goes on in a new log, over several crashes", async () => {
  const folder = await crashed();
  const log = join(folder, "log", (await readdir(join(folder, "log")))[0] ?? "");
  await appendFile(log, '{"kind":"opened","at');
  expect(await statuses(folder)).toMatchObject({ log: "torn" });
  await restart(folder);
  await writeFile(join(folder, "log", "log-00000003-5.journal"), '{"kind":"start"'); // died in its first write
  await restart(folder);
  expect(await statuses(folder)).toMatchObject({ log: "ok", one: "torn" });
});
