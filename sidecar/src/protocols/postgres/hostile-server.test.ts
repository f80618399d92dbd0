/** A server that breaks the protocol: the session ends with an error of its own, and nothing reaches the wrong statement. */
import { loadSqlParser } from "@sallyport/policy";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { GatewayError } from "../../wire/gateway-error.ts";
import { backend, frame } from "./frames.ts";
import { client, openSession, server } from "./testing.ts";

beforeAll(loadSqlParser);

const letters = Object.values(backend);
const bytes = (...values: number[]) => Buffer.from(values);
const text = (value: string) => Buffer.from(`${value}\0`);
const lengthed = (type: number, length: number, body: Buffer = Buffer.alloc(0)) => {
  const head = Buffer.alloc(5);
  head[0] = type;
  head.writeInt32BE(length, 1);
  return Buffer.concat([head, body]);
};

function violation(act: () => void): string {
  try {
    act();
  } catch (error) {
    if (error instanceof GatewayError) return error.sqlstate;
    throw error;
  }
  return "none";
}

describe("a message of the server", () => {
  test.each(letters)("of type %i with a length below its own is a violation", async (type) => {
    for (const length of [3, 0, -1, -0x80000000]) {
      const session = openSession([]);
      await session.send(client.query("SELECT 1"));
      expect(violation(() => session.reply(lengthed(type, length)))).toBe("08P01");
    }
  });

  test.each([
    ["ParseComplete", backend.parseComplete],
    ["BindComplete", backend.bindComplete],
    ["CloseComplete", backend.closeComplete],
    ["NoData", backend.noData],
    ["EmptyQueryResponse", backend.emptyQueryResponse],
    ["PortalSuspended", backend.portalSuspended],
    ["CopyDone", backend.copyDone],
  ])("%s with a body is a violation", async (_, type) => {
    const session = openSession([]);
    await session.send(
      client.parse("", "SELECT 1"),
      client.bind("", ""),
      client.describe("P", ""),
      client.execute(""),
    );
    expect(violation(() => session.reply(frame(type, bytes(1))))).toBe("08P01");
    expect(session.received()).toEqual([]);
  });

  test.each([
    ["a ReadyForQuery of no known state", frame(backend.readyForQuery, bytes(0x58))],
    ["a ReadyForQuery without a state", frame(backend.readyForQuery, bytes())],
    ["a ReadyForQuery that is too long", frame(backend.readyForQuery, Buffer.from("II"))],
    ["a CommandComplete without an end", frame(backend.commandComplete, Buffer.from("SELECT 1"))],
    ["a CommandComplete that is empty", frame(backend.commandComplete, bytes())],
    ["an ErrorResponse without fields", frame(backend.errorResponse, bytes(0))],
    ["an ErrorResponse without an end", frame(backend.errorResponse, Buffer.from("SERROR"))],
    ["a NoticeResponse without an end", frame(backend.noticeResponse, Buffer.from("SNOTICE"))],
    [
      "a NotificationResponse without channel and payload",
      frame(backend.notificationResponse, bytes(0, 0, 0, 1)),
    ],
    ["a NotificationResponse without a process id", frame(backend.notificationResponse, bytes(0))],
    [
      "a NotificationResponse without an end",
      frame(backend.notificationResponse, Buffer.from("\0\0\0\x01news\0payload")),
    ],
    ["a NoticeResponse that is empty", frame(backend.noticeResponse, bytes())],
    ["a ParameterStatus without a value", frame(backend.parameterStatus, text("search_path"))],
    ["a ParameterStatus with two values", frame(backend.parameterStatus, text("search_path\0a\0b"))],
    [
      "a ParameterStatus that is not UTF-8",
      frame(backend.parameterStatus, Buffer.from("a\0\xff\0", "latin1")),
    ],
    ["a tag longer than any", lengthed(backend.commandComplete, 0x7fffffff)],
    ["an error longer than any", lengthed(backend.errorResponse, 0x7fffffff)],
    ["a message of no known type", frame(0x7a, bytes())],
    ["an authentication request", frame(backend.authentication, bytes(0, 0, 0, 3))],
    ["AuthenticationOk again", frame(backend.authentication, bytes(0, 0, 0, 0))],
    ["another cancel key", frame(backend.backendKeyData, Buffer.alloc(8))],
    ["a protocol negotiation", frame(backend.negotiateProtocolVersion, Buffer.alloc(8))],
    ["CopyBothResponse", frame(backend.copyBothResponse, Buffer.alloc(3))],
    ["standard_conforming_strings off", server.parameter("standard_conforming_strings", "off")],
    ["another client_encoding", server.parameter("client_encoding", "SJIS")],
  ])("%s ends the session, and the client gets nothing of it", async (_, message) => {
    const session = openSession([]);
    await session.send(client.query("SELECT 1"));
    expect(["08P01", "0A000"]).toContain(violation(() => session.reply(message)));
    expect(session.received()).toEqual([]);
  });

  const row = server.dataRow("stray");
  test.each([
    ["a row", row],
    ["COPY data", frame(backend.copyData, Buffer.from("stray"))],
    ["a tag", server.complete("SELECT 1")],
    ["ReadyForQuery", server.ready("I")],
    ["a description", server.rowDescription()],
    ["CopyInResponse", server.copyIn()],
    ["CopyOutResponse", frame(backend.copyOutResponse, bytes(0, 0, 0))],
    ["CopyDone", frame(backend.copyDone, bytes())],
    ["ParseComplete", server.parseComplete()],
    ["BindComplete", server.bindComplete()],
    ["CloseComplete", server.closeComplete()],
    ["NoData", server.noData()],
    ["a function's result", frame(backend.functionCallResponse, Buffer.alloc(4))],
    ["an error", server.error("XX000", "stray")],
  ])("%s that nobody asked for ends the session", async (_, message) => {
    const idle = openSession([]);
    expect(violation(() => idle.reply(message))).toBe("08P01");
    expect(idle.received()).toEqual([]);
  });

  test.each([
    ["a row without a description", [row]],
    ["COPY data of a SELECT", [frame(backend.copyData, Buffer.from("x"))]],
    ["CopyOutResponse to a SELECT", [frame(backend.copyOutResponse, bytes(0, 0, 0))]],
    ["CopyInResponse to a SELECT", [server.copyIn()]],
    ["two descriptions", [server.rowDescription(), server.rowDescription()]],
    ["ReadyForQuery before any answer", [server.ready("I")]],
    ["two tags for one statement", [server.complete("SELECT 0"), server.complete("SELECT 0")]],
    ["ReadyForQuery twice", [server.complete("SELECT 0"), server.ready("I"), server.ready("I")]],
    ["a row behind the tag", [server.rowDescription(), server.complete("SELECT 0"), row]],
    ["PortalSuspended to a simple query", [frame(backend.portalSuspended, bytes())]],
  ])("%s is a violation", async (_, messages) => {
    const session = openSession([]);
    await session.send(client.query("SELECT 1"));
    const last = messages.at(-1);
    session.reply(...messages.slice(0, -1));
    session.received();
    expect(violation(() => session.reply(last ?? bytes()))).toBe("08P01");
    expect(session.received()).toEqual([]);
  });
});

