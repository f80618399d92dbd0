/**
 * The leak oracle: every masked cell holds a value that occurs nowhere else, and whatever is asked, in whatever format,
 * no byte that leaves the gateway may hold eight characters of one, nor may its recordings and logs.
 *
 * SALLYPORT_STATEMENTS sets how many statements are made (`unlimited`: until somebody stops it), SALLYPORT_SEED which.
 */
import { randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { frame, int32s, query, type ServerMessage, type WireClient } from "../targets/wire-client.ts";
import { isCopyable, maskedColumns, schemaSql, statements, tricks } from "./masked-statements.ts";

const asked = process.env.SALLYPORT_STATEMENTS ?? "5000";
const count = asked === "unlimited" ? Number.POSITIVE_INFINITY : Number(asked);
const seed = Number(process.env.SALLYPORT_SEED ?? 20_611);

let server: PostgresServer;
let gateway: Gateway;
/** Pieces of canaries by their length. */
const grams = new Map<number, Map<string, string>>();

/** Where pieces can begin at all, hashed: it spares looking up nearly every place of what is answered. */
const beginnings = new Uint8Array(1 << 20);

/** Eight characters of a canary; in hex and base64 they are longer, and digits alone would be found by chance. */
const gramLength = { plain: 8, digits: 12, hex: 16, base64: 11 };

function note(form: Buffer, canary: string, length = gramLength.plain): void {
  const text = form.toString("latin1").toLowerCase();
  const ofLength = grams.get(length) ?? new Map<string, string>();
  grams.set(length, ofLength);
  for (let at = 0; at + length <= text.length; at += 1) {
    ofLength.set(text.slice(at, at + length), canary);
    beginnings[beginningAt(text, at)] = 1;
  }
}

/** The four characters there, as an index into `beginnings`; beyond the text there are zeros. */
function beginningAt(text: string, at: number): number {
  let four = 0;
  for (let next = at; next < at + 4; next += 1) four = (four << 8) | text.charCodeAt(next);
  return Math.imul(four, 0x9e3779b1) >>> 12;
}

/** Remembers a canary in every form that a leak could have. */
function remember(value: string): void {
  const bytes = Buffer.from(value);
  for (const form of [bytes, Buffer.from([...bytes].reverse())]) {
    note(form, value, /^\d+$/.test(value) ? gramLength.digits : gramLength.plain);
    note(Buffer.from(form.toString("hex")), value, gramLength.hex);
    // Its base64 looks different at each place in a group of three; the ends depend on what is around.
    for (let lead = 0; lead < 3; lead += 1) {
      const encoded = Buffer.concat([Buffer.alloc(lead), form]).toString("base64");
      const end = Math.floor(((lead + form.length) * 4) / 3) - 1;
      note(Buffer.from(encoded.slice(lead === 0 ? 0 : 4, end)), value, gramLength.base64);
    }
  }
}

function canary(kind: "text" | "number"): string {
  if (kind === "number") {
    const value = (randomBytes(8).readBigUInt64BE() >> 2n) | (1n << 61n);
    const binary = Buffer.alloc(8);
    binary.writeBigInt64BE(value);
    note(binary, String(value));
    remember(String(value));
    return String(value);
  }
  // Letters that no message of the server's has in such a row.
  const value = Array.from(randomBytes(24), (byte) => "abcdefghjkmnpqrstvwxyz23456789QXZK"[byte % 34]).join(
    "",
  );
  remember(value);
  return value;
}

/** The first canary that shows in these bytes. */
function leakIn(bytes: Buffer): string | undefined {
  const text = bytes.toString("latin1").toLowerCase();
  for (let at = 0; at < text.length; at += 1) {
    if (beginnings[beginningAt(text, at)] === 0) continue;
    for (const [length, ofLength] of grams) {
      const found = ofLength.get(text.slice(at, at + length));
      if (found !== undefined)
        return `${JSON.stringify(text.slice(Math.max(0, at - 60), at + 60))} of ${found}`;
    }
  }
  return undefined;
}

const policy = (user: string, rest: string) => policyDocument("shop", user, `  profile: Admin\n${rest}`);
const masking = `  masking: [{columns: [${maskedColumns.join(", ")}], with: Redact}]`;
/** Each column by another method in turn; four characters that Partial keeps are no leak. */
const methods = ["Hash", 'Partial, format: "*{last4}"', 'Replace, format: "(x,y)"', '"Null"'];
const maskingByMethods = `  masking:\n${methods
  .map((method, index) => {
    const columns = maskedColumns.filter((_, at) => at % methods.length === index);
    return `    - {columns: [${columns.join(", ")}], with: ${method}}`;
  })
  .join("\n")}`;

beforeAll(async () => {
  server = await startPostgres({ tls: true, database: "shop", initSql: schemaSql(canary) });
  gateway = await startGateway({
    server,
    resource: { recording: { mode: "Required", content: ["commands", "responses"] } },
    policies: [
      policy("strict", masking),
      policy("loose", `${masking}\n  inference: Allow\n  maskedWrites: Allow`),
      policy("mixed", `${maskingByMethods}\n  inference: Allow`),
      policy("seer", ""),
    ].join(""),
  });
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

const as = (user: string): Promise<WireClient> => gateway.connectWire({ user });

const formats = ["text", "extended", "binary", "copy text", "copy csv", "copy binary"] as const;

/** The messages that ask a statement in one of the formats, inside a transaction that is taken back. */
function asMessages(sql: string, format: (typeof formats)[number]): { bytes: Buffer[]; readies: number } {
  const end = query("ROLLBACK; DEALLOCATE ALL");
  if (format === "text") return { bytes: [query(`BEGIN`), query(sql), end], readies: 3 };
  if (format.startsWith("copy")) {
    const kind = format.slice("copy ".length);
    const copy = isCopyable(sql) ? `COPY (${sql}) TO STDOUT (FORMAT ${kind})` : sql;
    return { bytes: [query("BEGIN"), query(copy), end], readies: 3 };
  }
  const [first = "", ...rest] = sql.includes("$$") ? [sql] : sql.split("; ");
  const code = format === "binary" ? 1 : 0;
  const bytes = [query("BEGIN")];
  for (const text of [first, ...rest]) {
    bytes.push(frame("P", `\0${text}\0`, Buffer.alloc(2)));
    bytes.push(frame("B", "\0\0", Buffer.from([0, 0, 0, 0, 0, 1, 0, code])), frame("E", "\0", int32s(0)));
  }
  return { bytes: [...bytes, frame("S"), end], readies: 3 };
}

/** Asks, and gives all bytes of the answer. */
async function play(
  client: WireClient,
  sql: string,
  format: (typeof formats)[number],
): Promise<ServerMessage[]> {
  const { bytes, readies } = asMessages(sql, format);
  client.send(...bytes);
  const answers: ServerMessage[] = [];
  for (let ready = 0; ready < readies; ready += 1) {
    for (;;) {
      const part = await client.message();
      if (part === undefined) return answers;
      answers.push(part);
      if (part.type === "G") client.send(frame("f", "no\0"));
      if (part.type === "Z") break;
    }
  }
  return answers;
}

interface Tally {
  played: number;
  rows: number;
  refused: number;
  failed: number;
  leaks: string[];
}

const emptyTally = (): Tally => ({ played: 0, rows: 0, refused: 0, failed: 0, leaks: [] });

function judge(tally: Tally, sql: string, format: string, answers: readonly ServerMessage[]): void {
  tally.played += 1;
  if (answers.some(({ type }) => type === "D" || type === "d")) tally.rows += 1;
  const error = answers.find(({ type }) => type === "E");
  if (error?.fields.C === "42501") tally.refused += 1;
  else if (error !== undefined) tally.failed += 1;
  const leak = leakIn(Buffer.concat(answers.map(({ body }) => body)));
  if (leak !== undefined) tally.leaks.push(`${format}: ${sql}\n    ${leak}`);
}

/** Plays one statement, over a new connection where the old one has ended. */
class Player {
  readonly #user: string;
  #client: WireClient | undefined;
  readonly tally = emptyTally();

  constructor(user: string) {
    this.#user = user;
  }

  async play(sql: string, format: (typeof formats)[number]): Promise<void> {
    this.#client ??= await as(this.#user);
    const answers = await play(this.#client, sql, format);
    judge(this.tally, sql, format, answers);
    if (answers.at(-1)?.type !== "Z") {
      this.#client.close();
      this.#client = undefined;
    }
  }

  close(): void {
    this.#client?.close();
    this.#client = undefined;
  }
}

/** Every file of the recordings. */
async function recordings(): Promise<Buffer[]> {
  const files = await readdir(gateway.recordingDir, { recursive: true, withFileTypes: true });
  return Promise.all(
    files.filter((file) => file.isFile()).map((file) => readFile(join(file.parentPath, file.name))),
  );
}

const told = ({ played, rows, refused, failed, leaks }: Tally) =>
  `${played} played: ${rows} with rows, ${refused} refused, ${failed} failed, ${leaks.length} leaked`;

test("the oracle sees what is shown to somebody without masks, and would see each encoding", async () => {
  const seer = new Player("seer");
  for (const sql of [
    "SELECT ssn FROM cust",
    "SELECT reverse(ssn) FROM cust",
    "SELECT big FROM cust",
    "SELECT boss FROM cust",
  ])
    for (const format of formats) await seer.play(sql, format);
  await seer.play("SELECT encode(('x' || ssn)::bytea, 'base64') FROM cust", "text");
  await seer.play("SELECT substr(ssn, 5, 8) FROM cust", "text");
  await seer.play("SELECT told(1)", "text");
  await seer.play("SELECT shout(ssn) FROM cust", "text");
  for (const sql of [
    "SELECT attmissingval FROM pg_attribute",
    "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef",
    "SELECT column_default FROM information_schema.columns",
    "SELECT pg_get_expr(relpartbound, oid) FROM pg_class",
    "SELECT pg_get_constraintdef(oid) FROM pg_constraint",
    "SELECT indexdef FROM pg_indexes",
  ]) {
    await seer.play(sql, "text");
  }
  expect(seer.tally.leaks.length, told(seer.tally)).toBe(seer.tally.played);
  await seer.play("SELECT id, name FROM cust", "text");
  expect(seer.tally.leaks.length).toBe(seer.tally.played - 1);
  seer.close();
});

test("no known trick gets at a masked value, in any format", { timeout: 240_000 }, async () => {
  const players = [new Player("strict"), new Player("loose"), new Player("mixed")];
  const playedOf = [1, 2, formats.length];
  const playAll = async (player: Player, index: number) => {
    for (const [at, sql] of tricks.entries()) {
      // Other rules hide what the strict ones hide: every second format, or one, for each trick, others each time.
      const played = formats.filter((_, nth) => (nth + at) % (playedOf[index] ?? 1) === 0);
      for (const format of played)
        if (!format.startsWith("copy") || isCopyable(sql)) await player.play(sql, format);
    }
    player.close();
  };
  await Promise.all(players.map(playAll));
  process.stdout.write(`tricks: ${players.map(({ tally }) => told(tally)).join("; ")}\n`);
  expect(players.flatMap(({ tally }) => tally.leaks)).toEqual([]);
});

test("no generated statement gets at a masked value", { timeout: 0 }, async () => {
  const players = ["strict", "mixed", "loose", "loose"].map((user) => new Player(user));
  const batch = 500;
  for (let done = 0; done < count; done += batch) {
    const size = Math.min(batch, count - done);
    const made = fc.sample(statements, { numRuns: size, seed: seed + done });
    const playLane = async (player: Player, lane: number) => {
      for (let index = lane; index < made.length; index += players.length) {
        const format = formats[Math.floor(index / players.length) % formats.length] ?? "text";
        await player.play(made[index] ?? "", format);
      }
    };
    await Promise.all(players.map(playLane));
    expect(
      players.flatMap(({ tally }) => tally.leaks),
      `SALLYPORT_SEED=${seed + done}`,
    ).toEqual([]);
  }
  for (const player of players) player.close();
  process.stdout.write(`generated: ${players.map(({ tally }) => told(tally)).join("; ")}, seed ${seed}\n`);
  const rows = players.reduce((sum, { tally }) => sum + tally.rows, 0);
  expect(rows, "statements that gave rows").toBeGreaterThan(
    count === Number.POSITIVE_INFINITY ? 0 : count / 20,
  );
});

test("neither the recordings nor the logs of masked sessions hold a masked value", {
  timeout: 240_000,
}, async () => {
  const client = await as("loose");
  const value = grams.get(gramLength.plain)?.values().next().value ?? "";
  client.send(query(`SELECT id FROM cust WHERE ssn = '${value}'`));
  await client.until("Z");
  client.send(query(`UPDATE cust SET ssn = '${value}' WHERE id = 99`));
  await client.until("Z");
  client.send(
    frame("P", "\0SELECT id FROM cust WHERE email = $1\0", Buffer.alloc(2)),
    frame("B", "\0\0", Buffer.from([0, 0, 0, 1]), int32s(value.length), value, Buffer.alloc(2)),
    ...[frame("E", "\0", int32s(0)), frame("S")],
  );
  await client.until("Z");
  client.send(query(`SELECT nonsense WHERE ssn = '${value}`));
  await client.until("Z");
  client.close();
  const journals = await vi.waitFor(
    async () => {
      const files = await recordings();
      expect(
        files.some((content) => content.includes("SELECT nonsense") && content.includes('"final":true')),
      ).toBe(true);
      return files;
    },
    { timeout: 20_000, interval: 100 },
  );
  // Who has no masks is recorded as it was.
  const masked = journals.filter((content) => !content.includes("local:seer"));
  expect(masked.length).toBeGreaterThan(2);
  for (const content of masked) expect(leakIn(content)).toBeUndefined();
  const seen = journals.filter((content) => content.includes("local:seer"));
  expect(seen.some((content) => leakIn(content) !== undefined)).toBe(true);
  expect(leakIn(Buffer.from(gateway.logs()))).toBeUndefined();
});
