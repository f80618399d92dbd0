/** The real gateway as its own process, started the way a user starts it: from a folder of manifests. */
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { rmSync } from "node:fs";
import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import pg from "pg";
import { atExit } from "./at-exit.ts";
import { localProvider, type SpecChange, shopResource, writeSecret } from "./manifests.ts";
import { freePort, type PostgresServer } from "./postgres.ts";
import { LocalIssuer, type TokenRequest } from "./tokens.ts";
import { WireClient } from "./wire-client.ts";

/** A gateway process. */
export interface GatewayProcess {
  /** The name in its certificate; clients verify it. */
  readonly host: "localhost";
  readonly port: number;
  readonly pid: number;
  /** What clients pass as sslrootcert. */
  readonly caFile: string;
  readonly caPem: string;
  readonly recordingDir: string;
  /** What recordings are verified with. */
  readonly publicKeyFile: string;
  /** `/healthz`, `/readyz` and `/metrics` are below it. */
  readonly adminUrl: string;
  /** Everything that it has written to standard output and standard error. */
  logs(): string;
  /** SIGTERM; resolves to the exit code. Rejects where it had not ended after a minute and was killed. */
  stop(): Promise<number | null>;
  kill9(): Promise<void>;
}

/** Where a gateway process reads from and writes to. */
export interface GatewayPlace {
  readonly configDir: string;
  readonly stateDir: string;
  /** What the manifests say under spec.listen.port. */
  readonly port: number;
  readonly args?: readonly string[];
  /** What Node runs as the command line; `sallyportCommand` where absent. */
  readonly program?: readonly string[];
  /** Run in front of the gateway's own command; it must exec it. */
  readonly wrapper?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly readyMs?: number;
}

/** Starts `sallyport gateway` and waits until it is ready. */
export async function spawnGateway(place: GatewayPlace): Promise<GatewayProcess> {
  const adminPort = await freePort();
  const args = [
    ...(place.program ?? sallyportCommand),
    "gateway",
    ...["--manifests", place.configDir, "--state", place.stateDir],
    ...["--admin", `127.0.0.1:${adminPort}`],
    ...(place.args ?? []),
  ];
  // A group of its own: Ctrl-C at a terminal must reach whoever started it, who then stops it in order.
  const [command = process.execPath, ...rest] = [...(place.wrapper ?? []), process.execPath, ...args];
  const child = spawn(command, rest, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...place.environment },
    detached: true,
  });
  let logs = "";
  const collect = (text: string) => {
    logs = (logs + text).slice(-4_000_000);
  };
  child.stdout.setEncoding("utf8").on("data", collect);
  child.stderr.setEncoding("utf8").on("data", collect);
  child.once(
    "exit",
    atExit(() => child.kill("SIGKILL")),
  );
  const adminUrl = `http://127.0.0.1:${adminPort}`;
  try {
    await becomesReady(child, `${adminUrl}/readyz`, place.readyMs ?? 80_000);
  } catch (error) {
    await end(child, "SIGKILL");
    throw new Error(`the gateway did not become ready\n${logs}`, { cause: error });
  }
  const caFile = join(place.stateDir, "ca.pem");
  return {
    host: "localhost",
    port: place.port,
    pid: child.pid ?? 0,
    caFile,
    caPem: await readFile(caFile, "utf8"),
    recordingDir: join(place.stateDir, "recordings"),
    publicKeyFile: join(place.stateDir, "recording.pub.pem"),
    adminUrl,
    logs: () => logs,
    stop: () => end(child, "SIGTERM"),
    kill9: async () => void (await end(child, "SIGKILL")),
  };
}

/**
 * What runs the command line; to be followed by its arguments. From its sources, or the bundle of `bundled.ts` where
 * that was made.
 */
export const sallyportCommand: readonly string[] =
  process.env.SALLYPORT_PROGRAM === undefined
    ? ["--import", import.meta.resolve("tsx"), join(import.meta.dirname, "../../cli/src/main.ts")]
    : [process.env.SALLYPORT_PROGRAM];

/** Writes a file beside its folder and moves it there: nobody ever reads half of it. */
export async function writeInOneStep(path: string, text: string): Promise<void> {
  const written = `${dirname(path)}.${randomUUID()}.written`;
  await writeFile(written, text);
  await rename(written, path);
}

