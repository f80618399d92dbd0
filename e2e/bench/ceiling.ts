/**
 * The same load through a relay that decides nothing, in turns with PgBouncer and the gateway: what is missing between
 * that relay and PgBouncer is Node's, what is missing between the gateway and the relay is ours.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createAuthority } from "../targets/certificates.ts";
import type { PostgresServer } from "../targets/postgres.ts";
import type { Row } from "./report.ts";
import { compareSelects, nameOfWork, type Pace } from "./speed.ts";
import { reached, transports, type Way, type Ways } from "./ways.ts";

/** The relay beside PgBouncer, and the gateway beside the relay. */
export async function ceiling(ways: Ways, pace: Pace): Promise<Row[]> {
  const relay = await startBareRelay(ways.server);
  try {
    const rows: Row[] = [];
    for (const transport of transports) {
      for (const clients of [1, 8, 64]) {
        const work = { protocol: "prepared", clients, transport } as const;
        const name = `${nameOfWork(work)}: a relay of Node that decides nothing`;
        rows.push(...(await compareSelects(name, work, relay.way, [ways.pgbouncer, ways.gateway], pace)));
      }
    }
    return rows;
  } finally {
    await relay.stop();
  }
}

async function startBareRelay(server: PostgresServer): Promise<{ way: Way; stop(): Promise<void> }> {
  const home = await mkdtemp(join(tmpdir(), "sallyport-relay-"));
  const authority = await createAuthority("relay bench authority");
  const certificate = await authority.issue({
    commonName: "localhost",
    dnsNames: ["localhost"],
    usage: "server",
  });
  const [caFile, certFile, keyFile] = ["ca.crt", "relay.crt", "relay.key"].map((name) => join(home, name));
  await writeFile(caFile ?? "", authority.caPem);
  await writeFile(certFile ?? "", certificate.certPem);
  await writeFile(keyFile ?? "", certificate.keyPem, { mode: 0o600 });
  const program = join(import.meta.dirname, "bare-relay.ts");
  const argv = [program, home, String(server.port), certFile ?? "", keyFile ?? ""];
  // Types are stripped by Node itself: nothing is loaded that a gateway would not load either.
  const child = spawn(process.execPath, argv, { stdio: ["ignore", "pipe", "inherit"] });
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    }
    await rm(home, { recursive: true, force: true });
  };
  const told = await Promise.race([once(child.stdout, "data"), once(child, "exit")]);
  const port = Number(String(told[0]).trim());
  if (!(port > 0) || child.exitCode !== null) {
    await stop();
    throw new Error("the relay did not start");
  }
  const way = reached("relay", child.pid, {
    ...{ port, socketDir: home, caFile: caFile ?? "" },
    ...{ user: server.superuser, password: server.password, database: server.database },
  });
  return { way, stop };
}
