/** PgBouncer from Debian, in session mode: what the gateway is measured beside. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, chown, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { atExit } from "../targets/at-exit.ts";
import { createAuthority } from "../targets/certificates.ts";
import { freePort } from "../targets/postgres.ts";

/** A running PgBouncer. */
export interface PgBouncer {
  readonly port: number;
  readonly pid: number;
  /** Its Unix domain socket is here. */
  readonly socketDir: string;
  readonly caFile: string;
  stop(): Promise<void>;
}

/** The program, or undefined where it is not installed. */
export function pgbouncerProgram(): string | undefined {
  return ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].find((path) => existsSync(path));
}

/** What PgBouncer needs of the server behind it. */
export interface BouncedServer {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly superuser: string;
  readonly password: string;
}

/**
 * Starts PgBouncer: TLS for clients over TCP, none over its socket, SCRAM toward clients. To the server it speaks plain
 * TCP, or, given the server's authority, verified TLS.
 */
export async function startPgBouncer(server: BouncedServer, serverCa?: string): Promise<PgBouncer> {
  const program = pgbouncerProgram();
  if (program === undefined) throw new Error("PgBouncer is missing: apt-get install -y pgbouncer");
  const home = await mkdtemp(join(tmpdir(), "sallyport-pgbouncer-"));
  // It refuses to run as root.
  const account = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : undefined;
  const keep = async (name: string, text: string) => {
    const path = join(home, name);
    await writeFile(path, text, { mode: 0o600 });
    if (account !== undefined) await chown(path, account.uid, account.gid);
    return path;
  };
  if (account !== undefined) await chown(home, account.uid, account.gid);
  await chmod(home, 0o755);
  const authority = await createAuthority("PgBouncer bench authority");
  const certificate = await authority.issue({
    commonName: "localhost",
    dnsNames: ["localhost"],
    usage: "server",
  });
  const certFile = await keep("server.crt", certificate.certPem);
  const keyFile = await keep("server.key", certificate.keyPem);
  const caFile = await keep("ca.crt", authority.caPem);
  const toServer =
    serverCa === undefined
      ? "server_tls_sslmode = disable"
      : `server_tls_sslmode = verify-full\nserver_tls_ca_file = ${await keep("server-ca.crt", serverCa)}`;
  const usersFile = await keep("users.txt", `"${server.superuser}" "${server.password}"\n`);
  const port = await freePort();
  const configuration = await keep(
    "pgbouncer.ini",
    `[databases]
${server.database} = host=${server.host} port=${server.port} dbname=${server.database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir = ${home}
auth_type = scram-sha-256
auth_file = ${usersFile}
pool_mode = session
max_client_conn = 500
default_pool_size = 100
client_tls_sslmode = require
client_tls_cert_file = ${certFile}
client_tls_key_file = ${keyFile}
${toServer}
log_connections = 0
log_disconnections = 0
`,
  );
  const child = spawn(program, ["-q", configuration], {
    stdio: ["ignore", "ignore", "pipe"],
    detached: true,
    ...account,
  });
  const forgetExit = atExit(() => child.kill("SIGKILL"));
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    log = (log + text).slice(-100_000);
  });
  const stop = async () => {
    await end(child);
    forgetExit();
    await rm(home, { recursive: true, force: true });
  };
  try {
    await answers(child, port);
  } catch (error) {
    await stop();
    throw new Error(`PgBouncer did not start\n${log}`, { cause: error });
  }
  return { port, pid: child.pid ?? 0, socketDir: home, caFile, stop };
}

async function answers(child: ChildProcess, port: number): Promise<void> {
  const deadline = Date.now() + 5_000;
  while (Date.now() < deadline && child.exitCode === null && child.pid !== undefined) {
    const socket = connect(port, "127.0.0.1");
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    });
    socket.destroy();
    if (isOpen) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error("it took no connection within five seconds");
}

async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill("SIGTERM");
  const deadline = setTimeout(() => child.kill("SIGKILL"), 5_000);
  await ended;
  clearTimeout(deadline);
}
