import { loadSqlParser } from "@sallyport/policy";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { GatewayError } from "../../wire/gateway-error.ts";
import { backend, frame } from "./frames.ts";
import { client, errorIn, messagesIn, nonce, openSession, server } from "./testing.ts";

beforeAll(() => loadSqlParser());

const noDeletes = [
  { name: "no-deletes", match: { commands: ["DELETE"] }, action: "Deny", message: "no deletes" },
];
const nonceError = () => server.error("42703", `column "${nonce}" does not exist`);

it("passes the data of a COPY by the extended protocol as it is where nothing is masked", async () => {
  const session = openSession([]);
  const copy = [
    client.parse("", "COPY orders TO STDOUT"),
    client.bind("", ""),
    client.execute(""),
    client.sync(),
  ];
  await session.send(...copy);
  const answer = [
    server.parseComplete(),
    server.bindComplete(),
    frame(backend.copyOutResponse, Buffer.from([0, 0, 1, 0, 0])),
    frame(backend.copyData, Buffer.from("1\n")),
    frame(backend.copyDone, Buffer.alloc(0)),
    server.complete("COPY 1"),
    server.ready("I"),
  ];
  session.reply(...answer);
  expect(session.clientBytes()).toEqual(Buffer.concat(answer));
});

it("says that a chunk has passed where it is rows alone, and only then", async () => {
  const session = openSession([]);
  await session.send(client.query("SELECT 1"));
  const passed = (...messages: readonly Buffer[]) => {
    session.reply(...messages);
    return session.session.hasPassed("upstream");
  };
  const [row, rows] = [server.dataRow("1"), Buffer.concat([server.dataRow("2"), server.dataRow("3")])];
  expect(passed(server.rowDescription(), row)).toBe(true);
  expect(passed(rows.subarray(0, rows.length - 1))).toBe(true);
  expect(passed(rows.subarray(rows.length - 1), row)).toBe(true);
  // What is held until its end comes is kept, and so is not passed.
  expect(passed(row, row.subarray(0, 3))).toBe(false);
  expect(passed(row.subarray(3))).toBe(false);
  expect(passed(row, server.complete("SELECT 7"))).toBe(false);
  expect(passed(server.ready("I"))).toBe(false);
  expect(session.clientBytes().length).toBe(server.rowDescription().length + 7 * row.length + 14 + 6);
});

it("says that a chunk of the client has passed where it is COPY data alone, and only then", async () => {
  const session = openSession([]);
  const data = frame(backend.copyData, Buffer.from("1\t2\n"));
  const passed = async (...messages: readonly Buffer[]) => {
    await session.send(...messages);
    return session.session.hasPassed("client");
  };
  expect(await passed(client.query("COPY orders FROM STDIN"))).toBe(false);
  session.reply(frame(backend.copyInResponse, Buffer.from([0, 0, 1, 0, 0])));
  expect(await passed(data, data.subarray(0, 7))).toBe(true);
  expect(await passed(data.subarray(7), data)).toBe(true);
  expect(await passed(data, data.subarray(0, 2))).toBe(false);
  expect(await passed(data.subarray(2))).toBe(false);
  expect(await passed(data, frame(backend.copyDone, Buffer.alloc(0)))).toBe(false);
});

