/** Debian's own sshd as a process of the test, on 127.0.0.1 and with keys and a home of its own. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Readiness } from "../drivers/test-with.ts";
import { freePort } from "./postgres.ts";

const run = promisify(execFile);
const sshd = "/usr/sbin/sshd";
const sftpServer = "/usr/lib/openssh/sftp-server";

const clientPrograms = ["/usr/bin/ssh", "/usr/bin/ssh-keygen"];

/** OpenSSH's client, for tests that bring a host of their own. */
export const openSshClient: Readiness = absent(...clientPrograms) ?? { kind: "ready" };

/** A running sshd. */
export interface OpenSshServer {
  readonly kind: "ready";
  readonly port: number;
  /** Who logs in: whoever runs the test. */
  readonly user: string;
  /** Files of the test; no home of anybody. */
  readonly folder: string;
  /** The private key that it lets in: the gateway's. */
  readonly privateKey: string;
  /** Its own key, as known_hosts holds it. */
  readonly hostKey: string;
  logs(): string;
  /** Starts again with another host key, as whoever stands in its place would. */
  changeHostKey(): Promise<void>;
  stop(): Promise<void>;
}

function absent(...programs: readonly string[]): Exclude<Readiness, { kind: "ready" }> | undefined {
  const program = programs.find((each) => !existsSync(each));
  if (program === undefined) return undefined;
  const reason = `${program} is missing: apt-get install openssh-client openssh-server`;
  return { kind: "absent", reason, isCis: true };
}

/** Starts one, or says which package is missing. */
export async function startOpenSsh(
  settings: readonly string[] = [],
): Promise<OpenSshServer | Exclude<Readiness, { kind: "ready" }>> {
  const missing = absent(sshd, sftpServer, ...clientPrograms);
  if (missing !== undefined) return missing;
  const folder = await mkdtemp(join(tmpdir(), "sallyport-sshd-"));
  const port = await freePort();
  const { username: user, uid } = userInfo();
  // Where sshd separates its privileges as root; a service would make it.
  if (uid === 0) await mkdir("/run/sshd", { recursive: true, mode: 0o755 });
  const key = async (name: string) => {
    await rm(join(folder, name), { force: true });
    await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", join(folder, name)]);
  };
  await key("host");
  await key("gateway");
  await writeFile(join(folder, "authorized_keys"), await readFile(join(folder, "gateway.pub")));
  const configuration = [
    `Port ${port}`,
    "ListenAddress 127.0.0.1",
    `HostKey ${join(folder, "host")}`,
    `AuthorizedKeysFile ${join(folder, "authorized_keys")}`,
    `Subsystem sftp ${sftpServer}`,
    "PidFile none",
    "StrictModes no",
    "UsePAM no",
    "PermitRootLogin prohibit-password",
    "PasswordAuthentication no",
    "AcceptEnv LANG LC_* BASH_ENV LD_PRELOAD MARKED",
    "MaxSessions 20",
    "MaxStartups 200",
    "LogLevel VERBOSE",
    ...settings,
  ];
  await writeFile(join(folder, "sshd_config"), `${configuration.join("\n")}\n`);
  await mkdir(join(folder, "files"));
  await chmod(folder, 0o755);
  let logs = "";
  let child: ChildProcess;
  const start = async () => {
    child = spawn(sshd, ["-D", "-e", "-f", join(folder, "sshd_config")], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      logs = (logs + text).slice(-1_000_000);
    });
    await listens(port, child, () => logs);
  };
  await start();
  const end = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    await ended;
  };
  return {
    kind: "ready",
    port,
    user,
    folder: join(folder, "files"),
    privateKey: await readFile(join(folder, "gateway"), "utf8"),
    hostKey: (await readFile(join(folder, "host.pub"), "utf8")).trim(),
    logs: () => logs,
    changeHostKey: async () => {
      await end();
      await key("host");
      await start();
    },
    stop: async () => {
      await end();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function listens(port: number, child: ChildProcess, logs: () => string): Promise<void> {
  const deadline = Date.now() + 15_000;
  while (Date.now() < deadline) {
    if (child.exitCode !== null) throw new Error(`sshd ended\n${logs()}`);
    const isUp = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
      socket.once("connect", () => socket.destroy());
    });
    if (isUp) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`sshd does not listen\n${logs()}`);
}
