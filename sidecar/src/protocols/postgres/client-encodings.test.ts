import { readFileSync } from "node:fs";
import { sqlParserReady } from "@sallyport/policy";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { GatewayError } from "../../wire/gateway-error.ts";
import {
  allowedEncodings,
  encodingNamed,
  encodingSetBy,
  inAscii,
  isReadAsAscii,
  offeredEncodings,
} from "./client-encodings.ts";
import { backend, frame, frontend } from "./frames.ts";
import { client, errorIn, nonce, openSession, server } from "./testing.ts";

beforeAll(sqlParserReady);

const latin1 = new Set(["LATIN1"]);
const opened = (rules: Parameters<typeof openSession>[0] = []) => openSession(rules, {}, () => true, latin1);
const setLatin1 = "SET client_encoding TO 'LATIN1'";
const latin1Query = (text: string) => frame(frontend.query, Buffer.from(`${text}\0`, "latin1"));
const nonceError = (number: string) => server.error(number, `"${nonce}"`);
const hidesNames = { masking: [{ columns: ["public.customers.name"], with: "Redact" }] };

/** A session that has set client_encoding to LATIN1, as the server has reported. */
async function outside(rules: Parameters<typeof openSession>[0] = []) {
  const session = opened(rules);
  await session.send(client.query(setLatin1));
  expect(session.upstreamBytes()).toEqual(client.query(setLatin1));
  session.reply(server.complete("SET"), server.parameter("client_encoding", "LATIN1"), server.ready("I"));
  expect(session.received().map(({ type }) => type)).toEqual(["C", "S", "Z"]);
  return session;
}