/** What a scenario changes about the usual gateway. */
export interface GatewayOptions {
  readonly server: PostgresServer;
  /** YAML documents: AccessPolicies and ClusterAccessPolicies. */
  readonly policies: string;
  /** Put over the ProtectedResource's spec, key by key. */
  readonly resource?: SpecChange;
  /** Put over the IdentityProvider's spec, key by key. */
  readonly provider?: SpecChange;
  /** The account upstream; the superuser where absent. */
  readonly account?: { readonly username: string; readonly password: string };
  readonly args?: readonly string[];
  /** What Node runs as the command line; `sallyportCommand` where absent. */
  readonly program?: readonly string[];
  /** Run in front of the gateway's own command; it must exec it. */
  readonly wrapper?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

/** A gateway in front of one server: resource `shop` in namespace `default`, provider `local`. */
export interface Gateway extends GatewayProcess {
  /** What clients give as user: the name of the resource's only credential. */
  readonly user: string;
  readonly configDir: string;
  readonly issuer: LocalIssuer;
  /** A token of the local provider for this resource. */
  token(request: TokenRequest): Promise<string>;
  /** A connected node-postgres client; the caller ends it. */
  connect(request: TokenRequest, config?: pg.ClientConfig): Promise<pg.Client>;
  /** A client that speaks the protocol itself, logged in; the caller closes it. */
  connectWire(request: TokenRequest, database?: string): Promise<WireClient>;
  /** Writes a file into the folder of manifests, which the gateway watches. */
  write(name: string, text: string): Promise<void>;
}

/** Starts a gateway in front of a server. */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const home = await mkdtemp(join(tmpdir(), "sallyport-gateway-"));
  const forgetExit = atExit(() => rmSync(home, { recursive: true, force: true }));
  const configDir = join(home, "config");
  const issuer = new LocalIssuer("sallyport-test", "sallyport:default/shop");
  const port = await freePort();
  await writeConfiguration(configDir, options, { issuer, port });
  const place = {
    configDir,
    port,
    stateDir: join(home, "state"),
    args: ["--drain", "2", ...severalProcesses(), ...(options.args ?? [])],
    ...(options.program ? { program: options.program } : {}),
    ...(options.wrapper ? { wrapper: options.wrapper } : {}),
    ...(options.environment ? { environment: options.environment } : {}),
  };
  const gateway = await spawnGateway(place).catch(async (error: unknown) => {
    await rm(home, { recursive: true, force: true });
    throw error;
  });
  return {
    ...gateway,
    user: "shop",
    configDir,
    issuer,
    token: async (request) => issuer.token(request),
    connect: async (request, config = {}) => {
      const client = new pg.Client({
        host: gateway.host,
        port: gateway.port,
        user: "shop",
        database: options.server.database,
        password: issuer.token(request),
        ssl: { ca: gateway.caPem },
        ...config,
      });
      await client.connect();
      return client;
    },
    connectWire: (request, database = options.server.database) =>
      WireClient.logIn({
        port: gateway.port,
        ca: gateway.caPem,
        user: "shop",
        database,
        password: issuer.token(request),
      }),
    write: (name, text) => writeInOneStep(join(configDir, name), text),
    stop: async () => {
      const code = await gateway.stop();
      forgetExit();
      await rm(home, { recursive: true, force: true });
      return code;
    },
  };
}

/** SALLYPORT_TEST_PROCESSES=2: the same scenarios in front of several processes. */
function severalProcesses(): readonly string[] {
  const count = process.env.SALLYPORT_TEST_PROCESSES;
  return count === undefined ? [] : ["--processes", count];
}

async function writeConfiguration(
  configDir: string,
  options: GatewayOptions,
  { issuer, port }: { readonly issuer: LocalIssuer; readonly port: number },
): Promise<void> {
  const { server } = options;
  const account = options.account ?? { username: server.superuser, password: server.password };
  await writeSecret(join(configDir, "secrets/shop"), { ...account, "ca.crt": server.caPem });
  const resource = shopResource(server, { listen: { port }, ...options.resource });
  const provider = localProvider(issuer, options.provider);
  await writeFile(join(configDir, "resource.yaml"), JSON.stringify(resource));
  await writeFile(join(configDir, "provider.yaml"), JSON.stringify(provider));
  await writeFile(join(configDir, "policies.yaml"), options.policies);
}

async function becomesReady(child: ChildProcess, url: string, withinMs: number): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (Date.now() < deadline) {
    if (child.exitCode !== null || child.signalCode !== null) {
      throw new Error(`it ended with exit code ${child.exitCode}`);
    }
    if ((await statusOf(url)) === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`not ready within ${withinMs} ms`);
}

function statusOf(url: string): Promise<number> {
  return new Promise((resolve) => {
    const request = get(url, { agent: false, timeout: 2_000 }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    request.once("timeout", () => request.destroy());
    request.once("error", () => resolve(0));
  });
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill(signal);
  let isLate = false;
  const deadline = setTimeout(() => {
    isLate = true;
    child.kill("SIGKILL");
  }, endMs);
  await ended;
  clearTimeout(deadline);
  // Whatever the scenario was about: a gateway that stays holds up a node that is drained.
  if (isLate) throw new Error(`the gateway had not ended ${endMs} ms after ${signal}`);
  return child.exitCode;
}

const endMs = 60_000;