describe("simple queries", () => {
  it("passes an allowed query unchanged and records it with its answer", async () => {
    const session = openSession(noDeletes);
    await session.send(client.query("SELECT 1"));
    expect(session.upstreamBytes()).toEqual(client.query("SELECT 1"));
    const answer = [
      server.rowDescription(),
      server.dataRow("1"),
      server.complete("SELECT 1"),
      server.ready("I"),
    ];
    session.reply(...answer);
    expect(session.clientBytes()).toEqual(Buffer.concat(answer));
    expect(session.recording.commands.map(({ text }) => text)).toEqual(["SELECT 1"]);
    expect(session.recording.responses).toMatchObject([{ tag: "SELECT 1", rows: 1 }]);
  });

  it("C22: a refused query never reaches the server, and the next one runs", async () => {
    const session = openSession(noDeletes);
    await session.send(client.query("DELETE FROM orders"));
    const sent = session.upstreamBytes().toString();
    expect(sent).toContain(nonce);
    expect(sent).not.toContain("DELETE");
    session.reply(nonceError(), server.ready("I"));
    const [error, ready] = session.received();
    expect(errorIn(error!.body)).toEqual({ sqlstate: "42501", message: "no deletes" });
    expect(ready!.type).toBe("Z");
    await session.send(client.query("SELECT 2"));
    expect(session.upstreamBytes()).toEqual(client.query("SELECT 2"));
  });

  it("relays 25P02 as it is when the refused query meets a failed transaction", async () => {
    const session = openSession(noDeletes);
    await session.send(client.query("DELETE FROM orders"));
    session.reply(server.error("25P02", "current transaction is aborted"), server.ready("E"));
    expect(errorIn(session.received()[0]!.body).sqlstate).toBe("25P02");
  });

  it("lets 25P02 come before an EXECUTE of an unknown name, but not before a Bind of one", async () => {
    const session = openSession([]);
    await session.send(client.query("EXECUTE nobody"));
    expect(session.upstreamBytes().toString()).toContain("SELECT");
    session.reply(server.error("25P02", "current transaction is aborted"), server.ready("E"));
    expect(errorIn(session.received()[0]?.body ?? Buffer.alloc(0)).sqlstate).toBe("25P02");
    await session.send(client.bind("", "nobody"), client.sync());
    expect(session.upstreamBytes().toString()).not.toContain("SELECT");
  });

  it("C14: one refused statement of several keeps all of them from running", async () => {
    const session = openSession(noDeletes);
    await session.send(client.query("INSERT INTO orders VALUES (1); DELETE FROM orders; SELECT 1"));
    expect(session.upstreamBytes().toString()).not.toContain("INSERT");
  });

  it("does not take a message that merely quotes the nonce's statement for another's refusal", async () => {
    const session = openSession(noDeletes);
    await session.send(client.query("SELECT 1"));
    session.reply(nonceError(), server.ready("I"));
    expect(errorIn(session.received()[0]!.body).sqlstate).toBe("42703");
  });

  it("answers a syntax error in PostgreSQL's own words and position", async () => {
    const session = openSession([]);
    await session.send(client.query("SELEC 1"));
    session.reply(nonceError(), server.ready("I"));
    expect(errorIn(session.received()[0]!.body)).toEqual({
      sqlstate: "42601",
      message: 'syntax error at or near "SELEC"',
    });
  });

  it("C30: an empty query passes without a verdict", async () => {
    const session = openSession([]);
    await session.send(client.query(" ;; -- nothing"));
    expect(session.upstream()).toBe("Q");
  });
});

