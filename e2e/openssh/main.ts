/**
 * OpenSSH's own regression scripts through the gateway: those that drive a client against a server, unchanged.
 *
 *     tsx e2e/openssh/main.ts [--source FOLDER] [name…]
 *
 * Their source comes from Debian's package source of the installed release, or from FOLDER, which holds `regress/`.
 * Scripts that start servers of their own, change sshd's configuration or compile programs cannot run this way.
 */
import { execFile, spawn } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { startOpenSsh } from "../targets/openssh.ts";
import { policyDocument } from "../targets/policies.ts";
import { startSshGateway } from "../targets/ssh-gateway.ts";

const run = promisify(execFile);
const scripts = [
  "exit-status.sh",
  "exit-status-signal.sh",
  "transfer.sh",
  "stderr-data.sh",
  "stderr-after-eof.sh",
  "broken-pipe.sh",
  "yes-head.sh",
];
const scriptMs = 180_000;

/** What `test-exec.sh` gives to a script, without a server of its own. */
const preamble = `
OBJ=$1; SRC=$2; SSH=/usr/bin/ssh; SCP=/usr/bin/scp; SFTP=/usr/bin/sftp; TEST_SHELL=/bin/sh; USER=$(id -un)
DATA=$OBJ/data; COPY=$OBJ/copy; RESULT=0; TEST_SSH_LOGFILE=$OBJ/log; SUDO=
export OBJ SSH DATA COPY TEST_SSH_LOGFILE
verbose () { :; }
trace () { :; }
fail () { RESULT=1; echo "FAIL: $*"; }
fatal () { fail "$*"; exit 1; }
start_sshd () { :; }
stop_sshd () { :; }
increase_datafile_size () { :; }
. "$3"
exit $RESULT
`;

const policies = policyDocument("web", "alice", "  profile: Admin");

/** Debian's source of OpenSSH, by the ordinary client and with lists of its own. */
async function fetchSource(folder: string): Promise<string> {
  const lists = join(folder, "lists");
  await mkdir(join(lists, "partial"), { recursive: true });
  const release = await readFile("/etc/os-release", "utf8");
  const name = /^VERSION_CODENAME=(\w+)/m.exec(release)?.[1] ?? "stable";
  await writeFile(
    join(folder, "src.list"),
    `deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian ${name} main\n`,
  );
  const options = [
    `Dir::Etc::sourcelist=${join(folder, "src.list")}`,
    "Dir::Etc::sourceparts=-",
    `Dir::State::lists=${lists}`,
    "APT::Sandbox::User=root",
  ].flatMap((one) => ["-o", one]);
  const settings = { cwd: folder, timeout: 300_000 };
  await run("apt-get", ["-q", ...options, "update"], settings);
  await run("apt-get", ["-q", ...options, "source", "--download-only", "openssh"], settings);
  const archive = (await readdir(folder)).find((one) => one.endsWith(".orig.tar.gz")) ?? "";
  await run("tar", ["-xzf", archive, "--strip-components=1", "--wildcards", "*/regress/*"], settings);
  return folder;
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: { source: { type: "string" } },
    allowPositionals: true,
  });
  const found = await startOpenSsh();
  if (found.kind !== "ready") throw new Error(found.reason);
  const folder = await mkdtemp(join(tmpdir(), "sallyport-regress-"));
  const gateway = await startSshGateway({ server: found, policies });
  let failed = 0;
  try {
    const source = join(values.source ?? (await fetchSource(folder)), "regress");
    const login = await gateway.login(folder, { user: "alice", lifetimeSeconds: 3600 });
    if (login.code !== 0) throw new Error(login.stderr);
    const stanza = (await readFile(join(folder, "config"), "utf8")).replace(/^Host .*/, "Host *");
    await writeFile(join(folder, "preamble.sh"), preamble);
    for (const script of positionals.length === 0 ? scripts : positionals) {
      const objects = join(folder, script.replace(/\.sh$/, ""));
      await mkdir(objects);
      for (const name of ["ssh_proxy", "ssh_config"])
        await writeFile(join(objects, name), `${stanza}  BatchMode yes\n  StrictHostKeyChecking yes\n`);
      await writeFile(join(objects, "data"), await readFile("/usr/bin/ssh"));
      const { code, output } = await ran(folder, objects, source, script);
      if (code !== 0) failed += 1;
      console.log(`${code === 0 ? "ok    " : "FAILED"} ${script}`);
      if (code !== 0) console.log(output.slice(-4_000));
    }
  } finally {
    await gateway.stop();
    await found.stop();
    await rm(folder, { recursive: true, force: true });
  }
  process.exitCode = failed === 0 ? 0 : 1;
}

function ran(
  folder: string,
  objects: string,
  source: string,
  script: string,
): Promise<{ readonly code: number | null; readonly output: string }> {
  return new Promise((resolve, reject) => {
    const args = [join(folder, "preamble.sh"), objects, source, join(source, script)];
    const child = spawn("sh", args, {
      cwd: objects,
      stdio: ["ignore", "pipe", "pipe"],
      timeout: scriptMs,
      env: { PATH: process.env.PATH, HOME: objects },
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => {
        output = (output + text).slice(-100_000);
      });
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, output }));
  });
}

await main();
