/**
 * Where the protocol is at its bounds: the most parameters and columns, long start-ups, floods of notices, cancel requests
 * in the middle of things, timeouts of the server's own. Each is played at the server too, and answered the same byte by byte.
 */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { policyDocument } from "../targets/policies.ts";
import { type Shop, startShop } from "../targets/shop.ts";
import {
  bind,
  cancelRequest,
  execute,
  frame,
  int16s,
  int32s,
  keyOf,
  parse,
  password,
  query,
  type ServerMessage,
  startup,
  WireClient,
} from "../targets/wire-client.ts";

let shop: Shop;
const columns = Array.from({ length: 1_600 }, (_, n) => `c${n}`);

beforeAll(async () => {
  shop = await startShop({
    initSql: `
      GRANT ALL ON SCHEMA public TO direct;
      CREATE TABLE item (n int PRIMARY KEY, word text);
      CREATE TABLE broad (${columns.map((name) => `${name} int2`).join()});
      INSERT INTO broad (c0, c1599) VALUES (7, 8);
      GRANT ALL ON item, broad TO direct;`,
    policies: policyDocument("shop", "ann", "  profile: Admin"),
  });
});
afterAll(() => shop?.stop());

const sides = ["direct", "through"] as const;
type Side = (typeof sides)[number];
const sync = frame("S");
const whole = (text: string, ...values: string[]) => [parse("", text), bind("", "", ...values), execute()];

interface Session {
  readonly client: WireClient;
  readonly greeting: readonly ServerMessage[];
  /** Where its cancel requests go. */
  readonly port: number;
}

async function opened(side: Side, more: Record<string, string> = {}): Promise<Session> {
  const { server, gateway } = shop;
  const [user, secret] =
    side === "direct" ? ["direct", "direct"] : ["shop", gateway.issuer.token({ user: "ann" })];
  const { port, caPem } = side === "direct" ? server : gateway;
  const client = await WireClient.connect(port);
  await client.startTls(caPem);
  client.send(startup({ user, database: "shop", ...more }));
  const before = await client.until("R");
  if (before.at(-1)?.type !== "R") return { client, greeting: before, port };
  client.send(password(secret));
  return { client, greeting: await client.until("Z"), port };
}

const shown = ({ type, body }: ServerMessage) => `${type} ${body.toString("latin1")}`;

/** Plays the same on both sides; what both have answered, where it is the same. */
async function same(
  play: (session: Session, side: Side) => Promise<readonly ServerMessage[]>,
): Promise<string[]> {
  const [wanted, got] = await Promise.all(
    sides.map(async (side) => {
      const session = await opened(side);
      try {
        return (await play(session, side)).map(shown);
      } finally {
        session.client.close();
      }
    }),
  );
  expect(got).toEqual(wanted);
  return got ?? [];
}
const asked = (...messages: Uint8Array[]) =>
  same(({ client }) => {
    client.send(...messages);
    return client.until("Z");
  });
const letters = (answers: readonly string[]) => answers.map((text) => text[0]).join("");

async function cancel({ greeting, port }: Session): Promise<void> {
  const canceller = await WireClient.connect(port);
  canceller.send(cancelRequest(keyOf(greeting)));
  expect(await canceller.untilClosed()).toEqual([]);
}

/** Until the statement that begins with this waits as told. */
async function waits(side: Side, text: string, event: string): Promise<void> {
  const name = side === "direct" ? "usename = 'direct'" : "usename <> 'direct'";
  const found = `SELECT 1 FROM pg_stat_activity WHERE ${name} AND starts_with(query, $1) AND wait_event = $2`;
  await expect.poll(() => shop.server.query(found, [text, event])).toHaveLength(1);
}