describe("what the gateway says itself", () => {
  test("waits for the end of the row that is on its way", async () => {
    const session = openSession([]);
    await session.send(client.query("SELECT 1"));
    const row = server.dataRow("a long value");
    session.reply(server.rowDescription(), row.subarray(0, 9));
    session.session.interject(server.error("57P01", "goodbye"));
    expect(session.session.isMidMessage).toBe(true);
    session.reply(row.subarray(9), server.complete("SELECT 1"));
    expect(session.received().map(({ type }) => type)).toEqual(["T", "D", "E", "C"]);
  });

  test("comes behind a row that has begun, where the server breaks the protocol next", async () => {
    const session = openSession([]);
    await session.send(client.query("SELECT 1"));
    const row = server.dataRow("a long value");
    session.reply(server.rowDescription(), row.subarray(0, 9));
    expect(violation(() => session.reply(row.subarray(9), frame(0x7a, bytes())))).toBe("08P01");
    expect(session.session.isMidMessage).toBe(false);
    expect(session.received().map(({ type }) => type)).toEqual(["T", "D"]);
  });
});

describe("what was refused", () => {
  const denied = [{ name: "no", match: { objects: ["public.orders"] }, action: "Deny" as const }];
  test.each([
    [
      "rows",
      [server.rowDescription(), server.dataRow("secret"), server.complete("SELECT 1"), server.ready("I")],
    ],
    ["a tag", [server.complete("SELECT 1"), server.ready("I")]],
    ["nothing but ReadyForQuery", [server.ready("I")]],
    ["an empty answer", [frame(backend.emptyQueryResponse, bytes()), server.ready("I")]],
  ])("is never answered with %s", async (_, messages) => {
    const session = openSession(denied);
    await session.send(client.query("SELECT * FROM orders"));
    expect(violation(() => session.reply(...messages))).toBe("08P01");
    expect(session.received()).toEqual([]);
  });
});