describe("extended queries", () => {
  const select = [
    client.parse("", "SELECT 1"),
    client.bind("", ""),
    client.describe("P", ""),
    client.execute(""),
  ];

  it("passes an allowed cycle unchanged in one write", async () => {
    const session = openSession(noDeletes);
    const bytes = Buffer.concat([...select, client.sync()]);
    await session.send(bytes);
    expect(session.upstreamBytes()).toEqual(bytes);
    session.reply(
      server.parseComplete(),
      server.bindComplete(),
      server.rowDescription(),
      server.dataRow("1"),
    );
    session.reply(server.complete("SELECT 1"), server.ready("I"));
    expect(session.session.isIdle).toBe(true);
    expect(session.recording.responses).toMatchObject([{ tag: "SELECT 1", rows: 1 }]);
  });

  it("C1, C3: a refused Parse is replaced, what follows is dropped up to Sync, one error comes back", async () => {
    const session = openSession(noDeletes);
    await session.send(
      client.parse("", "INSERT INTO orders VALUES (1)"),
      client.bind("", ""),
      client.execute(""),
    );
    await session.send(
      client.parse("", "DELETE FROM orders"),
      client.bind("", ""),
      client.execute(""),
      client.sync(),
    );
    expect(session.upstream()).toBe("PBEPS");
    session.reply(server.parseComplete(), server.bindComplete(), server.complete("INSERT 0 1"));
    session.reply(nonceError(), server.ready("I"));
    expect(
      session
        .received()
        .map(({ type }) => type)
        .join(""),
    ).toBe("12CEZ");
  });

  it("C8: a statement parsed under an old policy is judged again at Bind", async () => {
    const session = openSession([]);
    await session.send(client.parse("d", "DELETE FROM orders"), client.sync());
    session.reply(server.parseComplete(), server.ready("I"));
    session.upstreamBytes();
    session.adopt(noDeletes);
    await session.send(client.bind("", "d"), client.execute(""), client.sync());
    expect(session.upstream()).toBe("PS");
  });

  it("a portal bound under an old policy is not executed under one that refuses it", async () => {
    const session = openSession([]);
    await session.send(client.query("BEGIN"));
    session.reply(server.complete("BEGIN"), server.ready("T"));
    await session.send(client.parse("", "DELETE FROM orders"), client.bind("later", ""), client.sync());
    session.reply(server.parseComplete(), server.bindComplete(), server.ready("T"));
    session.upstreamBytes();
    session.adopt(noDeletes);
    await session.send(client.execute("later"), client.sync());
    expect(session.upstream()).toBe("PS");
  });

  it("a portal bound before the hour of a rule is not executed after it", async () => {
    const cel = "time >= timestamp('1970-01-01T01:00:00Z')";
    const session = openSession([{ name: "closed", match: { operations: ["read"], cel }, action: "Deny" }]);
    await session.send(client.query("BEGIN"));
    session.reply(server.complete("BEGIN"), server.ready("T"));
    await session.send(client.parse("", "SELECT id FROM orders"), client.bind("long", ""), client.sync());
    session.reply(server.parseComplete(), server.bindComplete(), server.ready("T"));
    session.upstreamBytes();
    await session.send(client.execute("long"), client.sync());
    expect(session.upstream()).toBe("ES");
    session.reply(server.complete("SELECT 1"), server.ready("T"));
    session.passTo(3_600_000);
    await session.send(client.execute("long"), client.sync());
    expect(session.upstream()).toBe("PS");
  });

  it("refuses to bind a statement that it does not know, as the server would", async () => {
    const session = openSession([]);
    await session.send(client.bind("", "nope"), client.execute(""), client.sync());
    expect(session.upstream()).toBe("PS");
    session.reply(nonceError(), server.ready("I"));
    expect(errorIn(session.received()[0]!.body)).toEqual({
      sqlstate: "26000",
      message: 'prepared statement "nope" does not exist',
    });
  });

  it("C10: a name that SQL PREPARE has made can be bound, and DEALLOCATE takes it away", async () => {
    const session = openSession(noDeletes);
    await session.send(client.query("PREPARE q AS SELECT 1"));
    session.reply(server.complete("PREPARE"), server.ready("I"));
    await session.send(client.bind("", "q"), client.execute(""), client.sync());
    expect(session.upstream()).toBe("QBES");
    session.reply(server.bindComplete(), server.complete("SELECT 1"), server.ready("I"));
    await session.send(client.query("DEALLOCATE q"));
    session.reply(server.complete("DEALLOCATE"), server.ready("I"));
    await session.send(client.bind("", "q"), client.execute(""), client.sync());
    expect(session.upstream()).toBe("QPS");
  });

  it("judges EXECUTE by what the name means now, not by what it meant when the text was judged before", async () => {
    const session = openSession(noDeletes);
    await session.send(client.parse("p", "SELECT 1"), client.sync());
    session.reply(server.parseComplete(), server.ready("I"));
    await session.send(client.query("EXECUTE p"));
    session.reply(server.complete("SELECT 1"), server.ready("I"));
    session.adopt([]);
    await session.send(client.close("S", "p"), client.parse("p", "DELETE FROM orders"), client.sync());
    session.reply(server.closeComplete(), server.parseComplete(), server.ready("I"));
    session.adopt(noDeletes);
    await session.send(client.query("EXECUTE p"));
    expect(session.upstreamBytes().toString()).toContain(nonce);
  });

  it("waits for the server before it binds a name that an earlier, unanswered pipeline prepares", async () => {
    const session = openSession([]);
    await session.send(client.parse("s", "SELECT 1"), client.sync());
    const later = session.send(client.bind("", "s"), client.execute(""), client.sync());
    expect(session.upstream()).toBe("PSH");
    session.reply(server.error("42601", "no"), server.ready("I"));
    await later;
    // The Parse failed: binding `s` now must not run as if it had been prepared.
    expect(session.upstream()).toBe("PS");
  });

  it("gives back the old meaning of a name when a later Parse of it is skipped", async () => {
    const session = openSession(noDeletes);
    await session.send(client.parse("", "SELECT 1"), client.sync());
    session.reply(server.parseComplete(), server.ready("I"));
    await session.send(client.parse("x", "SELECT nonsense"), client.parse("", "SELECT 2"), client.sync());
    session.reply(server.error("42703", "column does not exist"), server.ready("I"));
    session.recording.commands.length = 0;
    await session.send(client.bind("", ""), client.execute(""), client.sync());
    expect(session.recording.commands.map(({ text }) => text)).toEqual(["SELECT 1"]);
  });

  it("C17: FunctionCall is refused with 42501", async () => {
    const session = openSession([]);
    await session.send(client.functionCall());
    session.reply(nonceError(), server.ready("I"));
    const [error] = session.received();
    expect(errorIn(error!.body).sqlstate).toBe("42501");
  });
});

