/** The gateway in front of a real sshd, and real OpenSSH clients in front of the gateway. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type GatewayProcess, sallyportCommand, spawnGateway, writeInOneStep } from "./gateway.ts";
import { localProvider, writeSecret } from "./manifests.ts";
import type { OpenSshServer } from "./openssh.ts";
import { freePort } from "./postgres.ts";
import { LocalIssuer, type TokenRequest } from "./tokens.ts";

/** What a client printed, and how it ended. */
export interface ClientRun {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number | null;
}

/** How a client of a test is run. */
export interface RunOptions {
  /** Who asks; `alice` where absent. */
  readonly user?: TokenRequest;
  readonly token?: string;
  readonly input?: string | Buffer;
  readonly timeoutMs?: number;
  readonly environment?: Readonly<Record<string, string>>;
}

/** A gateway for resource `web`, with the clients that reach it. */
export interface SshGateway extends GatewayProcess {
  readonly home: string;
  readonly configDir: string;
  readonly issuer: LocalIssuer;
  /** Options of ssh, scp and sftp that lead to the gateway. */
  readonly options: readonly string[];
  /** `account%resource@127.0.0.1`, with the `%` doubled as OpenSSH 10 wants it. */
  readonly destination: string;
  /** Runs `ssh <options> <flags> destination <command>`. */
  ssh(flags: readonly string[], command: readonly string[], options?: RunOptions): Promise<ClientRun>;
  /** Runs any program of OpenSSH's, or one that starts ssh. */
  run(program: string, args: readonly string[], options?: RunOptions): Promise<ClientRun>;
  /** Runs `sallyport login --ssh`: `folder` gets a key, its certificate and a `config` in which the host is `web`. */
  login(folder: string, user?: TokenRequest, account?: string): Promise<ClientRun>;
  /** Starts one that goes on. */
  start(program: string, args: readonly string[], options?: RunOptions): ChildProcess;
  write(name: string, text: string): Promise<void>;
}

/** Starts a gateway for resource `web` in front of a server. */
export async function startSshGateway(request: {
  readonly server: OpenSshServer;
  readonly policies: string;
  readonly options?: Readonly<Record<string, unknown>>;
  readonly resource?: Readonly<Record<string, unknown>>;
  readonly args?: readonly string[];
  /** Node's arguments in front of the gateway's own; the sources where absent. */
  readonly program?: readonly string[];
}): Promise<SshGateway> {
  const { server } = request;
  const home = await mkdtemp(join(tmpdir(), "sallyport-ssh-"));
  const configDir = join(home, "config");
  const issuer = new LocalIssuer("sallyport-test", "sallyport:default/web");
  const port = await freePort();
  await writeSecret(join(configDir, "secrets/web"), {
    username: server.user,
    "ssh-privatekey": server.privateKey,
  });
  const resource = {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "ProtectedResource",
    metadata: { name: "web", namespace: "default" },
    spec: {
      protocol: "ssh",
      endpoint: { host: "127.0.0.1", port: server.port },
      listen: { port },
      credentials: [{ name: "app", secretRef: { name: "web" } }],
      identity: { providers: ["local"] },
      recording: { mode: "Required", content: ["commands", "responses"] },
      options: { hostKeys: [server.hostKey], ...request.options },
      ...request.resource,
    },
  };
  await writeFile(join(configDir, "resource.yaml"), JSON.stringify(resource));
  await writeFile(join(configDir, "provider.yaml"), JSON.stringify(localProvider(issuer)));
  await writeFile(join(configDir, "policies.yaml"), request.policies);
  const askpass = join(home, "askpass");
  await writeFile(askpass, '#!/bin/sh\nprintf "%s\\n" "$SALLYPORT_TOKEN"\n', { mode: 0o700 });
  const stateDir = join(home, "state");
  const gateway = await spawnGateway({
    configDir,
    stateDir,
    port,
    args: ["--drain", "2", "--listen", "127.0.0.1", ...(request.args ?? [])],
    ...(request.program === undefined ? {} : { program: request.program }),
  }).catch(async (error: unknown) => {
    await rm(home, { recursive: true, force: true });
    throw error;
  });
  const described = await listeners(join(stateDir, "listening.json"));
  const knownHosts = join(home, "known_hosts");
  await writeFile(knownHosts, `[127.0.0.1]:${port} ${described[0]?.knownHosts}\n`);
  const options = [
    ...["-F", "none", "-o", `Port=${port}`, "-o", `UserKnownHostsFile=${knownHosts}`],
    ...["-o", "StrictHostKeyChecking=yes", "-o", "NumberOfPasswordPrompts=1"],
    ...["-o", "PreferredAuthentications=password", "-o", "IdentityAgent=none", "-o", "IdentityFile=none"],
  ];
  const destination = "app%%web@127.0.0.1";
  const start = (program: string, args: readonly string[], { user, token, environment }: RunOptions = {}) =>
    spawn(program, args, {
      env: {
        PATH: process.env.PATH,
        HOME: home,
        LANG: "C.UTF-8",
        SSH_ASKPASS: askpass,
        SSH_ASKPASS_REQUIRE: "force",
        SALLYPORT_TOKEN: token ?? issuer.token(user ?? { user: "alice" }),
        ...environment,
      },
      stdio: ["pipe", "pipe", "pipe"],
    });
  const run = (program: string, args: readonly string[], options: RunOptions = {}) =>
    new Promise<ClientRun>((resolve, reject) => {
      const child = start(program, args, options);
      let [stdout, stderr] = ["", ""];
      child.stdout.setEncoding("latin1").on("data", (text: string) => {
        stdout += text;
      });
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        stderr += text;
      });
      const timer = setTimeout(() => {
        child.kill("SIGKILL");
        reject(
          new Error(`${program} ${args.join(" ")} takes too long\n${stderr}\n${gateway.logs().slice(-4000)}`),
        );
      }, options.timeoutMs ?? 60_000);
      child.once("error", reject);
      child.once("close", (code) => {
        clearTimeout(timer);
        resolve({ stdout, stderr, code });
      });
      child.stdin.on("error", () => undefined);
      child.stdin.end(options.input ?? "");
    });
  const login = (folder: string, user: TokenRequest = { user: "alice" }, account = "app") =>
    run(
      process.execPath,
      [
        ...[...sallyportCommand, "login", "--ssh", `127.0.0.1:${port}`, "--resource", "default/web"],
        ...["--account", account, "--known-hosts", knownHosts, "--folder", folder],
      ],
      { user },
    );
  return {
    ...gateway,
    home,
    configDir,
    issuer,
    options,
    destination,
    start,
    run,
    login,
    ssh: (flags, command, more) => run("ssh", [...options, ...flags, destination, ...command], more),
    write: (name, text) => writeInOneStep(join(configDir, name), text),
    stop: async () => {
      const code = await gateway.stop();
      await rm(home, { recursive: true, force: true });
      return code;
    },
  };
}

/** The file is written before the gateway says that it is ready. */
async function listeners(file: string): Promise<readonly { readonly knownHosts: string }[]> {
  return JSON.parse(await readFile(file, "utf8")).listeners;
}
