/** Steps of two sessions of one attacker, one after the other or behind a lock, for scenarios of what changes under a statement. */
import pg from "pg";
import { afterAll, beforeAll } from "vitest";
import type { PostgresServer } from "../targets/postgres.ts";
import { type Shop, type ShopOptions, startShop } from "../targets/shop.ts";
import { until } from "../targets/until.ts";
import {
  bind,
  execute,
  frame,
  parse,
  query,
  type ServerMessage,
  type WireClient,
} from "../targets/wire-client.ts";

/**
 * Who sends what: a text is a Query; frames end with a Sync, and each further one of a step is answered by a step of nothing.
 * `A!` waits for a lock and is answered later.
 */
export type Step = readonly [who: "A" | "A!" | "B", ...(string | readonly Uint8Array[])[]];

export const sync = frame("S");

/** Statements of the extended protocol up to one Sync. */
export const flight = (...texts: readonly string[]): readonly Uint8Array[] => [
  ...texts.flatMap((text) => [parse("", text), bind("", ""), execute()]),
  sync,
];

/** A asks while B, in a transaction that it then commits, has done something under a lock. */
export const behindLock = (
  before: readonly string[],
  locked: readonly string[],
  asked: string | readonly Uint8Array[],
  ...after: readonly string[]
): readonly Step[] => [
  ...before.map((sql): Step => ["A", sql]),
  ["B", "BEGIN"],
  ...locked.map((sql): Step => ["B", sql]),
  ["A!", asked],
  ["B", "COMMIT"],
  ...after.map((sql): Step => ["A", sql]),
];

/** What is put back before each play. */
interface Ground {
  /** There from one play to the next, but for what is in them. */
  readonly schemas: readonly string[];
  readonly ground: string;
}

/**
 * The sessions of a group of tests, whose shop is there from before the first of them to after the last. `initSql` makes the
 * account `app` with its own name as password.
 */
export function sessionsOverTime(
  options: Pick<ShopOptions, "version" | "initSql" | "policies"> & Ground,
): SessionsOverTime {
  const { ground, schemas, ...shop } = options;
  const sessions = new SessionsOverTime({ ground, schemas });
  beforeAll(() => sessions.start({ ...shop, account: { username: "app", password: "app" } }));
  afterAll(() => sessions.stop());
  return sessions;
}

/** The sessions of all users of one gateway, by user and letter, as good as new for each play. */
class SessionsOverTime {
  #shop: Shop | undefined;
  readonly #ground: string;
  readonly #sessions = new Map<string, WireClient>();
  #owner: Promise<pg.Client> | undefined;
  /** Looks on from beside the gateway. */
  #observer: Promise<pg.Client> | undefined;
  /** The transaction from which on something may have been left; undefined before the ground was put there. */
  #cleanUntil: string | undefined;

  /** The ground is put back through the gateway, which knows of it at once. */
  constructor({ schemas, ground }: Ground) {
    const there = schemas.map((schema) => `CREATE SCHEMA IF NOT EXISTS ${schema}`);
    this.#ground = [emptied(schemas), ...there, ground].join(";\n");
  }

  async start(options: ShopOptions): Promise<void> {
    this.#shop = await startShop(options);
  }

  async stop(): Promise<void> {
    await this.close();
    await this.#shop?.stop();
  }

  get server(): PostgresServer {
    return this.#started.server;
  }

  get #started(): Shop {
    if (this.#shop === undefined) throw new Error("there are sessions only while tests run");
    return this.#shop;
  }

