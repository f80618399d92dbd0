/** Clients in other encodings than UTF8, where a resource allows some: what they may do, and what they cannot hide. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testWith } from "../drivers/test-with.ts";
import { hasCommand } from "../drivers/toolchains.ts";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import {
  execute,
  frame,
  int16s,
  int32s,
  parse,
  password,
  query,
  type ServerMessage,
  startup,
  WireClient,
} from "../targets/wire-client.ts";

const secret = "917351";
/** What a resource may name: the values that its definition has for the option. */
const definition = await readFile(join(import.meta.dirname, "../../crds/protectedresources.yaml"), "utf8");
const [, list = ""] = /clientEncodings:.*?enum:\n((?:\s+- \w+\n)+)/s.exec(definition) ?? [];
const offeredEncodings = list.split("- ").flatMap((each) => each.trim() || []);
const hasPsql = await hasCommand("psql", ["--version"]);
const policies = [
  policyDocument(
    "shop",
    "writer",
    `  profile: ReadWrite
  rules:
  - {name: closed, match: {objects: ["public.é", "é.*"]}, action: Deny}
  - {name: history, match: {operations: [write], objects: ["public.audit"]}, action: Deny}`,
  ),
  policyDocument(
    "shop",
    "masked",
    "  profile: ReadWrite\n  masking: [{columns: [public.cust.ssn], with: Redact}]",
  ),
].join("");

let server: PostgresServer;
let gateway: Gateway;

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    database: "shop",
    initSql: `
      CREATE TABLE public."é" AS SELECT '${secret}' AS v; CREATE TABLE public."Ã©" AS SELECT 'open' AS v;
      CREATE SCHEMA "é"; CREATE TABLE "é".hidden AS SELECT '${secret}' AS v;
      CREATE SCHEMA "Ã©"; CREATE TABLE "Ã©".hidden AS SELECT 'open' AS v;
      CREATE TABLE public.audit AS SELECT n FROM generate_series(1, 20) n;
      CREATE TABLE public.words (w text);
      CREATE TABLE public.cust AS SELECT '${secret}' AS ssn;
      CREATE FUNCTION public.as_read(encoding text, bytes bytea) RETURNS text LANGUAGE plpgsql AS
        'BEGIN RETURN convert_from(bytes, encoding); EXCEPTION WHEN OTHERS THEN RETURN NULL; END';`,
  });
  gateway = await startGateway({
    server,
    policies,
    resource: { options: { clientEncodings: [...offeredEncodings] } },
  });
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

type Who = "writer" | "masked";

/** The answers to a start-up with these parameters, and the connection. */
async function begin(who: Who, parameters: Record<string, string>) {
  const client = await WireClient.connect(gateway.port);
  await client.startTls(gateway.caPem);
  client.send(startup({ user: "shop", database: "shop", ...parameters }));
  client.send(password(gateway.issuer.token({ user: who })));
  return { client, answers: await client.until("Z") };
}

const codesOf = (messages: readonly ServerMessage[]) =>
  messages.flatMap((message) => (message.type === "E" ? [message.fields.C] : []));
const rowsOf = (messages: readonly ServerMessage[]) =>
  messages.flatMap(({ type, body }) => (type === "D" ? [body.subarray(6).toString("latin1")] : []));
const latin1 = (text: string) => Buffer.from(text, "latin1");

/** Sends messages in one write, and reads the answers up to so many ReadyForQuery. */
async function burst(client: WireClient, messages: readonly Uint8Array[], ready = 1) {
  client.send(...messages);
  const answers: ServerMessage[] = [];
  for (let left = ready; left > 0; left -= 1) answers.push(...(await client.until("Z")));
  return answers;
}

const bindBytes = (value: Buffer) =>
  frame("B", "\0\0", int16s(0), int16s(1), int32s(value.length), value, int16s(0));
const sync = frame("S");

