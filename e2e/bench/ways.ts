/** The three ways to the same server that are measured side by side: direct, PgBouncer, and the gateway. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { allocator } from "../image/gateway.ts";
import { startGateway } from "../targets/gateway.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { bundle } from "./bundle.ts";
import { fillPgbenchTables, type LibpqEnvironment } from "./pgbench.ts";
import { startPgBouncer } from "./pgbouncer.ts";
import { tenPolicies } from "./policies.ts";

/** How a client reaches the near end; the far end is plain TCP for PgBouncer and the gateway alike. */
export type Transport = "TLS" | "socket";
export const transports = ["TLS", "socket"] as const;

/** One way to the server. */
export interface Way {
  readonly name: "direct" | "pgbouncer" | "relay" | "gateway" | "gateway, Durable" | "gateway, 2 processes";
  /** The process in between. */
  readonly pid: number | undefined;
  to(transport: Transport): LibpqEnvironment;
}

/** The ways, and the server behind them. */
export interface Ways {
  readonly server: PostgresServer;
  readonly direct: Way;
  readonly pgbouncer: Way;
  readonly gateway: Way;
  readonly durable: Way;
  readonly twoProcesses: Way;
  stop(): Promise<void>;
}

/** Rows of pgbench_accounts are 95 to 97 bytes as text, so that this scale is 100 MB and a little. */
const scale = 11;

/** Starts everything and fills the tables. */
export async function startWays(): Promise<Ways> {
  const closers: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (const close of closers.reverse()) await close();
  };
  try {
    const server = await startPostgres({
      tls: true,
      settings: { max_connections: 400, shared_buffers: "256MB", jit: false },
    });
    closers.push(() => server.stop());
    const home = await mkdtemp(join(tmpdir(), "sallyport-bench-"));
    closers.push(() => rm(home, { recursive: true, force: true }));
    const caFile = join(home, "postgres-ca.crt");
    await writeFile(caFile, server.caPem);
    const direct = reached("direct", undefined, {
      ...{ port: server.port, socketDir: server.socketDir, caFile },
      ...{ user: server.superuser, password: server.password, database: server.database },
    });
    await fillPgbenchTables(direct.to("socket"), scale);
    await server.query("CREATE UNLOGGED TABLE copied (LIKE pgbench_accounts)");
    await server.query("VACUUM ANALYZE");
    const bouncer = await startPgBouncer(server);
    closers.push(() => bouncer.stop());
    const pgbouncer = reached("pgbouncer", bouncer.pid, {
      ...{ port: bouncer.port, socketDir: bouncer.socketDir, caFile: bouncer.caFile },
      ...{ user: server.superuser, password: server.password, database: server.database },
    });
    const start = (name: GatewayWay["name"], durability: GatewayWay["durability"], args: string[] = []) =>
      gatewayWay(server, closers, { name, durability, home, args });
    const gateway = await start("gateway", "Accepted");
    const durable = await start("gateway, Durable", "Durable");
    const twoProcesses = await start("gateway, 2 processes", "Accepted", ["--processes", "2"]);
    return { server, direct, pgbouncer, gateway, durable, twoProcesses, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** What a gateway of the benchmark is started with, whatever stands behind it. */
export const gatewaySetting = (durability: "Accepted" | "Durable") => ({
  policies: tenPolicies,
  program: bundle.program,
  environment: allocator,
  resource: {
    tls: { upstream: { mode: "disable" } },
    recording: { mode: "Required", durability, content: ["commands"] },
  },
});

/** Whom the ten policies speak of. */
export const reader = { user: "bench", groups: ["bench"], lifetimeSeconds: 4 * 3600 };

interface GatewayWay {
  readonly name: Way["name"];
  readonly durability: "Accepted" | "Durable";
  readonly home: string;
  readonly args: readonly string[];
}

async function gatewayWay(
  server: PostgresServer,
  closers: (() => Promise<unknown>)[],
  { name, durability, home, args }: GatewayWay,
): Promise<Way> {
  const socketDir = await mkdtemp(join(home, "socket-"));
  const gateway = await startGateway({
    server,
    ...gatewaySetting(durability),
    args: ["--listen-unix", socketDir, "--log-level", "warn", ...args],
  });
  closers.push(() => gateway.stop());
  return reached(name, gateway.pid, {
    ...{ port: gateway.port, socketDir, caFile: gateway.caFile },
    ...{ user: gateway.user, password: await gateway.token(reader), database: server.database },
  });
}

/** Where a way is reached, and as whom. */
export interface Reach {
  readonly port: number;
  readonly socketDir: string;
  readonly caFile: string;
  readonly user: string;
  readonly password: string;
  readonly database: string;
}

/** A way by where it is reached. */
export function reached(name: Way["name"], pid: number | undefined, reach: Reach): Way {
  const common = {
    PGPORT: String(reach.port),
    PGUSER: reach.user,
    PGPASSWORD: reach.password,
    PGDATABASE: reach.database,
  };
  // verify-full for all three, because libpq then does the same work whoever is at the other end.
  const tls = {
    PGHOST: "localhost",
    PGHOSTADDR: "127.0.0.1",
    PGSSLMODE: "verify-full",
    PGSSLROOTCERT: reach.caFile,
  };
  const to = (transport: Transport) => ({
    ...common,
    ...(transport === "TLS" ? tls : { PGHOST: reach.socketDir }),
  });
  return { name, pid, to };
}