describe("as many as there may be", () => {
  const unsigned16 = (value: number) => Buffer.from([value >> 8, value & 0xff]);
  const most = 65_535;
  const many = Array.from({ length: most }, (_, n) => n);
  const bound = (values: readonly Buffer[], results: number) => {
    const given = Buffer.concat(values.flatMap((value) => [int32s(value.length), value]));
    return frame("B", "\0\0", int16s(1, 1), unsigned16(values.length), given, int16s(1, results));
  };

  it("65,535 parameters arrive, each with a type, in binary", async () => {
    const sql = `SELECT sum(n) FROM (VALUES ${many.map((n) => `($${n + 1})`).join()}) v (n)`;
    const parsed = frame("P", `\0${sql}\0`, unsigned16(most), int32s(...many.map(() => 23)));
    const answers = await asked(
      parsed,
      bound(
        many.map((n) => int32s(n)),
        0,
      ),
      execute(),
      sync,
    );
    expect(letters(answers)).toBe("12DCZ");
    expect(answers[2]).toContain(String((most * (most - 1)) / 2));
  });

  it("1,600 columns go out and in, in every way", async () => {
    const select = "TABLE broad";
    expect(letters(await asked(query(select)))).toBe("TDCZ");
    expect(letters(await asked(parse("", select), frame("D", "S\0"), bound([], 1), execute(), sync))).toBe(
      "1tT2DCZ",
    );
    expect(letters(await asked(query("COPY broad TO STDOUT BINARY")))).toBe("HddcCZ");
    const row = frame("d", `${columns.map((_, n) => n).join("\t")}\n`);
    const copied = [query("BEGIN"), query("COPY broad FROM STDIN"), row, frame("c"), query("ROLLBACK")];
    const answers = await same(async ({ client }) => {
      client.send(...copied);
      return [...(await client.until("Z")), ...(await client.until("Z")), ...(await client.until("Z"))];
    });
    expect(letters(answers)).toBe("CZGCZCZ");
  });

  it("what is more than the server takes is refused in its words", async () => {
    const wide = `SELECT ${Array.from({ length: 1_665 }, (_, n) => n).join()}`;
    const table = `CREATE TEMP TABLE more (${Array.from({ length: 1_601 }, (_, n) => `c${n} int`).join()})`;
    for (const text of [wide, table]) {
      const answers = await asked(query(text));
      expect(letters(answers)).toBe("EZ");
      expect(answers[0]).toContain("C54011");
    }
  });

  it("a start-up packet may have 10,000 bytes, and not one more", async () => {
    for (const length of [9_000, 9_900, 10_100]) {
      const options = `-c search_path=${"a,".repeat((length - 100) / 2)}public`;
      const seen: string[][] = [];
      for (const side of sides) {
        const { client, greeting } = await opened(side, { options });
        if (greeting.at(-1)?.type === "Z") client.send(query("SHOW search_path"));
        seen.push(greeting.at(-1)?.type === "Z" ? (await client.until("Z")).map(shown) : greeting.map(shown));
        client.close();
      }
      expect(seen[1]).toEqual(seen[0]);
      expect(letters(seen[0] ?? []), String(length)).toBe(length < 10_000 ? "TDCZ" : "");
    }
  });

  it("ten thousand Syncs are answered ten thousand times", async () => {
    const answers = await same(async ({ client }) => {
      client.send(...Array.from({ length: 10_000 }, () => sync), query("SELECT 'last'"));
      return client.until("C");
    });
    expect(letters(answers)).toBe(`${"Z".repeat(10_000)}TDC`);
  });
});

