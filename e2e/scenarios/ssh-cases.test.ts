/**
 * The rest of the cases for SSH with OpenSSH's own programs: several commands on one connection, approvals that are taken
 * back, agents, X11, sockets, ends in the middle, and Ansible.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { listSessions, readSession } from "@sallyport/sidecar";
import { afterAll, beforeAll, expect, test } from "vitest";
import { describeWith, testWith } from "../drivers/test-with.ts";
import { type OpenSshServer, startOpenSsh } from "../targets/openssh.ts";
import { policyDocument } from "../targets/policies.ts";
import { recordedText } from "../targets/recorded.ts";
import { type RunOptions, type SshGateway, startSshGateway } from "../targets/ssh-gateway.ts";
import { until } from "../targets/until.ts";

const found = await startOpenSsh(["AllowAgentForwarding yes", "X11Forwarding yes"]);
const server = found as OpenSshServer;
const run = promisify(execFile);
const ansible = "/usr/bin/ansible-playbook";
const withAnsible = existsSync(ansible)
  ? ({ kind: "ready" } as const)
  : ({ kind: "absent", reason: "apt-get install ansible-core", isCis: true } as const);

const policy = (name: string, user: string, rest: string) => policyDocument("web", user, rest, name);
const approval = "approval: {required: 1, timeout: 60s}";
const asks = (of: string) =>
  `  profile: Admin\n  rules:\n  - {name: risky, match: {${of}}, action: RequireApproval, ${approval}}\n`;
const agentRule = (action: string) =>
  policy(
    "agents",
    "gina",
    `  profile: Admin\n  rules:\n  - {name: agent, match: {commands: [forward.agent]}, action: ${action}}\n`,
  );
const policies = [
  policy("admin", "alice", "  profile: Admin\n  masking:\n  - {patterns: [email], with: Redact}\n"),
  policy("asks", "dora", asks("commands: [exec], objects: [touch, sleep]")),
  policy("asks-tunnels", "erin", asks("commands: [forward.local]")),
  policy(
    "asks-files",
    "sven",
    asks(`commands: [sftp.get, sftp.rename], objects: ["${server?.folder}/asked/*"]`),
  ),
  policy("idle", "ivan", "  profile: Admin\n  limits: {idle: 2s}\n"),
  policy(
    "puts",
    "paul",
    '  rules:\n  - {name: in, match: {commands: [subsystem, "sftp.put"]}, action: Allow}\n',
  ),
].join("");

let gateway: SshGateway;
let echo: { readonly port: number; readonly close: () => void };
const as = (user: string, more: RunOptions = {}): RunOptions => ({ user: { user }, ...more });

/** A client that goes on, with what it has printed. */
function running(flags: readonly string[], command: readonly string[], options: RunOptions) {
  const child = gateway.start(
    "ssh",
    [...flags, ...gateway.options, gateway.destination, ...command],
    options,
  );
  const printed = { out: "", err: "" };
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    printed.out += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    printed.err += text;
  });
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  // Before `ended`, where a master that goes on holds the same pipes.
  const gone = new Promise((resolve) => child.once("exit", resolve));
  return { child, printed, ended, gone };
}

/** An approver's word. */
function decide(path: string, body: object): Promise<void> {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        socketPath: join(dirname(gateway.recordingDir), "approvals/socket"),
        path: `/v1/approvals/${path}`,
        method: "POST",
        timeout: 10_000,
        headers: {
          authorization: `Bearer ${gateway.issuer.token({ user: "lea", groups: ["leads"] })}`,
        },
      },
      (response) => {
        response.resume();
        response.once("end", () =>
          (response.statusCode ?? 500) < 300
            ? resolve()
            : reject(new Error(`the gateway answered ${response.statusCode}`)),
        );
      },
    );
    sent.on("error", reject).end(JSON.stringify(body));
  });
}
const approve = (name: string) => decide(`${name}/decisions`, { decision: "Approved" });
const takeBack = (name: string) => decide(`${name}/revocation`, { reason: "no" });
const heldAs = (text: string) => [...text.matchAll(/held for approval (\S+):/g)].at(-1)?.[1];

const recorded = () => recordedText(gateway.recordingDir);

