/** What the gateway costs where nothing much happens: start, memory after little and much, idle connections. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { parseAllDocuments } from "yaml";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { WireClient } from "../targets/wire-client.ts";
import { median } from "./pgbench.ts";
import { residentKilobytes, settledResidentKilobytes } from "./process-cost.ts";
import type { Row } from "./report.ts";
import { startScriptedUpstream } from "./scripted-upstream.ts";
import { gatewaySetting, reader } from "./ways.ts";

const limits = { readySeconds: 0.5, firstMegabytes: 90, corpusMegabytes: 150, idleKilobytes: 100 };
const corpusFolder = join(import.meta.dirname, "../../policy/testdata/sql");

/** Seconds from the start of the process to an answer of /readyz that says yes. */
export async function timeToReady(server: PostgresServer, starts: number): Promise<Row[]> {
  const times: number[] = [];
  for (let start = 0; start < starts; start++) {
    const begun = performance.now();
    const gateway = await startGateway({ server, ...gatewaySetting("Accepted") });
    times.push((performance.now() - begun) / 1000);
    await gateway.stop();
  }
  const seconds = median(times);
  return [
    within(
      "ready after start",
      limits.readySeconds,
      seconds,
      `${seconds.toFixed(2)} s, median of ${starts} starts`,
    ),
  ];
}

/** Resident memory after the first statement, and after every statement of the SQL corpus. */
export async function memory(): Promise<Row[]> {
  const server = await startPostgres({
    database: "shop",
    initSql: await readFile(join(corpusFolder, "schema.sql"), "utf8"),
  });
  try {
    await server.query("CREATE ROLE corpus LOGIN PASSWORD 'corpus' NOINHERIT");
    await server.query("GRANT SELECT ON ALL TABLES IN SCHEMA public TO corpus");
    const gateway = await startGateway({
      server,
      ...gatewaySetting("Accepted"),
      // The policies let only reads through, and this account could do little else: the corpus is not harmless.
      account: { username: "corpus", password: "corpus" },
    });
    try {
      const client = await gateway.connect(reader);
      await client.query("SELECT 1");
      const first =
        Math.max(await residentKilobytes(gateway.pid), await settledResidentKilobytes(gateway.pid)) / 1024;
      await client.end();
      const count = await runCorpus(gateway, server);
      const all =
        Math.max(await residentKilobytes(gateway.pid), await settledResidentKilobytes(gateway.pid)) / 1024;
      return [
        within(
          "resident memory after the first statement",
          limits.firstMegabytes,
          first,
          `${first.toFixed(0)} MB`,
        ),
        within(
          "resident memory after the corpus",
          limits.corpusMegabytes,
          all,
          `${all.toFixed(0)} MB, ${count} statements`,
        ),
      ];
    } finally {
      await gateway.stop();
    }
  } finally {
    await server.stop();
  }
}

/** A statement that ends the session or leaves it in a state of its own must not spoil the next one. */
async function runCorpus(gateway: Gateway, server: PostgresServer): Promise<number> {
  const connect = async () => {
    const client = await gateway.connect(reader, { database: server.database, query_timeout: 10_000 });
    client.on("error", () => {});
    return client;
  };
  let client = await connect();
  const statements = await corpusStatements();
  for (const sql of statements) {
    try {
      await client.query(sql);
    } catch (error) {
      if (error instanceof pg.DatabaseError && error.severity !== "FATAL") continue;
      client.end().catch(() => {});
      client = await connect();
    }
  }
  await client.end();
  return statements.length;
}

async function corpusStatements(): Promise<string[]> {
  const statements: string[] = [];
  const collect = (value: unknown) => {
    if (Array.isArray(value)) value.forEach(collect);
    else if (typeof value === "object" && value !== null) {
      for (const [key, inner] of Object.entries(value)) {
        if (key === "sql" && typeof inner === "string") statements.push(inner);
        else collect(inner);
      }
    }
  };
  for (const name of await readdir(corpusFolder)) {
    if (!name.endsWith(".yaml")) continue;
    const text = await readFile(join(corpusFolder, name), "utf8");
    for (const document of parseAllDocuments(text)) collect(document.toJS());
  }
  return statements;
}

/** Kilobytes for each further idle TLS connection, over many of them. */
export async function idleConnections(server: PostgresServer, count: number): Promise<Row[]> {
  const upstream = await startScriptedUpstream(server.port);
  const setting = gatewaySetting("Accepted");
  const gateway = await startGateway({
    server,
    ...setting,
    resource: { ...setting.resource, endpoint: { host: "127.0.0.1", port: upstream.port } },
  });
  const clients: WireClient[] = [];
  try {
    const login = {
      ...{ port: gateway.port, ca: gateway.caPem, user: gateway.user, database: server.database },
      password: await gateway.token(reader),
    };
    const open = async (howMany: number) => {
      for (let left = howMany; left > 0; left -= atOnce) {
        const more = Array.from({ length: Math.min(left, atOnce) }, () => WireClient.logIn(login));
        clients.push(...(await Promise.all(more)));
      }
    };
    // The first ones pay for what all share.
    await open(50);
    const before = await settledResidentKilobytes(gateway.pid);
    await open(count);
    const after = await settledResidentKilobytes(gateway.pid);
    const each = (after - before) / count;
    return [
      within(
        "idle TLS connection",
        limits.idleKilobytes,
        each,
        `${each.toFixed(0)} KB each, ${count} opened`,
      ),
    ];
  } finally {
    for (const client of clients) client.close();
    await gateway.stop();
    await upstream.stop();
  }
}

const atOnce = 20;

/** A row against a limit: 1 is at the limit, higher is better. */
function within(work: string, limit: number, measured: number, detail: string): Row {
  return { work, against: "limit", ratio: limit / measured, atLeast: 1, detail };
}
