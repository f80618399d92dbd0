/**
 * OpenSSH's own programs through the gateway to Debian's sshd: what people do works unchanged, and what policy denies
 * does not happen. S1 to S27 of the cases for SSH.
 */
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { listSessions, readSession, renderReplay } from "@sallyport/sidecar";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { describeWith, testWith } from "../drivers/test-with.ts";
import { heldNoticesIn } from "../targets/held-notices.ts";
import { type OpenSshServer, startOpenSsh } from "../targets/openssh.ts";
import { policyDocument } from "../targets/policies.ts";
import { type RunOptions, type SshGateway, startSshGateway } from "../targets/ssh-gateway.ts";
import { until } from "../targets/until.ts";

const found = await startOpenSsh();
const withRsyncAndGit = ["/usr/bin/rsync", "/usr/bin/git"].every((program) => existsSync(program))
  ? ({ kind: "ready" } as const)
  : ({ kind: "absent", reason: "apt-get install rsync git", isCis: true } as const);
const server = found as OpenSshServer;

const policy = (name: string, user: string, rest: string) => policyDocument("web", user, rest, name);

const policies = (folder: string) =>
  [
    policy("admin", "alice", "  profile: Admin\n  masking:\n  - {patterns: [email], with: Redact}\n"),
    policy("reader", "bob", "  profile: ReadOnly\n"),
    policy(
      "few",
      "carol",
      `  rules:
  - {name: few, match: {commands: [exec], objects: [ls, cat, id]}, action: Allow}
  - {name: public, match: {operations: [read, write], objects: ["${folder}/public", "${folder}/public/*"]}, action: Allow}
  - {name: open, match: {commands: [subsystem]}, action: Allow}
`,
    ),
    policy(
      "asks",
      "dora",
      `  profile: Admin
  rules:
  - {name: risky, match: {commands: [exec], objects: [touch]}, action: RequireApproval, approval: {required: 1, timeout: 60s}}
`,
    ),
    policy(
      "closed",
      "ivan",
      `  profile: ReadWrite
  rules:
  - {name: one, match: {objects: ["${folder}/tree/one"]}, action: Deny}
  - {name: shut, match: {operations: [read], objects: ["${folder}/shut/in/*"]}, action: Deny}
`,
    ),
    policy(
      "tunnels",
      "erin",
      '  rules:\n  - {name: one, match: {commands: ["forward.*"], objects: ["127.0.0.1:*"]}, action: Allow}\n',
    ),
  ].join("");

let gateway: SshGateway;
/** A service beside the host that forwardings may reach, and one that they may not. */
let echo: { readonly port: number; readonly close: () => void };
let secret: { readonly port: number; readonly close: () => void };

const as = (user: string, more: RunOptions = {}): RunOptions => ({ user: { user }, ...more });
const bob = as("bob");
const carol = as("carol");

async function service(text: string) {
  const { createServer } = await import("node:net");
  const listener = createServer((socket) => socket.on("error", () => undefined).end(text));
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  return { port: (listener.address() as { port: number }).port, close: () => listener.close() };
}