describe("what the encodings that may be allowed have in common", () => {
  it("ASCII is ASCII in them, alone and behind any other bytes: the server itself reads it so", async () => {
    const broken = (encodings: readonly string[]) =>
      server.query(
        `SELECT DISTINCT e FROM unnest($1::text[]) e, generate_series(128, 255) h, unnest(ARRAY['', 'a1', '8e']) m,
           unnest(ARRAY[34, 36, 39, 42, 45, 47, 59, 64, 65, 92, 124]) a, as_read(e, decode(to_hex(h) || m || to_hex(a), 'hex')) r
         WHERE right(r, 1) <> chr(a) OR (r IS NOT NULL AND length(r) < 2) ORDER BY 1`,
        [encodings],
      );
    expect(await broken(offeredEncodings)).toEqual([]);
    // And so it would be seen where it is not.
    const hiding = ["BIG5", "GB18030", "GBK", "SHIFT_JIS_2004", "SJIS", "UHC"];
    expect(await broken(hiding)).toEqual(hiding.map((e) => ({ e })));
    const plain = "(SELECT string_agg(set_byte('\\x00', 0, n), NULL) FROM generate_series(1, 127) n)";
    expect(
      await server.query(
        `SELECT e FROM unnest($1::text[]) e WHERE as_read(e, ${plain}) IS DISTINCT FROM convert_from(${plain}, 'UTF8')`,
        [offeredEncodings],
      ),
    ).toEqual([]);
  });
});

describe("a client in an encoding that the resource allows", () => {
  it("is served at start-up: what it sends as a parameter and what it gets is in its encoding", async () => {
    for (const parameters of [{ client_encoding: "latin1" }, { options: "-c client_encoding=ISO-8859-1" }]) {
      const { client, answers } = await begin("writer", parameters);
      expect(answers.some(({ body }) => body.equals(Buffer.from("client_encoding\0LATIN1\0")))).toBe(true);
      expect(rowsOf(await burst(client, [query("SELECT chr(233)")]))).toEqual(["\xe9"]);
      expect(rowsOf(await burst(client, [query("SHOW client_encoding")]))).toEqual(["LATIN1"]);
      const insert = parse("", "INSERT INTO words SELECT $1 RETURNING length(w)");
      const seen = await burst(client, [insert, bindBytes(latin1("Müller")), execute(), sync]);
      expect([rowsOf(seen), codesOf(seen)]).toEqual([["6"], []]);
      client.close();
    }
    expect(await server.query("SELECT DISTINCT w FROM words")).toEqual([{ w: "Müller" }]);
  });

  it("has what a start-up parameter of its own says, whatever stands in options: as from the server", async () => {
    for (const reported of ["UTF8", "LATIN1"]) {
      const parameters = { client_encoding: reported, options: "-c client_encoding=SJIS" };
      const { client, answers } = await begin("writer", parameters);
      expect(answers.some(({ body }) => body.equals(Buffer.from(`client_encoding\0${reported}\0`)))).toBe(
        true,
      );
      expect(rowsOf(await burst(client, [query("SHOW client_encoding")]))).toEqual([reported]);
      client.close();
    }
  });

  it("may set it, and has what it was before after a rollback, RESET ALL and DISCARD ALL", async () => {
    const { client } = await begin("writer", {});
    const shown = async (...texts: string[]) => {
      const answers = await burst(client, [...texts, "SELECT chr(233)"].map(query), texts.length + 1);
      expect(codesOf(answers)).toEqual([]);
      return rowsOf(answers);
    };
    expect(await shown("SET client_encoding TO 'LATIN1'")).toEqual(["\xe9"]);
    expect(await shown("BEGIN", "SET NAMES 'UTF8'")).toEqual(["\xc3\xa9"]);
    expect(await shown("ROLLBACK")).toEqual(["\xe9"]);
    expect(await shown("RESET ALL")).toEqual(["\xc3\xa9"]);
    expect(await shown("SET client_encoding = win1252")).toEqual(["\xe9"]);
    expect(await shown("DISCARD ALL")).toEqual(["\xc3\xa9"]);
    // Whatever it is by now, statements stay what both sides read alike.
    expect(codesOf(await burst(client, [query("SELECT 'é'")]))).toEqual(["0A000"]);
    client.close();
  });

  it("gets the server's own errors for what an encoding lacks, in either direction", async () => {
    const { client } = await begin("writer", { client_encoding: "LATIN1" });
    expect(codesOf(await burst(client, [query("SELECT chr(8364)")]))).toEqual(["22P05"]);
    client.close();
    const other = await begin("writer", { client_encoding: "WIN1252" });
    const seen = await burst(other.client, [
      ...[parse("", "SELECT $1::text"), bindBytes(Buffer.from([0x81])), execute(), sync],
    ]);
    expect(codesOf(seen)).toEqual(["22P05"]);
    other.client.close();
  });

  testWith(
    "is psql with PGCLIENTENCODING: statements in ASCII, results in its encoding, a clear error for the rest",
    hasPsql ? { kind: "ready" } : { kind: "absent", reason: "psql is not installed" },
    async () => {
      const psql = (text: Buffer) => {
        const playing = promisify(execFile)("psql", ["-XAtq"], {
          encoding: "buffer",
          timeout: 30_000,
          env: {
            PATH: process.env.PATH,
            HOME: "/nonexistent",
            PGHOST: "localhost",
            PGPORT: String(gateway.port),
            PGUSER: "shop",
            PGDATABASE: "shop",
            PGSSLMODE: "verify-full",
            PGSSLROOTCERT: gateway.caFile,
            PGPASSWORD: gateway.issuer.token({ user: "writer" }),
            PGCLIENTENCODING: "LATIN1",
          },
        });
        playing.child.stdin?.end(text);
        return playing;
      };
      const { stdout, stderr } = await psql(
        latin1("SELECT chr(233);\nSELECT '\xe9';\n\\encoding KOI8R\nSELECT chr(1046);\n\\encoding SJIS\n"),
      );
      expect(stdout).toEqual(Buffer.from([0xe9, 0x0a, 0xf6, 0x0a]));
      const told = stderr.toString("latin1");
      expect(told).toContain("statements must be ASCII");
      expect(told).toContain("SJIS: invalid encoding name or conversion procedure not found");
    },
  );
});