describe("a catalog that grows old while a statement is judged", () => {
  it("is read again, and the statement runs", async () => {
    let looks = 0;
    const session = openSession([], {}, () => {
      looks += 1;
      return looks === 1 || looks > 6;
    });
    await session.send(client.query("SELECT id FROM orders"));
    expect(session.upstream()).toBe("Q");
    session.reply(server.complete("SELECT 0"), server.ready("I"));
    expect(session.received().map(({ type }) => type)).toEqual(["C", "Z"]);
  });

  it("refuses the statement with 57P03 when it never becomes fresh, and the session goes on", async () => {
    const session = openSession([], {}, () => false);
    await session.send(client.query("SELECT id FROM orders"));
    session.reply(server.error("42703", `column "${nonce}" does not exist`), server.ready("I"));
    const [error] = session.received();
    expect(errorIn(error?.body ?? Buffer.alloc(0)).sqlstate).toBe("57P03");
  });
});

it("a Query that is answered ends portals that were bound before it, and none that were bound behind it", async () => {
  const session = openSession([]);
  const bound = (portal: string) => [client.parse("", "SELECT 1"), client.bind(portal, "")];
  await session.send(...bound("before"), client.query("SELECT 2"), ...bound(""));
  session.reply(
    server.parseComplete(),
    server.bindComplete(),
    server.complete("SELECT 1"),
    server.ready("I"),
  );
  session.upstream();
  await session.send(client.execute(""));
  expect(session.upstream()).toBe("E");
  session.reply(server.parseComplete(), server.bindComplete(), server.complete("SELECT 1"));
  await session.send(client.execute("before"), client.sync());
  session.reply(server.error("34000", 'portal "before" does not exist'), server.ready("I"));
  expect(session.session.isIdle).toBe(true);
});