/** What the recordings hold, as text. */
async function recorded(): Promise<string> {
  let text = "";
  for (const { sessionId } of await listSessions(gateway.recordingDir)) {
    for await (const record of readSession(gateway.recordingDir, sessionId)) {
      const bytes =
        "base64" in record && record.base64 !== undefined ? Buffer.from(record.base64, "base64") : "";
      text += `${JSON.stringify(record)}\n${bytes}\n`;
    }
  }
  return text;
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const sftp = (commands: string, options: RunOptions = {}, flags: readonly string[] = []) =>
  gateway.run("sftp", [...gateway.options, ...flags, "-o", "BatchMode=no", "-b", "-", gateway.destination], {
    ...options,
    input: commands,
  });

describeWith("OpenSSH through the gateway", found, () => {
  beforeAll(async () => {
    echo = await service("reached\n");
    secret = await service("not for you\n");
    await mkdir(join(server.folder, "public"));
    await writeFile(join(server.folder, "public/hello.txt"), "hello\n");
    await writeFile(join(server.folder, "private.txt"), "private\n");
    await symlink(server.folder, join(server.folder, "public/out"));
    gateway = await startSshGateway({
      server,
      policies: policies(server.folder),
      options: {
        forwarding: {
          local: [`127.0.0.1:${echo.port}`, "169.254.*:80", "*:25", `127.0.0.1:${server.port}`],
          remote: ["127.0.0.1:0", "localhost:0"],
        },
        environment: ["MARKED", "BASH_ENV"],
      },
      args: ["--approvers", "asks=local:leads"],
    });
  });
  afterAll(async () => {
    echo?.close();
    secret?.close();
    await gateway?.stop();
    await server.stop();
  });

  describe("commands and shells", () => {
    test("S2 output, errors, binary input and exit code of a command stay as they are", async () => {
      const input = randomBytes(200_000);
      const done = await gateway.ssh([], ["cat; echo to-stderr >&2; exit 3"], as("dora", { input }));
      expect(done).toMatchObject({ code: 3, stderr: "to-stderr\n" });
      expect(sha256(Buffer.from(done.stdout, "latin1"))).toBe(sha256(input));
    });

    test("S2 a command without any input ends (ssh -n)", async () => {
      expect(await gateway.ssh(["-n"], ["cat; echo ended"])).toMatchObject({
        code: 0,
        stdout: "ended\n",
        stderr: "",
      });
    });

    test("S1 a shell on a terminal gets its type, and its exit code comes back", async () => {
      const done = await gateway.ssh(["-tt"], [], {
        input: "test -t 0 && echo a-$((20+3))-$TERM\nexit 7\n",
        environment: { TERM: "xterm-256color" },
      });
      expect(done.stdout).toContain("a-23-xterm-256color");
      expect(done.code).toBe(7);
    });

    test("S1 a command that a signal ends is told as that", async () => {
      const done = await gateway.ssh(["-v"], ["kill -TERM $$"]);
      expect(done.code).toBe(255);
      expect(done.stderr).toContain("exit-signal");
    });

    test("S14 a command on a terminal (ssh -t host command)", async () => {
      expect(await gateway.ssh(["-tt"], ["test -t 1 && echo terminal"])).toMatchObject({
        code: 0,
        stdout: "terminal\r\n",
      });
    });

    test("S11 harmless variables arrive, loaders and start files do not, even where the resource lists them", async () => {
      const done = await gateway.ssh(
        ["-o", "SendEnv=LC_TEST BASH_ENV LD_PRELOAD MARKED"],
        ["echo [$LC_TEST][$MARKED][$BASH_ENV][$LD_PRELOAD]"],
        { environment: { LC_TEST: "here", MARKED: "too", BASH_ENV: "/tmp/evil", LD_PRELOAD: "" } },
      );
      expect(done.stdout).toBe("[here][too][][]\n");
    });

    test("S6 only the programs that a rule names run, and the refusal says so", async () => {
      expect(await gateway.ssh([], ["id", "-u"], carol)).toMatchObject({
        code: 0,
        stdout: `${process.getuid?.()}\n`,
      });
      const file = join(server.folder, "never");
      for (const line of [
        `touch ${file}`,
        `id; touch ${file}`,
        `id $(touch ${file})`,
        `A=1 id`,
        `id\ntouch ${file}`,
        "id>x",
      ]) {
        const denied = await gateway.ssh([], [line], carol);
        expect(denied.code, line).toBe(126);
        expect(denied.stderr).toContain("sallyport: no policy allows exec");
      }
      expect(existsSync(file)).toBe(false);
    });

    test("S14 a shell, another subsystem and X11 are refused to whoever may not have them", async () => {
      expect((await gateway.ssh(["-tt"], [], carol)).stderr).toContain("no policy allows shell");
      expect((await gateway.ssh(["-s"], ["netconf"])).code).not.toBe(0);
      const x11 = await gateway.ssh(["-X"], ["echo display=$DISPLAY"], { environment: { DISPLAY: ":9" } });
      expect(x11.stdout).toBe("display=\n");
    });

    test("S13 ten sessions on one ControlMaster are judged alone, and a denied one ends no other", async () => {
      const control = ["-o", `ControlPath=${join(gateway.home, "mux")}`];
      const master = gateway.start(
        "ssh",
        [...gateway.options, ...control, "-MN", gateway.destination],
        carol,
      );
      try {
        await until(() => existsSync(join(gateway.home, "mux")));
        const runs = Array.from({ length: 10 }, (_, index) =>
          gateway.ssh(
            // Whoever finds no master fails, and does not connect by itself.
            [...control, "-o", "ProxyCommand=false"],
            index % 3 === 2 ? ["reboot", "--now"] : ["cat", join(server.folder, "public/hello.txt")],
            carol,
          ),
        );
        const done = await Promise.all(runs);
        expect(done.map(({ code }) => code)).toEqual([0, 0, 126, 0, 0, 126, 0, 0, 126, 0]);
        expect(done[9]?.stdout).toBe("hello\n");
      } finally {
        // Of 9.2, which may not see a SIGTERM.
        master.kill("SIGKILL");
      }
    });
  });

  describe("files", () => {
    test("S4 S5 S19 large files go through sftp and both forms of scp, with keys exchanged anew", async () => {
      const bytes = randomBytes(24 * 1024 * 1024);
      const local = join(gateway.home, "large");
      await writeFile(local, bytes);
      const rekey = ["-o", "RekeyLimit=4M"];
      const remote = join(server.folder, "large");
      expect(await sftp(`put ${local} ${remote}\nget ${remote} ${local}.sftp\n`, {}, rekey)).toMatchObject({
        code: 0,
      });
      for (const form of ["-O", "-s"]) {
        const there = await gateway.run("scp", [
          form,
          ...gateway.options,
          ...rekey,
          local,
          `${gateway.destination}:${remote}${form}`,
        ]);
        expect(there, form).toMatchObject({ code: 0 });
        const back = await gateway.run("scp", [
          form,
          ...gateway.options,
          ...rekey,
          `${gateway.destination}:${remote}${form}`,
          `${local}${form}`,
        ]);
        expect(back, form).toMatchObject({ code: 0 });
        expect(sha256(await readFile(`${local}${form}`))).toBe(sha256(bytes));
      }
      expect(sha256(await readFile(`${local}.sftp`))).toBe(sha256(bytes));
      await until(async () => (await recorded()).includes(sha256(bytes)));
    }, 120_000);

    testWith("S6 rsync and git work, and are judged as the moving of files", withRsyncAndGit, async () => {
      const rsh = ["ssh", ...gateway.options].join(" ");
      const tree = join(gateway.home, "tree");
      await mkdir(tree);
      await writeFile(join(tree, "one"), "1");
      const target = `${gateway.destination}:${server.folder}/tree/`;
      expect(await gateway.run("rsync", ["-a", "-e", rsh, `${tree}/`, target])).toMatchObject({ code: 0 });
      expect(await readFile(join(server.folder, "tree/one"), "utf8")).toBe("1");
      const back = join(gateway.home, "back");
      expect(await gateway.run("rsync", ["-a", "-e", rsh, target, back], bob)).toMatchObject({ code: 0 });
      await writeFile(join(tree, "one"), "changed");
      const denied = await gateway.run("rsync", ["-a", "-e", rsh, `${tree}/`, target], bob);
      expect(denied.stderr).toContain("no policy allows rsync.put");
      expect(await readFile(join(server.folder, "tree/one"), "utf8")).toBe("1");

      // A folder is what is in it, to rules that close some of that.
      const ivan = as("ivan");
      const whole = `${gateway.destination}:${server.folder}/tree`;
      const ways: readonly (readonly string[])[] = [
        ["rsync", "-a", "-e", rsh, whole, `${back}2`],
        ["rsync", "-a", "-e", rsh, `${tree}/`, whole],
        ["scp", "-O", "-r", ...gateway.options, whole, `${back}3`],
        ["scp", "-O", ...gateway.options, join(tree, "one"), whole],
      ];
      for (const [program = "", ...args] of ways)
        expect((await gateway.run(program, args, ivan)).stderr).toContain("is denied by rule one of policy");
      const other = `${gateway.destination}:${server.folder}/other`;
      expect(await gateway.run("rsync", ["-a", "-e", rsh, `${tree}/`, other], ivan)).toMatchObject({
        code: 0,
      });
      expect(await readFile(join(server.folder, "tree/one"), "utf8")).toBe("1");

      const git = { GIT_SSH_COMMAND: rsh, GIT_CONFIG_GLOBAL: "/dev/null", GIT_TERMINAL_PROMPT: "0" };
      const bare = join(server.folder, "bare.git");
      const url = `${gateway.destination}:${bare}`;
      const run = (args: readonly string[], who: RunOptions = {}) =>
        gateway.run("git", ["-c", "user.name=a", "-c", "user.email=a@b", ...args], {
          ...who,
          environment: git,
        });
      expect(await run(["init", "-q", "--bare", bare])).toMatchObject({ code: 0 });
      expect(await run(["init", "-q", tree])).toMatchObject({ code: 0 });
      expect(await run(["-C", tree, "commit", "-q", "--allow-empty", "-m", "first"])).toMatchObject({
        code: 0,
      });
      const push = ["-C", tree, "push", "-q", url, "HEAD:refs/heads/main"];
      expect((await run(push, bob)).stderr).toContain("no policy allows git.push");
      expect(await run(push)).toMatchObject({ code: 0 });
      expect(await run(["clone", "-q", "-b", "main", url, join(gateway.home, "clone")], bob)).toMatchObject({
        code: 0,
      });
    });

    test("S4 whoever may only read changes nothing by any operation of sftp", async () => {
      const file = join(server.folder, "private.txt");
      await writeFile(join(gateway.home, "other"), "changed, and longer than what is there");
      for (const attempt of [
        `put ${gateway.home}/other ${file}`,
        `rm ${file}`,
        `rename ${file} ${file}.moved`,
        `rename -l ${file} ${file}.moved`,
        `chmod 777 ${file}`,
        `mkdir ${server.folder}/made`,
        `rmdir ${server.folder}/public`,
        `symlink ${file} ${file}.link`,
        `ln ${file} ${file}.hard`,
        `reput ${gateway.home}/other ${file}`,
      ]) {
        const denied = await sftp(`${attempt}\n`, bob);
        expect(denied.code, attempt).not.toBe(0);
        expect(denied.stderr.toLowerCase(), attempt).toMatch(/permission denied|no policy allows/);
      }
      expect(await readFile(file, "utf8")).toBe("private\n");
      expect(await readdir(server.folder)).not.toContain("made");
      expect(await sftp(`ls ${server.folder}\nget ${file} ${gateway.home}/got\n`, bob)).toMatchObject({
        code: 0,
      });
      expect(await readFile(join(gateway.home, "got"), "utf8")).toBe("private\n");
    });

    test("S4 a folder is not renamed away from a rule that closes something in it, nor to where one does", async () => {
      const ivan = as("ivan");
      const at = (name: string) => join(server.folder, name);
      await mkdir(at("tree/in"), { recursive: true });
      await mkdir(at("shut/in"), { recursive: true });
      await mkdir(at("mine/in"), { recursive: true });
      await writeFile(at("shut/in/key"), "key\n");
      const attempt = (from: string, to: string, flag = "") =>
        sftp(`rename ${flag} ${at(from)} ${at(to)}\n`, ivan);
      for (const flag of ["", "-l"]) {
        for (const [from = "", to = ""] of [
          ["tree", "away"],
          ["mine", "tree"],
          ["shut", "away"],
          ["shut/in", "away"],
        ]) {
          expect((await attempt(from, to, flag)).stderr, `${from} to ${to}`).toContain("Permission denied");
        }
      }
      expect(existsSync(at("away"))).toBe(false);
      expect(await attempt("mine", "yours")).toMatchObject({ code: 0 });
      expect(existsSync(at("yours/in"))).toBe(true);
    });

    test("S4 neither .. nor a link leads out of the folder that a rule names", async () => {
      const inside = `${server.folder}/public`;
      const got = join(gateway.home, "stolen");
      expect(await sftp(`get ${inside}/hello.txt ${gateway.home}/hello\n`, carol)).toMatchObject({ code: 0 });
      for (const path of [
        "../private.txt",
        "out/private.txt",
        "./out/../../private.txt",
        "out/public/../private.txt",
      ]) {
        const denied = await sftp(`get ${inside}/${path} ${got}\n`, carol);
        expect(denied.code, path).not.toBe(0);
        expect(existsSync(got), path).toBe(false);
      }
      await writeFile(join(gateway.home, "bad"), "bad");
      expect((await sftp(`put ${gateway.home}/bad ${inside}/out/planted\n`, carol)).code).not.toBe(0);
      expect((await sftp(`symlink /etc ${inside}/etc\n`, carol)).code).not.toBe(0);
      expect(existsSync(join(server.folder, "planted"))).toBe(false);
    });
  });

  describe("forwarding", () => {
    const through = (target: string, options: RunOptions = {}) => gateway.ssh(["-W", target], [], options);

    test("S7 what resource and policy both allow is reached, by address and by localhost", async () => {
      expect((await through(`127.0.0.1:${echo.port}`)).stdout).toBe("reached\n");
      expect((await through(`127.0.0.1:${echo.port}`, as("erin"))).stdout).toBe("reached\n");
    });

    test("S7 everything else is refused: other ports, spellings, metadata, the gateway, the host's own SSH", async () => {
      for (const target of [
        `127.0.0.1:${secret.port}`,
        `[::ffff:127.0.0.1]:${secret.port}`,
        `2130706433:${secret.port}`,
        `0.0.0.0:${echo.port}`,
        "169.254.169.254:80",
        `127.0.0.1:${gateway.port}`,
        `127.0.0.1:${server.port}`,
        "[::1]:25",
        "localhost:25",
      ]) {
        const refused = await through(target);
        expect(refused.stdout, target).toBe("");
        expect(refused.code, target).not.toBe(0);
      }
      expect((await through(`127.0.0.1:${echo.port}`, bob)).stderr).toContain(
        "no policy allows forward.local",
      );
    });

    test("S8 S9 remote forwarding only where offered; tun and agent never", async () => {
      const offered = await gateway.ssh(["-R", `127.0.0.1:0:127.0.0.1:${echo.port}`], ["echo ran"]);
      expect(offered.stderr).toContain("Allocated port");
      const wide = await gateway.ssh(
        ["-o", "ExitOnForwardFailure=yes", "-R", "0.0.0.0:0:127.0.0.1:1"],
        ["echo ran"],
      );
      expect(wide.stdout).toBe("");
      const denied = await gateway.ssh(
        ["-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:1"],
        ["id"],
        carol,
      );
      expect(denied.stdout).toBe("");
      const agent = await gateway.ssh(["-A"], ["echo agent=$SSH_AUTH_SOCK"], {
        environment: { SSH_AUTH_SOCK: "/nowhere" },
      });
      expect(agent.stdout).toBe("agent=\n");
      const tunnel = await gateway.ssh(["-o", "ExitOnForwardFailure=yes", "-w", "0:0"], ["echo ran"]);
      expect(tunnel.stdout).toBe("");
    });
  });

  describe("identity", () => {
    test("S21 a user name reaches no other resource, account or option", async () => {
      for (const user of [
        "app%other",
        "app%default/other",
        "app%web%web",
        "app%%%web",
        "%%web",
        "root%web",
        "app+web",
        "app:web",
        "app%..%2fweb",
        "-oProxy%web",
        "app%WEB",
      ]) {
        const refused = await gateway.run("ssh", [...gateway.options, "-l", user, "127.0.0.1", "id"]);
        expect(refused.code, user).toBe(255);
        expect(refused.stdout, user).toBe("");
      }
      for (const user of ["app", "app%default/web", "app%%web", "alice%web", "local:alice"]) {
        const done = await gateway.run("ssh", [...gateway.options, "-l", user, "127.0.0.1", "echo in"]);
        expect(done.stdout, user).toBe("in\n");
      }
    });

    test("a wrong, expired or foreign token lets nobody in and is told why", async () => {
      const expired = gateway.issuer.token({ user: "alice", lifetimeSeconds: -100 });
      const refused = await gateway.ssh([], ["id"], { token: expired });
      expect(refused).toMatchObject({ code: 255, stdout: "" });
      expect(refused.stderr).toContain("the token has expired");
      expect((await gateway.ssh([], ["id"], { token: "nonsense" })).code).toBe(255);
      expect((await gateway.ssh([], ["id"], as("nobody"))).stderr).toContain("no policy names local:nobody");
    });

    test("S18 a token is also taken at a prompt (keyboard-interactive)", async () => {
      // The first value of an option counts.
      const typed = await gateway.run("ssh", [
        ...["-v", "-o", "PreferredAuthentications=keyboard-interactive", ...gateway.options],
        ...[gateway.destination, "echo in"],
      ]);
      expect(typed).toMatchObject({ code: 0, stdout: "in\n" });
      expect(typed.stderr).toContain('using "keyboard-interactive"');
    });

    test("S18 a key of one's own gets in by a certificate of the gateway, and alone it does not", async () => {
      const folder = join(gateway.home, "login");
      expect(await gateway.login(folder)).toMatchObject({ code: 0 });
      const configured = await gateway.run("ssh", [
        "-F",
        join(folder, "config"),
        "web",
        "echo by-certificate",
      ]);
      expect(configured).toMatchObject({ code: 0, stdout: "by-certificate\n" });
      const plain = ["-o", "PreferredAuthentications=publickey", ...gateway.options];
      const key = join(gateway.home, "alone");
      await writeFile(key, await readFile(join(folder, "default_web")), { mode: 0o600 });
      const alone = await gateway.run("ssh", [...plain, "-i", key, gateway.destination, "id"]);
      expect(alone.code).toBe(255);
    });

    test("S20 a host key that is not the pinned one is refused before anything is said to it", async () => {
      const { startOpenSsh: start } = await import("../targets/openssh.ts");
      const other = (await start()) as OpenSshServer;
      const front = await startSshGateway({ server: other, policies: policies(other.folder) });
      try {
        expect((await front.ssh([], ["echo in"])).stdout).toBe("in\n");
        await other.changeHostKey();
        const refused = await front.ssh([], ["echo in"]);
        expect(refused).toMatchObject({ code: 255, stdout: "" });
        expect(refused.stderr).toContain(
          "the host key of the server behind the gateway is not the expected one",
        );
      } finally {
        await front.stop();
        await other.stop();
      }
    });
  });

  describe("sessions", () => {
    test("a held command runs once a second person has approved it, and not when its client has left", async () => {
      const dora = as("dora");
      const ask = (path: string, body?: object) =>
        new Promise<{ readonly phase?: string }>((resolve, reject) => {
          const sent = request(
            {
              socketPath: join(dirname(gateway.recordingDir), "approvals/socket"),
              path: `/v1/approvals/${path}`,
              method: body === undefined ? "GET" : "POST",
              headers: {
                authorization: `Bearer ${gateway.issuer.token({ user: "lea", groups: ["leads"] })}`,
              },
            },
            (response) => {
              let text = "";
              response.setEncoding("utf8").on("data", (piece: string) => {
                text += piece;
              });
              response.on("end", () => resolve(JSON.parse(text)));
            },
          );
          sent.on("error", reject);
          sent.end(body === undefined ? undefined : JSON.stringify(body));
        });
      const held = (file: string) => {
        const child = gateway.start("ssh", [...gateway.options, gateway.destination, "touch", file], dora);
        let stderr = "";
        child.stderr?.setEncoding("utf8").on("data", (text: string) => {
          stderr += text;
        });
        const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
        const name = () => until(() => /held for approval (\S+):/.exec(stderr)?.[1]);
        return { child, ended, name, told: () => heldNoticesIn(stderr) };
      };
      const one = held(join(server.folder, "approved"));
      const name = await one.name();
      // It is told again every few seconds, with less time left each time.
      const [first, second] = await until(() => (one.told().length > 1 ? one.told() : undefined));
      expect(first).toMatchObject({ name, how: `sallyport approve ${name}`, rules: "asks/risky (1)" });
      expect(second).toEqual({ ...first, secondsLeft: expect.any(Number) });
      expect(second?.secondsLeft).toBeLessThan(first?.secondsLeft ?? 0);
      expect(existsSync(join(server.folder, "approved"))).toBe(false);
      await ask(`${name}/decisions`, { decision: "Approved" });
      expect(await one.ended).toBe(0);
      expect(existsSync(join(server.folder, "approved"))).toBe(true);

      const two = held(join(server.folder, "left"));
      const left = await two.name();
      two.child.kill("SIGKILL");
      await until(async () => (await ask(left)).phase === "Cancelled");
      expect(existsSync(join(server.folder, "left"))).toBe(false);
    }, 60_000);

    test("S25 S27 what a command prints is recorded masked, what is typed is not, and replay harms no terminal", async () => {
      const line =
        "stty -echo; echo ready; read secret; stty echo; printf 'mail zoe@example.com \\033]52;c;bWFya2Vy\\007 end\\n'";
      const child = gateway.start("ssh", [...gateway.options, "-tt", gateway.destination, line]);
      let output = "";
      child.stdout?.setEncoding("utf8").on("data", (piece: string) => {
        output += piece;
      });
      const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
      await until(() => output.includes("ready"));
      child.stdin?.write("typed-password\n");
      expect(await ended).toBe(0);
      expect(output).not.toContain("zoe@example.com");
      expect(output).toContain("mail ***************");
      const text = await until(async () => {
        const all = await recorded();
        return all.includes("***************") ? all : undefined;
      });
      expect(text).not.toContain("typed-password");
      // The command that the user gave holds it; what came back does not.
      expect(text.match(/zoe@example\.com/g)?.length).toBe(1);
      const [session] = (await listSessions(gateway.recordingDir)).slice(-1);
      let shown = "";
      for (const { sessionId } of await listSessions(gateway.recordingDir)) {
        for await (const line of renderReplay(readSession(gateway.recordingDir, sessionId))) shown += line;
      }
      expect(session).toBeDefined();
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
      expect(shown).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/);
    });

    test("S25 what flows fast is masked wherever its pieces end", async () => {
      const { code, stdout } = await gateway.ssh([], ["yes mail zoe@example.com now | head -n 300000"]);
      expect([code, stdout.length, stdout.includes("@")]).toEqual([0, 300_000 * 25, false]);
    });

    test("S25 what is read slowly is masked, too", async () => {
      const lines = 1_000_000;
      const live = gateway.start(
        "ssh",
        [...gateway.options, gateway.destination, `yes mail zoe@example.com now | head -n ${lines}`],
        as("alice"),
      );
      const out = live.stdout as Readable;
      let [got, stops, found, seen, before] = [0, 0, false, 0, -1];
      for await (const chunk of out as AsyncIterable<Buffer>) {
        got += chunk.length;
        found ||= chunk.includes("@");
        if (got < (stops + 1) * 2_000_000) continue;
        stops += 1;
        await until(() => {
          seen = out.readableLength === before ? seen + 1 : 0;
          before = out.readableLength;
          return seen > 2;
        });
      }
      expect([got, stops > 8, found]).toEqual([lines * 25, true, false]);
    });

    test("S22 a session whose access is withdrawn ends with the reason", async () => {
      const child = gateway.start(
        "ssh",
        [...gateway.options, gateway.destination, "echo up; sleep 60"],
        as("frank"),
      );
      child.kill("SIGKILL");
      await gateway.write("frank.yaml", policy("frank", "frank", "  profile: Admin\n"));
      const frank = as("frank");
      await until(async () => (await gateway.ssh([], ["echo in"], frank)).stdout === "in\n");
      const live = gateway.start(
        "ssh",
        [...gateway.options, gateway.destination, "echo up; sleep 60"],
        frank,
      );
      let [out, err] = ["", ""];
      live.stdout?.setEncoding("utf8").on("data", (text: string) => {
        out += text;
      });
      live.stderr?.setEncoding("utf8").on("data", (text: string) => {
        err += text;
      });
      const ended = new Promise<number | null>((resolve) => live.once("close", resolve));
      await until(() => out.includes("up"));
      await gateway.write("frank.yaml", policy("frank", "nobody", "  profile: Admin\n"));
      expect(await ended).toBe(255);
      expect(err).toContain("the session's access was withdrawn");
    });

    test("a command ends when the hour comes from which on it is denied, and the connection goes on", async () => {
      const hour = Date.now() + 15_000;
      const cel = `time >= timestamp('${new Date(hour).toISOString()}')`;
      const closed = `  - {name: closed, match: {objects: [sleep], cel: "${cel}"}, action: Deny}`;
      await gateway.write("hal.yaml", policy("hal", "hal", `  profile: Admin\n  rules:\n${closed}\n`));
      const hal = as("hal");
      await until(async () => (await gateway.ssh([], ["echo in"], hal)).stdout === "in\n");
      // Had it not begun in time, it would be told of the rule.
      const { code, stderr } = await gateway.ssh([], ["sleep 50"], hal);
      expect(code).not.toBe(0);
      expect(stderr).toContain("at this time");
      expect(Date.now()).toBeGreaterThanOrEqual(hour);
      expect((await gateway.ssh([], ["echo still in"], hal)).stdout).toBe("still in\n");
    });

    test("a hundred connections that say nothing keep nobody out", async () => {
      const idle: Socket[] = [];
      try {
        for (let index = 0; index < 100; index += 1) {
          const socket = connect(gateway.port, "127.0.0.1");
          socket.on("error", () => undefined);
          idle.push(socket);
        }
        await until(() => idle.every((socket) => !socket.connecting));
        expect((await gateway.ssh([], ["echo in"])).stdout).toBe("in\n");
      } finally {
        for (const socket of idle) socket.destroy();
      }
    });
  });
});