describe("an attacker in another encoding", () => {
  const payloads = [
    latin1("SELECT E'\x95\\'; DELETE FROM public.audit; -- '"),
    latin1("SELECT '\x95'; DELETE FROM public.audit; -- '"),
    latin1("SELECT '\x8f\xa1'; DELETE FROM public.audit; -- '"),
    latin1('SELECT "\xa1"; DELETE FROM public.audit; -- "'),
    latin1("SELECT $\xa1$ ' $\xa1$; DELETE FROM public.audit; -- '"),
  ];
  const untouched = async () =>
    expect(await server.query("SELECT count(*)::int AS n FROM audit")).toEqual([{ n: 20 }]);

  it("D4: hides no quote behind a byte, in encodings that are allowed and in those that never are", async () => {
    const hiding = ["SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "GB18030", "UHC", "JOHAB", "MULE_INTERNAL"];
    for (const name of [...hiding, "EUC_JP", "EUC_TW", "SQL_ASCII", "LATIN1"]) {
      const { client } = await begin("writer", {});
      for (const change of [
        `SELECT set_config('client_encoding', '${name}', false)`,
        `UPDATE pg_settings SET setting = '${name}' WHERE name = 'client_encoding'`,
        `SET client_encoding TO '${name}'`,
        `SET NAMES '${name}'`,
      ]) {
        const isSet = !hiding.includes(name) && change.startsWith("SET ");
        const codes = codesOf(await burst(client, [query(change), ...payloads.map(query)], 6));
        // Where the change has been refused, these are no UTF-8.
        const expected = payloads.map(() => (isSet ? "0A000" : "22021"));
        expect({ change, codes: codes.slice(isSet ? 0 : 1) }).toEqual({ change, codes: expected });
      }
      client.close();
    }
    for (const name of hiding) {
      for (const parameters of [{ client_encoding: name }, { options: `-c client_encoding=${name}` }]) {
        const { client, answers } = await begin("writer", parameters as Record<string, string>);
        expect({ parameters, codes: codesOf(answers) }).toEqual({ parameters, codes: ["0A000"] });
        client.close();
      }
    }
    await untouched();
  });

  it("D3: changes it in mid-pipeline, in a transaction and back, and no statement is read in two ways", async () => {
    const delayed = (text: string) => [parse("", text), frame("B", "\0\0", int16s(0, 0, 0)), execute()];
    for (const payload of payloads.slice(0, 2)) {
      const hidden = frame("P", "\0", payload, "\0", int16s(0));
      for (const messages of [
        [...delayed("SET client_encoding TO 'EUC_JP'"), hidden, sync],
        [
          ...delayed("BEGIN"),
          ...delayed("SET LOCAL client_encoding TO 'LATIN1'"),
          ...delayed("ROLLBACK"),
          hidden,
          sync,
        ],
        [query("BEGIN"), query("SET client_encoding TO 'LATIN1'"), query("ROLLBACK"), query(payload)],
        [query("SET client_encoding TO 'LATIN1'"), query("RESET ALL"), query(payload)],
        [query("SET client_encoding TO 'LATIN1'"), query("DISCARD ALL"), query(payload)],
      ]) {
        const { client } = await begin("writer", {});
        const ready = messages.filter((message) => message[0] === 0x51 || message === sync).length;
        expect(codesOf(await burst(client, messages, ready))).toEqual(["0A000"]);
        client.close();
      }
    }
    await untouched();
  });

  it("reaches no table that is closed to it by another spelling of its name", async () => {
    for (const encoding of ["LATIN1", "SQL_ASCII", "WIN1252"]) {
      const texts: [Buffer | string, string][] = [
        [latin1('SELECT * FROM public."\xe9"'), "0A000"],
        ['SELECT * FROM public."é"', "0A000"],
        ['SELECT * FROM public."Ã©"', "0A000"],
        ['SELECT * FROM public.U&"\\00e9"', "42501"],
        ['SELECT * FROM U&"\\00e9".hidden', "42501"],
        ['SELECT * FROM public.U&"\\00c3\\00a9"', "open"],
      ];
      const { client } = await begin("writer", { client_encoding: encoding });
      for (const [text, expected] of texts) {
        const seen = await burst(client, [query(text)]);
        expect([text.toString("latin1"), ...codesOf(seen), ...rowsOf(seen)]).toEqual([
          ...[text.toString("latin1"), expected],
        ]);
      }
      client.close();
    }
  });

  it("D10: is not taken to be in another schema than the server means", async () => {
    for (const [written, meant] of [
      ["\\00c3\\00a9", "open"],
      ["\\00e9", "closed"],
    ]) {
      const { client } = await begin("writer", { client_encoding: "LATIN1" });
      const seen = await burst(
        client,
        [query(`SET search_path = U&"${written}"`), query("SELECT * FROM hidden")],
        2,
      );
      const text = seen.map(({ body }) => body.toString("latin1")).join();
      expect(text).not.toContain(secret);
      // From 18 on the server tells its path, which cannot be read here: the session ends.
      if (server.version < 18) expect(rowsOf(seen)).toEqual(meant === "open" ? ["open"] : []);
      else expect(codesOf(seen)).toContain("0A000");
      client.close();
    }
  });

  it("F: sees no masked value: to whom something is masked, it is UTF8", async () => {
    for (const parameters of [{ client_encoding: "LATIN1" }, { options: "-c client_encoding=SQL_ASCII" }]) {
      const { client, answers } = await begin("masked", parameters as Record<string, string>);
      expect(codesOf(answers)).toEqual(["42501"]);
      client.close();
    }
    const { client } = await begin("masked", {});
    const seen = await burst(
      client,
      [
        ...[
          "SET client_encoding TO 'LATIN1'",
          "SELECT ssn FROM cust",
          "BEGIN",
          "SET LOCAL client_encoding = euc_jp",
        ],
        ...["SELECT ssn FROM cust", "ROLLBACK", "SELECT ssn FROM cust"],
      ].map((text) => query(text)),
      7,
    );
    expect(codesOf(seen)).toEqual(["0A000", "0A000", "25P02"]);
    expect(rowsOf(seen)).toHaveLength(2);
    expect(seen.map(({ body }) => body.toString("latin1")).join()).not.toContain(secret);
    client.close();
  });
});