describe("copy", () => {
  it("C18: a Sync sent while the server takes COPY data is not waited for", async () => {
    const session = openSession([]);
    await session.send(
      client.parse("", "COPY orders FROM STDIN"),
      client.bind("", ""),
      client.execute(""),
      client.sync(),
    );
    session.reply(server.parseComplete(), server.bindComplete(), server.copyIn());
    await session.send(client.copyData("1\t2\n"), client.copyDone(), client.sync());
    session.reply(server.complete("COPY 1"), server.ready("I"));
    expect(session.session.isIdle).toBe(true);
  });

  it("C18: a Sync pipelined behind the end of a COPY is answered, and what follows it too", async () => {
    const session = openSession([]);
    await session.send(
      ...[client.parse("", "COPY orders FROM STDIN"), client.bind("", ""), client.execute("")],
      ...[client.copyData("1\t2\n"), client.copyDone(), client.sync()],
      ...[client.parse("", "SELECT 1"), client.bind("", ""), client.execute(""), client.sync()],
    );
    session.reply(server.parseComplete(), server.bindComplete(), server.copyIn());
    session.reply(server.complete("COPY 1"), server.ready("I"));
    session.reply(
      server.parseComplete(),
      server.bindComplete(),
      server.complete("SELECT 1"),
      server.ready("I"),
    );
    expect(session.session.isIdle).toBe(true);
  });

  it("C18: an error in the middle of a CopyData never cuts that frame in two, or its rest would be read as messages", async () => {
    const session = openSession([]);
    await session.send(client.parse("", "COPY orders FROM STDIN"), client.bind("", ""), client.execute(""));
    session.reply(server.parseComplete(), server.bindComplete(), server.copyIn());
    session.upstreamBytes();
    const data = client.copyData("x".repeat(1000));
    await session.send(data.subarray(0, 300));
    session.reply(server.error("22P02", "bad input"));
    await session.send(data.subarray(300), client.copyData("dropped"), client.copyDone(), client.sync());
    expect(session.upstreamBytes()).toEqual(Buffer.concat([data, client.sync()]));
    session.reply(server.ready("I"));
    expect(session.session.isIdle).toBe(true);
  });

  it.each([
    ["ignored, so that the Query behind it is not sent", "Z33", "S", "EZ"],
    ["answered, so that the Query behind it is sent", "Z3Z33", "QS", "EZCZZ"],
  ] as const)("C18: a Sync inside a failed COPY is known to be %s", async (_, answers, sent, seen) => {
    const session = openSession([]);
    const done = session.send(
      ...[client.parse("", "COPY orders FROM STDIN"), client.bind("", ""), client.execute(""), client.sync()],
      ...[client.copyDone(), client.query("CREATE TEMP TABLE customers (id int)"), client.sync()],
    );
    expect(session.upstream()).toBe("PBEScH");
    session.reply(server.parseComplete(), server.bindComplete(), server.copyIn());
    session.received();
    session.reply(server.error("22P04", "COPY file signature not recognized"));
    await new Promise((resolve) => setImmediate(resolve));
    expect(session.upstream()).toBe("CSCCH");
    for (const letter of answers) session.reply(letter === "Z" ? server.ready("I") : server.closeComplete());
    await done;
    expect(session.upstream()).toBe(sent);
    if (sent === "QS") session.reply(server.complete("CREATE TABLE"), server.ready("I"));
    session.reply(server.ready("I"));
    const types = session.received().map(({ type }) => type);
    expect(types.join("")).toBe(seen);
    expect(session.session.isIdle).toBe(true);
  });

  it("C18: nothing is asked where the client waits for its answers, as libpq does", async () => {
    const session = openSession([]);
    const begin = [client.parse("", "COPY orders FROM STDIN"), client.bind("", ""), client.execute("")];
    await session.send(...begin, client.sync());
    session.reply(server.parseComplete(), server.bindComplete(), server.copyIn());
    await session.send(client.copyData("x\ty\n"), client.copyDone());
    session.reply(server.error("22P02", "bad input"));
    await session.send(client.sync());
    session.reply(server.ready("I"));
    await session.send(client.query("SELECT 1"));
    expect(session.upstream()).toBe("PBESdcSQ");
    session.reply(server.complete("SELECT 1"), server.ready("I"));
    expect(session.session.isIdle).toBe(true);
  });

  it("C18: a COPY that was ended is over, whatever was pipelined behind it before the server asked for data", async () => {
    const session = openSession([]);
    const whole = (text: string) => [client.parse("", text), client.bind("", ""), client.execute("")];
    await session.send(...whole("COPY orders FROM STDIN"), client.copyDone(), client.sync());
    await session.send(...whole("SELECT 1"));
    session.reply(server.parseComplete(), server.bindComplete(), server.copyIn());
    await session.send(client.sync());
    session.reply(server.error("22P04", "COPY file signature not recognized"), server.ready("I"));
    session.reply(server.parseComplete(), server.bindComplete(), server.complete("SELECT 1"));
    session.reply(server.ready("I"));
    expect(session.session.isIdle).toBe(true);
  });

  it("C18: takes the end of a COPY that came before the server asked for data", async () => {
    const session = openSession([]);
    await session.send(client.parse("", "COPY orders FROM STDIN"), client.bind("", ""), client.execute(""));
    await session.send(client.copyData("1\t2\n"), client.copyDone());
    session.reply(server.parseComplete(), server.bindComplete(), server.copyIn());
    await session.send(client.sync());
    session.reply(server.complete("COPY 1"), server.ready("I"));
    expect(session.session.isIdle).toBe(true);
  });

  it("streams CopyData through in pieces, whatever its size", async () => {
    const session = openSession([]);
    await session.send(client.query("COPY orders FROM STDIN"));
    session.reply(server.copyIn());
    session.upstreamBytes();
    const data = client.copyData("x".repeat(100_000));
    await session.send(data.subarray(0, 50_000));
    expect(session.upstreamBytes().length).toBe(50_000);
    await session.send(data.subarray(50_000));
    expect(session.upstreamBytes().length).toBe(data.length - 50_000);
  });
});