  /** Plays the steps and gives all that was answered. */
  async play(user: string, steps: readonly Step[]): Promise<readonly ServerMessage[]> {
    await this.#putBack();
    const seen: ServerMessage[] = [];
    const used = new Set<WireClient>();
    const open: Promise<void>[] = [];
    for (const [who, ...what] of steps) {
      const key = `${user} ${who.slice(0, 1)}`;
      const client = this.#sessions.get(key) ?? (await this.#started.gateway.connectWire({ user }));
      this.#sessions.set(key, client);
      used.add(client);
      if (what.length > 0)
        client.send(...what.flatMap((one) => (typeof one === "string" ? [query(one)] : one)));
      let isAnswered = false;
      const answer = client.until("Z").then((messages) => {
        isAnswered = true;
        seen.push(...messages);
      });
      if (who !== "A!") await answer;
      else {
        open.push(answer);
        await until(async () => isAnswered || (await this.#isSomebodyWaiting()));
      }
      // What was asked behind a lock is over before what comes behind the commit.
      if (what[0] === "COMMIT") await Promise.all(open);
    }
    await Promise.all(open);
    for (const client of used) {
      client.send(query("ROLLBACK"), query("DISCARD ALL"));
      for (let ready = 0; ready < 2; ready += 1) await client.until("Z");
    }
    return seen;
  }

  async close(): Promise<void> {
    for (const client of this.#sessions.values()) client.close();
    this.#sessions.clear();
    const owner = this.#owner;
    this.#owner = undefined;
    const observer = this.#observer;
    this.#observer = undefined;
    await (await owner)?.end();
    await (await observer)?.end();
  }

  /** Where all transactions since the last time were rolled back, what they found is there still. */
  async #putBack(): Promise<void> {
    const since = this.#cleanUntil;
    if (since !== undefined && !(await this.#hasCommitted(since))) return;
    this.#owner ??= this.#started.gateway.connect({ user: "owner" });
    await (await this.#owner).query(this.#ground);
    const [next] = await this.#observe("SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS xid");
    this.#cleanUntil = String(next?.xid);
  }

  async #hasCommitted(since: string): Promise<boolean> {
    const [found] = await this.#observe(
      `SELECT count(*) AS n FROM generate_series($1::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1) xid
       WHERE pg_xact_status(xid::text::xid8) IS DISTINCT FROM 'aborted'`,
      [since],
    );
    return Number(found?.n) > 0;
  }

  async #isSomebodyWaiting(): Promise<boolean> {
    const [row] = await this.#observe(
      "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
    );
    return Number(row?.n) > 0;
  }

  async #observe(sql: string, values: readonly string[] = []): Promise<readonly Record<string, unknown>[]> {
    this.#observer ??= connected(new pg.Client({ connectionString: this.server.connectionString }));
    return (await (await this.#observer).query(sql, [...values])).rows;
  }
}

async function connected(client: pg.Client): Promise<pg.Client> {
  await client.connect();
  return client;
}

/**
 * Drops all that is in these schemas of `app`. A schema made anew would have every session of the server plan its statements
 * anew, which takes longer than a play.
 */
const emptied = (schemas: readonly string[]) => `DO $empty$
DECLARE
  named text;
  dropped text;
BEGIN
  FOREACH named IN ARRAY '{${schemas.join(",")}}'::text[] LOOP
    -- What a play has granted, or given to somebody, goes with the schema.
    IF NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = named AND n.nspacl IS NULL AND n.nspowner = 'app'::regrole) THEN
      EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', named);
      CONTINUE;
    END IF;
    BEGIN
      FOR dropped IN SELECT format('DROP %s IF EXISTS %s CASCADE', o.type, o.identity) FROM pg_depend d,
        pg_identify_object(d.classid, d.objid, 0) o
        WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = named::regnamespace
      LOOP
        EXECUTE dropped;
      END LOOP;
    EXCEPTION WHEN others THEN
      EXECUTE format('DROP SCHEMA %I CASCADE', named);
    END;
  END LOOP;
END $empty$`;

/** The errors among messages, with their words. */
export const errorsIn = (messages: readonly ServerMessage[]): readonly string[] =>
  messages.flatMap(({ type, fields }) => (type === "E" ? [`${fields.C} ${fields.M}`] : []));