describe("whatever a server sends", () => {
  const asked = [
    client.query("SELECT 1"),
    client.query("COPY customers TO STDOUT"),
    client.parse("a", "SELECT id FROM customers"),
    client.bind("", "a"),
    client.describe("P", ""),
    client.execute("", 1),
    client.close("S", "a"),
    client.sync(),
    client.query("SELECT id FROM orders"),
  ];
  const proper = fc.constantFrom(
    ...[server.parseComplete(), server.bindComplete(), server.closeComplete(), server.noData()],
    ...[server.rowDescription(), server.dataRow("x"), server.complete("SELECT 1"), server.ready("I")],
    ...[server.ready("T"), server.copyIn(), server.error("22012", "division by zero")],
    ...[server.parameter("TimeZone", "UTC"), frame(backend.copyOutResponse, bytes(0, 0, 0))],
    ...[frame(backend.copyData, Buffer.from("x\n")), frame(backend.copyDone, bytes())],
  );
  const broken = fc
    .tuple(
      fc.constantFrom(...letters, 0, 255),
      fc.integer({ min: -5, max: 40 }),
      fc.uint8Array({ maxLength: 40 }),
    )
    .map(([type, length, body]) => lengthed(type, length, Buffer.from(body)));
  const stream = fc.array(fc.oneof({ weight: 4, arbitrary: proper }, { weight: 1, arbitrary: broken }), {
    maxLength: 20,
  });

  test("is passed on in whole or ends the session with an error of the gateway's own", async () => {
    const sent = fc.shuffledSubarray(asked, { minLength: 1 });
    const chunkLength = fc.integer({ min: 1, max: 64 });
    await fc.assert(
      fc.asyncProperty(sent, stream, chunkLength, async (questions, answers, length) => {
        const session = openSession([{ name: "no", match: { objects: ["public.orders"] }, action: "Deny" }]);
        for (const question of questions) void session.send(question).catch(() => undefined);
        await Promise.resolve();
        const all = Buffer.concat(answers);
        let end = "none";
        for (let at = 0; at < all.length && end === "none"; at += length)
          end = violation(() => session.reply(all.subarray(at, at + length)));
        expect(["none", "08P01", "0A000", "54000"]).toContain(end);
      }),
      { numRuns: 1_000, seed: 77 },
    );
  });

  test("by the million leaves nothing behind", async () => {
    const session = openSession([]);
    await session.send(client.query("SELECT 1"));
    const flood = Buffer.concat(
      Array.from({ length: 1_000 }, (_, n) => server.parameter(`p${n % 7}`, "v".repeat(60))),
    );
    const round = () => {
      for (let index = 0; index < 50; index += 1) {
        session.reply(flood);
        session.clientBytes();
      }
    };
    round();
    global.gc?.();
    const before = process.memoryUsage().heapUsed;
    for (let index = 0; index < 10; index += 1) round();
    global.gc?.();
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(64 * 1024 * 1024);
  });
});