describe("bad input", () => {
  const violations: readonly (readonly [string, Buffer, string])[] = [
    ["an unknown message type", Buffer.from([0x21, 0, 0, 0, 4]), "08P01"],
    ["a negative length", Buffer.from([0x51, 0xff, 0xff, 0xff, 0xff]), "08P01"],
    ["a statement over the limit (C28)", Buffer.from([0x51, 0x40, 0, 0, 0]), "54000"],
    ["a password after login", Buffer.from([0x70, 0, 0, 0, 5, 0]), "08P01"],
  ];
  it.each(violations)("ends the session on %s", async (_what, bytes, sqlstate) => {
    const session = openSession([]);
    const failure = await session.send(bytes).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(failure).toBeInstanceOf(GatewayError);
    expect((failure as GatewayError).sqlstate).toBe(sqlstate);
  });

  it("D6, D7: a query in invalid UTF-8 or with an embedded NUL reaches no parser, and is answered as by the server", async () => {
    const texts = [
      ["3b003b00", "08P01", "invalid message format"],
      ["c08000", "22021", 'invalid byte sequence for encoding "UTF8": 0xc0 0x80'],
    ] as const;
    for (const [hex, sqlstate, message] of texts) {
      const session = openSession([]);
      const body = Buffer.from(hex, "hex");
      await session.send(Buffer.concat([Buffer.from([0x51, 0, 0, 0, 4 + body.length]), body]));
      expect(session.upstreamBytes()).toEqual(client.query(`"${nonce}"`));
      session.reply(nonceError(), server.ready("I"));
      const [error, ready] = session.received();
      expect(errorIn(error!.body)).toEqual({ sqlstate, message });
      expect(ready!.type).toBe("Z");
    }
  });

  it("D1: ends the session when the server reports standard_conforming_strings off", () => {
    const session = openSession([]);
    expect(() => session.reply(server.parameter("standard_conforming_strings", "off"))).toThrow(GatewayError);
  });

  it("fails closed when the server answers something that nobody asked for", () => {
    const session = openSession([]);
    expect(() => session.reply(server.parseComplete())).toThrow(GatewayError);
    expect(() => session.reply(server.ready("I"))).toThrow(GatewayError);
  });

  it("never throws anything but a GatewayError for bytes of a client or a server", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 6 }),
        fc.boolean(),
        async (chunks, up) => {
          const session = openSession([]);
          for (const chunk of chunks) {
            try {
              if (up) session.reply(Buffer.from(chunk));
              else await session.send(Buffer.from(chunk));
            } catch (error) {
              expect(error).toBeInstanceOf(GatewayError);
              return;
            }
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("framing", () => {
  const clientStream = Buffer.concat([
    client.query("SELECT 1"),
    client.parse("", "SELECT id FROM customers"),
    client.bind("", "", ["7", null]),
    client.execute(""),
    client.sync(),
  ]);
  const serverStream = Buffer.concat([
    server.rowDescription(),
    server.dataRow("1"),
    server.complete("SELECT 1"),
    server.ready("I"),
    server.parseComplete(),
    server.bindComplete(),
    server.dataRow("Ann"),
    server.complete("SELECT 1"),
    server.ready("I"),
  ]);

  it("gives the same bytes wherever the streams are cut", async () => {
    for (let cut = 0; cut <= clientStream.length; cut += 1) {
      const session = openSession(noDeletes);
      await session.send(clientStream.subarray(0, cut));
      await session.send(clientStream.subarray(cut));
      expect(session.upstreamBytes()).toEqual(clientStream);
    }
    for (let cut = 0; cut <= serverStream.length; cut += 1) {
      const session = openSession(noDeletes);
      await session.send(clientStream);
      session.reply(serverStream.subarray(0, cut));
      session.reply(serverStream.subarray(cut));
      expect(session.clientBytes()).toEqual(serverStream);
      expect(session.recording.responses.length).toBe(2);
    }
    expect(messagesIn(serverStream).length).toBe(9);
  });
});

describe("recording", () => {
  it("keeps the rows as the client gets them, wherever the stream is cut", async () => {
    const rows = Buffer.concat([server.rowDescription(), server.dataRow("one"), server.dataRow("two")]);
    for (let cut = 1; cut < rows.length; cut += 1) {
      const session = openSession([]);
      await session.send(client.query("SELECT 1"));
      session.reply(rows.subarray(0, cut));
      session.reply(rows.subarray(cut), server.complete("SELECT 2"), server.ready("I"));
      expect(session.recording.rowBytes).toBe(rows.length);
    }
  });

  it("refuses with 57P03 what cannot be recorded, and nothing of it reaches the server", async () => {
    const session = openSession([]);
    session.recording.failure = new Error("disk full");
    await session.send(client.query("SELECT 1"));
    expect(session.upstreamBytes().toString()).not.toContain("SELECT 1");
    session.reply(nonceError(), server.ready("I"));
    expect(errorIn(session.received()[0]!.body).sqlstate).toBe("57P03");
  });
});

describe("a pipeline longer than what may be owed", () => {
  const queries = Array.from({ length: 10 }, (_, index) => client.query(`SELECT ${index}`));
  const answer = [server.complete("SELECT 0"), server.ready("I")];

  it("waits in the client's socket until the server has answered half of it, and loses nothing (C23)", async () => {
    const session = openSession([], { owedMax: 4 });
    let isTaken = false;
    const sent = session.send(...queries).then(() => {
      isTaken = true;
    });
    expect(session.upstream()).toBe("QQQQH");
    session.reply(...answer);
    await new Promise((resolve) => setImmediate(resolve));
    expect(session.upstream()).toBe("");
    session.reply(...answer);
    await new Promise((resolve) => setImmediate(resolve));
    expect(session.upstream()).toBe("QQH");
    for (let index = 2; index < 6; index += 1) session.reply(...answer);
    await new Promise((resolve) => setImmediate(resolve));
    for (let index = 6; index < 10; index += 1) session.reply(...answer);
    await sent;
    expect(isTaken).toBe(true);
    expect(session.received().map(({ type }) => type)).toEqual(queries.flatMap(() => ["C", "Z"]));
    expect(session.recording.commands).toHaveLength(10);
  });

  it("is read no further once the session has ended", async () => {
    const session = openSession([], { owedMax: 4 });
    const sent = session.send(...queries);
    session.session.end();
    await sent;
    expect(session.upstream()).toBe("QQQQH");
  });

  it("ends the session where the server takes COPY data and so answers nothing", async () => {
    const session = openSession([], { owedMax: 4 });
    await session.send(client.query("COPY orders FROM STDIN"));
    session.reply(server.copyIn());
    await expect(session.send(...Array.from({ length: 5 }, () => client.sync()))).rejects.toThrow(
      GatewayError,
    );
  });

  it("lets the client say Terminate at once", async () => {
    const session = openSession([], { owedMax: 4 });
    await session.send(...queries.slice(0, 4), client.terminate());
    expect(session.upstream()).toBe("QQQQX");
  });
});