it("a flood of notices is held back for a slow reader, and arrives whole", async () => {
  const notices = 12_000;
  const flood = `DO $$BEGIN FOR n IN 1..${notices} LOOP RAISE NOTICE 'notice % %', n, repeat('x', 4000); END LOOP; END$$`;
  const resident = async () => {
    const status = await readFile(`/proc/${shop.gateway.pid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
  };
  const digests: string[] = [];
  for (const side of sides) {
    const { client } = await opened(side);
    const before = await resident();
    client.socket.removeAllListeners("data");
    client.socket.pause();
    client.send(query(flood));
    await waits(side, "DO ", "ClientWrite");
    // All of them would be 48 MB.
    expect(await resident()).toBeLessThan(before + 40);
    const hash = createHash("sha256");
    let bytes = 0;
    let tail = Buffer.alloc(0);
    client.socket.on("data", (chunk: Buffer) => {
      hash.update(chunk);
      bytes += chunk.length;
      tail = Buffer.concat([tail, chunk]).subarray(-16);
    });
    client.socket.resume();
    await expect.poll(() => tail.toString("latin1")).toContain("DO\0Z");
    expect(bytes).toBeGreaterThan(notices * 4000);
    digests.push(hash.digest("hex"));
    client.close();
  }
  expect(digests[1]).toBe(digests[0]);
});

describe("a cancel request", () => {
  it("in the middle of a COPY in ends it with the next row", async () => {
    const copy = "COPY item FROM STDIN";
    const answers = await same(async (session, side) => {
      const { client } = session;
      client.send(query(copy), frame("d", "1\tone\n"));
      await waits(side, copy, "ClientRead");
      const began = await client.until("G");
      await cancel(session);
      // The server looks for it when it has read more, and it may take a moment to arrive there.
      let rest: ServerMessage[] = [];
      const ended = client.until("Z").then((messages) => {
        rest = messages;
      });
      let n = 1;
      await expect
        .poll(
          () => {
            if (rest.length === 0) client.send(frame("d", `${++n}\tmore\n`));
            return rest.length;
          },
          { interval: 20 },
        )
        .toBe(2);
      await ended;
      client.send(frame("c"), query("SELECT count(*) FROM item"));
      const scrubbed = rest.map((message) =>
        message.type === "E"
          ? { ...message, body: Buffer.from(`${message.fields.C} ${message.fields.M}`) }
          : message,
      );
      return [...began, ...scrubbed, ...(await client.until("Z"))];
    });
    expect(letters(answers)).toBe("GEZTDCZ");
    expect(answers[1]).toContain("57014");
  });

  it("in the middle of a COPY out ends it, and the session goes on", async () => {
    const copy = "COPY (SELECT repeat('x', 100000) FROM generate_series(1, 1000000)) TO STDOUT";
    const answers = await same(async (session, side) => {
      const { client } = session;
      client.socket.pause();
      client.send(query(copy));
      await waits(side, copy, "ClientWrite");
      await cancel(session);
      client.socket.resume();
      const ended = (await client.until("Z")).filter(({ type }) => type !== "d");
      client.send(query("SELECT 'behind it'"));
      return [...ended, ...(await client.until("Z"))];
    });
    expect(letters(answers)).toBe("HEZTDCZ");
    expect(answers[1]).toContain("57014");
  });

  it("ends the statement of a pipeline that runs, what stands behind it up to Sync, and nothing more", async () => {
    const sleep = "SELECT pg_sleep(50)";
    const answers = await same(async (session, side) => {
      const { client } = session;
      client.send(
        ...whole("INSERT INTO item VALUES (77, 'undone')"),
        ...whole(sleep),
        ...whole("SELECT 'skipped'"),
        sync,
      );
      client.send(...whole("SELECT count(*) FROM item WHERE n = $1", "77"), sync);
      await waits(side, sleep, "PgSleep");
      await cancel(session);
      return [...(await client.until("Z")), ...(await client.until("Z"))];
    });
    expect(letters(answers)).toBe("12C12EZ12DCZ");
    expect(answers[5]).toContain("57014");
    expect(answers[9]).toBe("D \0\x01\0\0\0\x010");
  });
});

describe("what the server ends by itself", () => {
  it.each([
    ["25P03", ["SET idle_in_transaction_session_timeout = 200", "BEGIN"], true],
    ["57P05", ["SET idle_session_timeout = 200"], true],
    ["57014", ["SET statement_timeout = 200", "SELECT pg_sleep(20)"], false],
    ["57014", ["BEGIN; SET LOCAL statement_timeout = 200", "SELECT pg_sleep(20)", "COMMIT"], false],
  ] as const)("%s after %s is told as the server tells it", async (code, texts, isLast) => {
    const answers = await same(async ({ client }) => {
      const seen: ServerMessage[] = [];
      for (const text of texts) {
        client.send(query(text));
        seen.push(...(await client.until("Z")));
      }
      if (isLast) seen.push(...(await client.untilClosed()));
      return seen;
    });
    expect(answers.join()).toContain(`C${code}`);
  });

  it("a lock that is not given in time, and a pipeline that is ended in its middle", async () => {
    const lock = "SELECT pg_advisory_xact_lock(77)";
    const holder = await shop.logInDirect();
    holder.send(query(`BEGIN; ${lock}`));
    await holder.until("Z");
    const late = await same(async ({ client }) => {
      client.send(query("SET lock_timeout = 100"), query(lock));
      return [...(await client.until("Z")), ...(await client.until("Z"))];
    });
    expect(late.join()).toContain("C55P03");
    holder.close();
    const sleep = "SELECT pg_sleep(51)";
    const ended = await same(async ({ client }, side) => {
      client.send(
        ...whole("INSERT INTO item VALUES (501, 'undone')"),
        ...whole(sleep),
        ...whole("SELECT 1"),
        sync,
      );
      client.send(query("INSERT INTO item VALUES (502, 'never')"));
      await waits(side, sleep, "PgSleep");
      const mine = side === "direct" ? "usename = 'direct'" : "usename <> 'direct'";
      await shop.server.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = $1 AND ${mine}`,
        [sleep],
      );
      return client.untilClosed();
    });
    expect(letters(ended)).toBe("12C12E");
    expect(ended.at(-1)).toContain("C57P01");
    expect(await shop.server.query("SELECT n FROM item WHERE n > 500")).toEqual([]);
  });
});

it("messages that belong to no copy and to no login are answered as by the server", async () => {
  const stray = [frame("d", "1\n"), frame("c"), frame("f", "no\0"), frame("H")];
  expect(letters(await asked(...stray, query("SELECT 1")))).toBe("TDCZ");
  for (const late of [password("x"), frame("p", "SCRAM-SHA-256\0", int32s(0))]) {
    const answers = await same(async ({ client }) => {
      client.send(late, query("SELECT 1"));
      return (await client.untilClosed()).map((message) => ({
        ...message,
        body: Buffer.from(message.fields.C ?? ""),
      }));
    });
    expect(answers).toEqual(["E 08P01"]);
  }
});