describeWith("OpenSSH through the gateway", found, () => {
  beforeAll(async () => {
    const listener = createServer((socket) => socket.on("error", () => undefined).pipe(socket));
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    echo = { port: (listener.address() as { port: number }).port, close: () => listener.close() };
    gateway = await startSshGateway({
      server,
      policies,
      options: {
        forwarding: {
          local: [`127.0.0.1:${echo.port}`],
          remote: ["127.0.0.1:0"],
          sockets: [join(server.folder, "offered.sock")],
          agent: true,
        },
      },
      args: ["--approvers", "asks=local:leads,asks-tunnels=local:leads,asks-files=local:leads"],
    });
    await gateway.write("agents.yaml", agentRule("Allow"));
    await until(async () => (await gateway.ssh([], ["echo in"], as("gina"))).stdout === "in\n");
  }, 60_000);
  afterAll(async () => {
    echo?.close();
    await gateway?.stop();
    await server.stop();
  });

  let masters = 0;
  /** Runs with a master connection that is there, and ends it. */
  async function onOneConnection(user: string, work: (control: readonly string[]) => Promise<void>) {
    masters += 1;
    // A path of its own: where one that is just ending still listens, the next master shares nothing.
    const path = join(gateway.home, `mux-${masters}`);
    const control = ["-o", `ControlPath=${path}`];
    const master = gateway.start(
      "ssh",
      [...gateway.options, ...control, "-MN", gateway.destination],
      as(user),
    );
    try {
      await until(() => existsSync(path));
      // Whoever finds no master fails, and does not connect by itself.
      await work([...control, "-o", "ProxyCommand=false"]);
    } finally {
      // OpenSSH 9.2 polls with its signals let through: it may sleep on a SIGTERM that came just before.
      master.kill("SIGKILL");
    }
  }

  test("S13 several commands of one connection wait, each is approved by itself, and taking one back ends that one", async () => {
    // A number that no other run of this test has given; whatever a failing one leaves ends by itself.
    const seconds = `307.${process.pid}`;
    await onOneConnection("dora", async (control) => {
      const one = running(control, ["sleep", seconds], as("dora"));
      const first = await until(() => heldAs(one.printed.err));
      const two = running(control, ["touch", join(server.folder, "second")], as("dora"));
      await until(() => two.printed.err.includes("behind another command"));
      // Whoever needs no approval waits for nobody.
      const free = running(control, ["cat"], as("dora"));
      free.child.stdin?.write("still here\n");
      await until(() => free.printed.out === "still here\n");
      await approve(first);
      const second = await until(() => heldAs(two.printed.err));
      expect(existsSync(join(server.folder, "second"))).toBe(false);
      await approve(second);
      expect(await two.ended).toBe(0);
      expect(existsSync(join(server.folder, "second"))).toBe(true);
      await takeBack(first);
      expect(await one.ended).toBe(255);
      expect(one.printed.err).toContain("the approval was taken back");
      // The host was told to end it, and the rest of the connection goes on. OpenSSH says so where it does not separate
      // its privileges, which is for root, and then does not do it.
      const pidOf = () =>
        run("pgrep", ["-fx", `sleep ${seconds}`], { timeout: 20_000 }).then(
          ({ stdout }) => stdout.trim(),
          (error: { code?: unknown }) => {
            if (error.code === 1) return "gone";
            throw error;
          },
        );
      await until(
        async () =>
          (await pidOf()) === "gone" ||
          server.logs().includes("session signalling requires privilege separation"),
      );
      const left = Number(await pidOf());
      if (left > 0) process.kill(left);
      free.child.stdin?.end("and on\n");
      expect(await free.ended).toBe(0);
      expect(free.printed.out).toBe("still here\nand on\n");
    });
  }, 60_000);

  test("S13 a client that leaves while it waits for its turn asks nobody", async () => {
    await onOneConnection("dora", async (control) => {
      const one = running(control, ["sleep", "61"], as("dora"));
      const first = await until(() => heldAs(one.printed.err));
      const two = running(control, ["touch", join(server.folder, "left")], as("dora"));
      await until(() => two.printed.err.includes("behind another command"));
      two.child.kill("SIGKILL");
      await two.gone;
      // A master of OpenSSH 9.2 tells of it when something else happens, which the third is.
      const three = running(control, ["touch", join(server.folder, "third")], as("dora"));
      await until(() => three.printed.err.includes("behind another command"));
      await decide(`${first}/decisions`, { decision: "Denied" });
      expect(await one.ended).toBe(126);
      // The next question is about the third: the second was never asked.
      await approve(await until(() => heldAs(three.printed.err)));
      expect(await three.ended).toBe(0);
      expect(existsSync(join(server.folder, "left"))).toBe(false);
    });
  }, 60_000);

  test("S4 an approval of a file is none of what its path has come to lead to", async () => {
    const asked = join(server.folder, "asked");
    const other = join(server.folder, "other");
    for (const folder of [asked, other]) await mkdir(folder);
    await writeFile(join(asked, "file"), "shown\n");
    await writeFile(join(other, "file"), "not shown\n");
    const got = join(gateway.home, "got");
    const sftp = (line: string) => {
      const flags = ["-o", "BatchMode=no", "-b", "-"];
      const child = gateway.start("sftp", [...gateway.options, ...flags, gateway.destination], as("sven"));
      let said = "";
      child.stderr?.setEncoding("utf8").on("data", (text: string) => {
        said += text;
      });
      child.stdin?.end(`${line}\n`);
      const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
      return { held: until(() => heldAs(said)), ended };
    };
    const fair = sftp(`get ${asked}/file ${got}`);
    await approve(await fair.held);
    expect([await fair.ended, await readFile(got, "utf8")]).toEqual([0, "shown\n"]);
    await rm(got);
    for (const line of [`get ${asked}/file ${got}`, `rename ${asked}/file ${asked}/moved`]) {
      const held = sftp(line);
      const name = await held.held;
      const swap = `mv ${asked} ${asked}.away && ln -s ${other} ${asked}`;
      expect((await gateway.ssh([], [swap], as("sven"))).code).toBe(0);
      await approve(name);
      expect([line, await held.ended]).toEqual([line, 1]);
      expect([existsSync(got), await readFile(join(other, "file"), "utf8")]).toEqual([false, "not shown\n"]);
      expect((await gateway.ssh([], [`rm ${asked} && mv ${asked}.away ${asked}`], as("sven"))).code).toBe(0);
    }
  }, 60_000);

  test("S7 a forwarding that needs approval is held, and a channel beside it tells of it", async () => {
    const port = await freePort();
    const shell = running(["-L", `127.0.0.1:${port}:127.0.0.1:${echo.port}`], ["cat"], as("erin"));
    shell.child.stdin?.write("up\n");
    await until(() => shell.printed.out === "up\n");
    const { connect } = await import("node:net");
    const socket = connect(port, "127.0.0.1");
    let back = "";
    socket.setEncoding("utf8").on("data", (text: string) => {
      back += text;
    });
    socket.on("error", () => undefined);
    socket.write("through\n");
    const name = await until(() => heldAs(shell.printed.err));
    expect(back).toBe("");
    await approve(name);
    await until(() => back === "through\n");
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    await takeBack(name);
    await closed;
    shell.child.stdin?.end("on\n");
    expect(await shell.ended).toBe(0);
    expect(shell.printed.out).toBe("up\non\n");
  }, 60_000);

  test("S8 sockets, tun devices and layers are refused without harm to the session, offered sockets are reached", async () => {
    const offered = join(server.folder, "offered.sock");
    const listener = createServer((socket) => socket.on("error", () => undefined).end("from the socket\n"));
    await new Promise<void>((resolve) => listener.listen(offered, resolve));
    try {
      const here = join(gateway.home, "here.sock");
      const shell = running(["-L", `${here}:${offered}`], ["cat"], as("alice"));
      await until(() => existsSync(here));
      const { stdout } = await run("sh", ["-c", `exec 3<>/dev/null; ${reader} "$1"`, "sh", here], {
        timeout: 10_000,
      });
      expect(stdout).toBe("from the socket\n");
      shell.child.stdin?.end("fine\n");
      expect(await shell.ended).toBe(0);
      expect(shell.printed.out).toBe("fine\n");
      const denied = join(gateway.home, "denied.sock");
      const other = running(["-L", `${denied}:/run/other.sock`], ["cat"], as("alice"));
      await until(() => existsSync(denied));
      const nothing = await run("sh", ["-c", `${reader} "$1"`, "sh", denied], { timeout: 10_000 });
      expect(nothing.stdout).toBe("");
      other.child.stdin?.end("fine\n");
      expect(await other.ended).toBe(0);
      for (const flags of [
        ["-R", `${server.folder}/back.sock:${here}`],
        ["-w", "0:0"],
        ["-o", "Tunnel=ethernet", "-w", "any"],
      ]) {
        const refused = await gateway.ssh(["-o", "ExitOnForwardFailure=no", ...flags], ["echo ran"]);
        expect(refused.stdout, flags.join(" ")).toBe("ran\n");
      }
      expect(existsSync(join(server.folder, "back.sock"))).toBe(false);
    } finally {
      listener.close();
    }
  }, 60_000);

  test("S9 an agent is forwarded where it is offered and allowed, in parallel, and no longer once policy denies it", async () => {
    const agentSocket = join(gateway.home, "agent.sock");
    const { stdout } = await run("ssh-agent", ["-s", "-a", agentSocket], { timeout: 10_000 });
    const pid = Number(/SSH_AGENT_PID=(\d+)/.exec(stdout)?.[1]);
    try {
      const key = join(gateway.home, "agent-key");
      await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", key], { timeout: 10_000 });
      await run("ssh-add", ["-q", key], {
        timeout: 10_000,
        env: { ...process.env, SSH_AUTH_SOCK: agentSocket },
      });
      const environment = { SSH_AUTH_SOCK: agentSocket };
      const list = "for n in 1 2 3 4; do ssh-add -l & done; wait";
      // The first value of an option counts: the usual ones want no agent.
      const flags = ["-A", "-o", "IdentityAgent=SSH_AUTH_SOCK"];
      const once = (line: string) =>
        gateway.run(
          "ssh",
          [...flags, ...gateway.options, gateway.destination, line],
          as("gina", { environment }),
        );
      const there = await once(list);
      expect(there.stdout.match(/ED25519/g)?.length).toBe(4);
      const session = running(
        flags,
        // It may be killed by writing to a socket that is closed already, and then says nothing.
        ["while read line; do ssh-add -l 2>&1; echo listed; done; true"],
        as("gina", { environment }),
      );
      const listed = async () => {
        const before = session.printed.out.length;
        session.child.stdin?.write("\n");
        await until(() => session.printed.out.includes("listed", before));
        return session.printed.out.slice(before);
      };
      expect(await listed()).toContain("ED25519");
      await gateway.write("agents.yaml", agentRule("Deny"));
      await until(async () => !(await listed()).includes("ED25519"));
      session.child.stdin?.end();
      expect(await session.ended).toBe(0);
      expect((await once("ssh-add -l")).stdout).not.toContain("ED25519");
    } finally {
      process.kill(pid);
    }
  }, 60_000);

  test("S10 X11 is refused and the session goes on", async () => {
    const done = await gateway.ssh(["-X"], ["echo display=$DISPLAY; cat"], {
      input: "on\n",
      environment: { DISPLAY: ":9" },
    });
    expect(done).toMatchObject({ code: 0, stdout: "display=\non\n" });
  });

  test("S16 no byte of output switches masks off, and shells are not said to be judged by what is typed", async () => {
    for (const before of [
      "\\033[?1049h",
      "\\033]0;x\\007",
      "\\033[2J\\033P",
      "\\033[200~",
      "\\0\\377\\376",
    ]) {
      const done = await gateway.ssh(["-tt"], [`printf '${before}zoe@example.com\\r\\n'`]);
      expect(done.stdout, before).not.toContain("zoe@example.com");
    }
    // What only a shell can read, and paths of command lines, are called heuristic where they decide.
    await gateway.ssh([], ["true; true"], as("paul"));
    await gateway.ssh([], ["scp -f /nonexistent"], as("paul"));
    const lines = await until(async () => {
      const all = (await recorded()).split("\n").filter((line) => line.includes('"Deny"'));
      return all.some((line) => line.includes("scp -f")) ? all : undefined;
    });
    expect(lines.find((line) => line.includes('"true; true"'))).toContain("heuristic");
    expect(lines.find((line) => line.includes("scp -f"))).toContain("heuristic");
  }, 30_000);

  test("S4 whoever may only put files reads none of them back", async () => {
    const secret = join(server.folder, "payroll");
    await writeFile(secret, "secret\n");
    const sftp = (line: string) =>
      gateway.run("sftp", [...gateway.options, "-o", "BatchMode=no", "-b", "-", gateway.destination], {
        ...as("paul"),
        input: `${line}\n`,
      });
    const mine = join(gateway.home, "mine");
    await writeFile(mine, "mine\n");
    expect((await sftp(`get ${secret} ${gateway.home}/stolen`)).code).not.toBe(0);
    expect(existsSync(join(gateway.home, "stolen"))).toBe(false);
    expect((await sftp(`ls ${server.folder}`)).stdout).not.toContain("payroll");
  });

  test("S5 large files go both ways by both forms of scp and by sftp while it is recorded, with keys exchanged anew", async () => {
    // The full size by SALLYPORT_SSH_MEGABYTES=2048.
    const megabytes = Number(process.env.SALLYPORT_SSH_MEGABYTES ?? 16);
    const remote = join(server.folder, "big");
    const block = randomBytes(1024 * 1024);
    const { open } = await import("node:fs/promises");
    const file = await open(remote, "w");
    for (let index = 0; index < megabytes; index += 1) await file.write(block);
    await file.close();
    const rekey = ["-o", `RekeyLimit=${Math.max(1, Math.floor(megabytes / 8))}M`];
    for (const form of ["-O", "-s"]) {
      const local = join(gateway.home, `big${form}`);
      const done = await gateway.run(
        "scp",
        [form, ...rekey, ...gateway.options, `${gateway.destination}:${remote}`, local],
        { timeoutMs: 600_000 },
      );
      expect(done, form).toMatchObject({ code: 0 });
      expect((await run("cmp", [remote, local], { timeout: 60_000 })).stdout).toBe("");
      const up = `${remote}${form}`;
      const back = await gateway.run(
        "scp",
        [form, ...rekey, ...gateway.options, local, `${gateway.destination}:${up}`],
        { timeoutMs: 600_000 },
      );
      expect(back, form).toMatchObject({ code: 0 });
      expect((await run("cmp", [remote, up], { timeout: 60_000 })).stdout).toBe("");
      await Promise.all([local, up].map((file) => rm(file)));
    }
    const [local, up] = [join(gateway.home, "big-sftp"), `${remote}-sftp`];
    const flags = ["-o", "BatchMode=no", ...rekey, ...gateway.options, "-b", "-"];
    const done = await gateway.run("sftp", [...flags, gateway.destination], {
      input: `get ${remote} ${local}\nput ${local} ${up}\n`,
      timeoutMs: 600_000,
    });
    expect(done).toMatchObject({ code: 0 });
    for (const copy of [local, up]) {
      expect((await run("cmp", [remote, copy], { timeout: 60_000 })).stdout).toBe("");
      await rm(copy);
    }
  }, 1_500_000);

  test("S19 compression that a client wants is not there, and nothing else changes", async () => {
    expect(await gateway.ssh(["-C"], ["echo plain"])).toMatchObject({ code: 0, stdout: "plain\n" });
  });

  test("S19 keys exchanged after every few kilobytes harm no transfer, and forwardings go on behind them", async () => {
    const input = randomBytes(300_000);
    const done = await gateway.ssh(
      ["-o", "RekeyLimit=16K", "-o", "Ciphers=aes256-ctr", "-o", "MACs=hmac-sha2-512-etm@openssh.com"],
      ["cat"],
      // Nothing is masked for them: in random bytes something may look like a value.
      as("gina", { input }),
    );
    expect(done.code, done.stderr).toBe(0);
    expect(Buffer.from(done.stdout, "latin1").equals(input)).toBe(true);
    const tunnel = await gateway.ssh(
      ["-o", "RekeyLimit=16K", "-W", `127.0.0.1:${echo.port}`],
      [],
      as("gina", { input }),
    );
    expect(Buffer.from(tunnel.stdout, "latin1").equals(input)).toBe(true);
  }, 60_000);

  test("S22 a session ends with its token, and says so", async () => {
    const token = gateway.issuer.token({ user: "alice", lifetimeSeconds: 12 });
    const live = running([], ["echo up; sleep 60"], { token });
    await until(() => live.printed.out === "up\n");
    expect(await live.ended).toBe(255);
    expect(live.printed.err).toContain("the session ended with the identity's token");
  }, 30_000);

  test("S22 a session in which nobody types ends when policy says so", async () => {
    const live = running(["-tt"], ["echo up; sleep 60"], as("ivan"));
    await until(() => live.printed.out.includes("up"));
    expect(await live.ended).toBe(255);
    expect(live.printed.err).toMatch(/idle/);
  }, 30_000);

  test("S22 keepalives of a client that nobody uses do not keep its session", async () => {
    const flags = ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=100"];
    const live = running(flags, ["echo up; sleep 60"], as("ivan"));
    await until(() => live.printed.out.includes("up"));
    expect(await live.ended).toBe(255);
    expect(live.printed.err).toMatch(/idle/);
  }, 30_000);

  test("S22 a client that vanishes leaves a recording that is whole", async () => {
    const live = running([], ["echo vanishing; sleep 60"], as("alice"));
    await until(() => live.printed.out === "vanishing\n");
    live.child.kill("SIGKILL");
    await until(async () => {
      for (const { sessionId } of await listSessions(gateway.recordingDir)) {
        let [isMeant, isEnded] = [false, false];
        for await (const record of readSession(gateway.recordingDir, sessionId)) {
          isMeant ||= JSON.stringify(record).includes("echo vanishing");
          isEnded ||=
            (record as { readonly type?: string }).type === "end" ||
            /"(?:close|end)/.test(JSON.stringify(record));
        }
        if (isMeant && isEnded) return true;
      }
      return false;
    });
  }, 30_000);

  test("S27 wide characters and any bytes pass a terminal as they are", async () => {
    const done = await gateway.ssh(["-tt"], ["printf '日本語 ✓ é\\n'"]);
    expect(Buffer.from(done.stdout, "latin1").toString("utf8")).toBe("日本語 ✓ é\r\n");
  });

  testWith("S2 Ansible runs a playbook, pipelined, each task judged and recorded", withAnsible, async () => {
    const folder = join(gateway.home, "ansible");
    await mkdir(folder, { recursive: true });
    const made = join(server.folder, "made-by-ansible");
    await writeFile(
      join(folder, "play.yaml"),
      JSON.stringify([
        {
          hosts: "all",
          gather_facts: false,
          tasks: [
            { command: "id -u", register: "id" },
            { copy: { dest: made, content: "from {{ id.stdout }}\n" } },
          ],
        },
      ]),
    );
    await writeFile(join(folder, "hosts"), "web ansible_python_interpreter=/usr/bin/python3\n");
    expect(await gateway.login(folder)).toMatchObject({ code: 0 });
    const done = await gateway.run(ansible, ["-i", join(folder, "hosts"), join(folder, "play.yaml")], {
      timeoutMs: 90_000,
      environment: {
        ANSIBLE_PIPELINING: "True",
        ANSIBLE_SSH_ARGS: `-F ${join(folder, "config")} -o ControlMaster=auto -o ControlPersist=10`,
        ANSIBLE_LOCAL_TEMP: join(folder, "tmp"),
        ANSIBLE_SSH_CONTROL_PATH_DIR: folder,
        ANSIBLE_NOCOLOR: "1",
      },
    });
    expect(done.code, `${done.stdout}\n${done.stderr}`).toBe(0);
    expect(await readFile(made, "utf8")).toBe(`from ${process.getuid?.()}\n`);
  });
});

/** Reads a socket to its end; python3 is part of every Debian that has ansible. */
const reader = `python3 -c 'import socket,sys; s=socket.socket(socket.AF_UNIX); s.settimeout(8); s.connect(sys.argv[1])
while True:
    d=s.recv(4096)
    if not d: break
    sys.stdout.buffer.write(d)'`;

async function freePort(): Promise<number> {
  const listener = createServer();
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const { port } = listener.address() as { port: number };
  await new Promise((resolve) => listener.close(resolve));
  return port;
}