describe("the encodings that a resource may allow", () => {
  it("D4: are none in which a later byte of a character may be ASCII, and none of an unknown name", () => {
    const hiding = ["SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "GB18030", "UHC", "JOHAB", "WIN932", "WIN936"];
    for (const name of [...hiding, "WIN949", "WIN950", "MULE_INTERNAL", "UTF16", "", "constructor"]) {
      expect(allowedEncodings([name])).toBeUndefined();
      expect(encodingNamed(name, new Set(offeredEncodings))).toBeUndefined();
    }
    expect(allowedEncodings(undefined)).toBeUndefined();
    expect(allowedEncodings("LATIN1")).toBeUndefined();
    expect(allowedEncodings([1, "SJIS", "latin-1", "koi8"])).toEqual(new Set(["LATIN1", "KOI8R"]));
  });

  it("are those that a resource can name", () => {
    const definition = new URL("../../../../crds/protectedresources.yaml", import.meta.url);
    const [, list = ""] =
      /clientEncodings:.*?enum:\n((?:\s+- \w+\n)+)/s.exec(readFileSync(definition, "utf8")) ?? [];
    expect(list.split("- ").flatMap((each) => each.trim() || [])).toEqual(offeredEncodings);
  });

  it("are those of the resource alone", () => {
    expect(encodingNamed("iso_8859_1", latin1)).toBe("LATIN1");
    expect(encodingNamed("LATIN2", latin1)).toBeUndefined();
    expect(encodingNamed("LATIN1", undefined)).toBeUndefined();
  });

  it("are taken from one plain SET and from nothing else", () => {
    const plain: [string, string][] = [
      ["SET client_encoding TO 'LATIN1'", "LATIN1"],
      ["set client_encoding to latin1;", "latin1"],
      [" SET SESSION client_encoding='euc-jp' ; ", "euc-jp"],
      ["SET LOCAL client_encoding = win1252", "win1252"],
      ["SET NAMES 'KOI8R'", "KOI8R"],
    ];
    for (const [text, name] of plain) expect({ text, name: encodingSetBy(text) }).toEqual({ text, name });
    for (const text of [
      "SET client_encoding TO 'UTF8'",
      "SET client_encoding TO 'LATIN1'; DELETE FROM t",
      "SELECT 1; SET client_encoding TO 'LATIN1'",
      "SET client_encoding TO LATIN1, UTF8",
      "SET client_encoding TO E'LATIN1'",
      "SET client_encoding TO 'LATIN1' -- x",
      "SET\u00a0client_encoding TO 'LATIN1'",
      "SET client_encoding TO latın1",
      "RESET client_encoding",
      "SET client_encodingTO 'LATIN1'",
      `SET client_encoding TO '${"x".repeat(200)}'`,
    ])
      expect({ text, name: encodingSetBy(text) }).toEqual({ text, name: undefined });
  });
});

describe("a session outside UTF8", () => {
  it("D4: is none where the resource does not say so", async () => {
    const session = openSession([]);
    await session.send(client.query(setLatin1));
    expect(session.upstreamBytes()).toEqual(client.query(`SELECT "${nonce}"`));
    expect(() => session.reply(server.parameter("client_encoding", "LATIN1"))).toThrow(GatewayError);
  });

  it("sends statements in ASCII as they are, and none with any other byte, in whatever it may be", async () => {
    const session = await outside();
    await session.send(client.query("SELECT 1"));
    expect(session.upstreamBytes()).toEqual(client.query("SELECT 1"));
    session.reply(server.rowDescription(), server.complete("SELECT 1"), server.ready("I"));
    session.received();
    for (const query of [
      latin1Query("SELECT 'é'"),
      client.query("SELECT 'é'"),
      latin1Query("SELECT '\x95\\'"),
    ]) {
      await session.send(query);
      expect(session.upstreamBytes()).toEqual(client.query(`"${nonce}"`));
      session.reply(nonceError("42601"), server.ready("I"));
      const [error] = session.received();
      expect(errorIn(error!.body).sqlstate).toBe("0A000");
    }
    expect(session.recording.commands.map(({ text }) => text)).toEqual([setLatin1, "SELECT 1"]);
  });

  it("begins with the message that changes it, not with the server's answer", async () => {
    const session = opened();
    await session.send(
      ...[client.parse("", setLatin1), client.bind("", ""), client.execute("")],
      ...[client.parse("", "SELECT 'é'"), client.bind("", ""), client.execute(""), client.sync()],
    );
    const sent = session.upstreamBytes();
    expect(sent.includes(Buffer.from("é"))).toBe(false);
    expect(sent.includes(Buffer.from(nonce))).toBe(true);
  });

  it("does not end, whatever client_encoding is set back to", async () => {
    const session = await outside();
    for (const back of ["SET client_encoding TO 'UTF8'", "ROLLBACK", "RESET ALL", "DISCARD ALL"]) {
      await session.send(client.query(back));
      expect(session.upstreamBytes()).toEqual(client.query(back));
      session.reply(
        server.complete(back.split(" ")[0]!),
        server.parameter("client_encoding", "UTF8"),
        server.ready("I"),
      );
      await session.send(client.query("SELECT 'é'"));
      expect(session.upstreamBytes()).toEqual(client.query(`"${nonce}"`));
      session.reply(nonceError("42601"), server.ready("I"));
    }
  });

  it("names statements and portals in ASCII", async () => {
    for (const messages of [
      [client.parse("é", "SELECT 1")],
      [client.parse("", "SELECT 1"), client.bind("é", "")],
      [client.parse("", "SELECT 1"), client.bind("", "é")],
      [client.describe("S", "é")],
      [client.close("P", "é")],
      [client.execute("é")],
    ]) {
      const session = await outside();
      await session.send(...messages, client.sync());
      const sent = session.upstreamBytes();
      expect(sent.includes(Buffer.from("é"))).toBe(false);
      expect(sent.includes(Buffer.from(nonce))).toBe(true);
    }
  });

  it("takes parameters of any bytes, and records those that are more than ASCII as bytes", async () => {
    const session = await outside();
    const bind = client.bind("", "", ["Müller", "plain"]);
    const at = bind.indexOf("ü");
    const bytes = Buffer.concat([bind.subarray(0, at), Buffer.from([0xfc]), bind.subarray(at + 2)]);
    bytes.writeInt32BE(bytes.length - 1, 1);
    bytes.writeInt32BE(6, at - 5);
    await session.send(client.parse("", "SELECT $1::text, $2::text"), bytes, client.sync());
    expect(session.upstreamBytes().includes(bytes)).toBe(true);
    expect(session.recording.commands.at(-1)?.parameters).toEqual([
      { binary: Buffer.from("Müller", "latin1").toString("base64") },
      "plain",
    ]);
  });

  it("sends no text of before that was more than ASCII", async () => {
    const denied = [{ name: "no", match: { commands: ["LISTEN"] }, action: "Deny" }] as const;
    const session = opened(denied);
    await session.send(client.parse("s", 'LISTEN "é"'), client.sync());
    expect(session.upstreamBytes().includes(Buffer.from("é"))).toBe(false);
    session.reply(server.parseComplete(), server.ready("I"));
    session.adopt([]);
    await session.send(client.query(setLatin1));
    session.reply(server.complete("SET"), server.ready("I"));
    session.upstreamBytes();
    await session.send(client.bind("", "s"), client.sync());
    const sent = session.upstreamBytes();
    expect(sent.includes(Buffer.from("é"))).toBe(false);
    expect(sent.includes(Buffer.from(nonce))).toBe(true);
  });

  it("ends where the server names an encoding that is not allowed, or anything in more than ASCII", async () => {
    const reports = [
      server.parameter("client_encoding", "SJIS"),
      server.parameter("client_encoding", "LATIN2"),
      // Read as UTF-8 this is another schema than the server means.
      server.parameter("search_path", "é"),
    ];
    for (const report of reports) {
      const session = await outside();
      expect(() => session.reply(report)).toThrow(GatewayError);
    }
  });

  it("is told the gateway's own errors in ASCII", async () => {
    const session = await outside();
    await session.send(client.query('SELECT * FROM U&"\\00e9"'));
    session.reply(nonceError("42P01"), server.ready("I"));
    const [error] = session.received();
    expect(errorIn(error!.body)).toEqual({ sqlstate: "42P01", message: 'relation "\\u{e9}" does not exist' });
  });

  it("is refused to whom something is masked", async () => {
    const session = opened();
    session.adopt([], hidesNames);
    await session.send(client.query(setLatin1));
    expect(session.upstreamBytes().includes(Buffer.from("LATIN1"))).toBe(false);
    session.reply(nonceError("42703"), server.ready("I"));
    const [error] = session.received();
    expect(errorIn(error!.body).message).toBe("client_encoding must be UTF8, as something is masked for you");
  });

  it("runs nothing any more once a new policy masks something", async () => {
    const session = await outside();
    await session.send(client.parse("", "SELECT name FROM customers"), client.bind("", ""), client.sync());
    session.reply(server.parseComplete(), server.bindComplete(), server.ready("T"));
    session.upstreamBytes();
    session.adopt([], hidesNames);
    await session.send(client.execute(""), client.sync());
    expect(session.upstream()).toBe("PS");
    session.reply(nonceError("42703"), server.ready("E"));
    for (const text of ["SELECT name FROM customers", "SELECT 1", "FETCH c"]) {
      await session.send(client.query(text));
      expect(session.upstreamBytes().includes(Buffer.from(text))).toBe(false);
      session.reply(nonceError("42703"), server.ready("E"));
    }
    await session.send(client.execute("c"), client.sync());
    expect(session.upstream()).toBe("PS");
  });

  it("ends at a notification that a new policy wants searched", async () => {
    const session = await outside();
    const note = frame(
      backend.notificationResponse,
      Buffer.from("\0\0\0\x01news\0\xfc@example.org\0", "latin1"),
    );
    session.reply(note);
    expect(session.clientBytes()).toEqual(note);
    session.adopt([], { masking: [{ patterns: ["email"], with: "Redact" }] });
    expect(() => session.reply(note)).toThrow(GatewayError);
    expect(session.clientBytes()).toHaveLength(0);
  });

  it("lets no statement, name or setting through that is more than ASCII, whatever bytes come", async () => {
    const text = fc.oneof(
      fc.uint8Array({ maxLength: 20 }),
      fc.string().map((each) => Buffer.from(each)),
    );
    const cString = text.map((bytes) => Buffer.from([...bytes.filter((byte) => byte !== 0), 0]));
    const message = fc.oneof(
      cString.map((sql) => frame(frontend.query, sql)),
      fc
        .tuple(cString, cString)
        .map((both) => frame(frontend.parse, Buffer.concat([...both, Buffer.alloc(2)]))),
      fc
        .tuple(cString, cString)
        .map((both) => frame(frontend.bind, Buffer.concat([...both, Buffer.alloc(6)]))),
      cString.map((name) => frame(frontend.describe, Buffer.concat([Buffer.from("S"), name]))),
      cString.map((name) => frame(frontend.close, Buffer.concat([Buffer.from("P"), name]))),
      cString.map((name) => frame(frontend.execute, Buffer.concat([name, Buffer.alloc(4)]))),
    );
    await fc.assert(
      fc.asyncProperty(message, async (bytes) => {
        const session = await outside();
        await session.send(bytes);
        expect(session.upstreamBytes().every((byte) => byte < 0x80)).toBe(true);
      }),
      { numRuns: 100 },
    );
  });
});

it("what is read of a message is its texts, not the numbers behind them", () => {
  const parse = frame(frontend.parse, Buffer.from([0, 0x41, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]));
  const execute = frame(frontend.execute, Buffer.from([0, 0xff, 0xff, 0xff, 0xff]));
  expect(isReadAsAscii(frontend.parse, parse, 0, parse.length)).toBe(true);
  expect(isReadAsAscii(frontend.execute, execute, 0, execute.length)).toBe(true);
});

it("a text in ASCII shows every other character by its number", () => {
  expect(inAscii("é€😀\ud800x")).toBe("\\u{e9}\\u{20ac}\\u{1f600}\\u{d800}x");
});
