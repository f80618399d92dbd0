/**
 * OpenSSH's ways through a connection (-D, -J, -R to ports and sockets), several resources behind one port, terminals
 * that change their size, and what of it is recorded. S1, S7, S8, S13, S21 and S22 of the cases for SSH.
 */
import { execFile } from "node:child_process";
import { appendFile, readFile, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { connect, createServer, type NetConnectOpts } from "node:net";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { listSessions, type Recorded, readSession } from "@sallyport/sidecar";
import { message, Reader } from "@sallyport/sidecar/ssh-testing";
import { afterAll, beforeAll, expect, test } from "vitest";
import { describeWith } from "../drivers/test-with.ts";
import { sallyportCommand } from "../targets/gateway.ts";
import { type OpenSshServer, startOpenSsh } from "../targets/openssh.ts";
import { policyDocument } from "../targets/policies.ts";
import { freePort } from "../targets/postgres.ts";
import { type RunOptions, type SshGateway, startSshGateway } from "../targets/ssh-gateway.ts";
import { sessionOf, signedIn } from "../targets/ssh-peer.ts";
import { until } from "../targets/until.ts";

const run = promisify(execFile);
const found = await startOpenSsh();
const server = found as OpenSshServer;
/** The host of another resource of the same gateway, which tunnels lead to as well. */
let second: OpenSshServer;
let gateway: SshGateway;
let hostKey = "";
let echo: { readonly port: number; readonly close: () => void };
const ports = { remote: 0, other: 0 };

const as = (user: string, more: RunOptions = {}): RunOptions => ({ user: { user }, ...more });
const tunnels = (action: string) =>
  policyDocument(
    "web",
    "rita",
    `  profile: Admin\n  rules:\n  - {name: back, match: {commands: [forward.remote]}, action: ${action}}\n`,
  );

async function policies(): Promise<string> {
  const other = {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "ProtectedResource",
    metadata: { name: "other", namespace: "default" },
    spec: {
      protocol: "ssh",
      endpoint: { host: "127.0.0.1", port: second.port },
      listen: { port: ports.other },
      credentials: [{ name: "app", secretRef: { name: "web" } }],
      identity: { providers: ["local"] },
      options: { hostKeys: [second.hostKey] },
    },
  };
  return [
    policyDocument("web", "alice", "  profile: Admin"),
    policyDocument("other", "alice", "  profile: Admin", "alice-of-other"),
    policyDocument(
      "web",
      "few",
      "  rules:\n  - {name: few, match: {commands: [exec], objects: [echo]}, action: Allow}\n",
    ),
    policyDocument("web", "short", "  profile: Admin\n  limits: {sessionDuration: 3s}\n"),
    policyDocument(
      "web",
      "dora",
      "  profile: Admin\n  rules:\n" +
        "  - {name: asks, match: {commands: [shell]}, action: RequireApproval, approval: {required: 1, timeout: 60s}}\n",
    ),
    `---\n${JSON.stringify(other)}\n`,
  ].join("");
}

/** What a socket says until its end; undefined where nobody listens. */
function heard(where: NetConnectOpts): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const socket = connect({ ...where, timeout: 10_000 });
    let text = "";
    socket.setEncoding("utf8").on("data", (piece: string) => {
      text += piece;
    });
    socket.once("timeout", () => socket.destroy(new Error("nothing comes")));
    socket.once("end", () => {
      socket.destroy();
      resolve(text);
    });
    socket.once("error", (error: NodeJS.ErrnoException) =>
      ["ECONNREFUSED", "ENOENT", "ECONNRESET"].includes(error.code ?? "")
        ? resolve(undefined)
        : reject(error),
    );
  });
}

/** A client that goes on, with what it has printed. */
function running(args: readonly string[], options: RunOptions) {
  const child = gateway.start("ssh", args, options);
  const printed = { out: "", err: "" };
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    printed.out += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    printed.err += text;
  });
  return { child, printed, ended: new Promise<number | null>((resolve) => child.once("close", resolve)) };
}

/** The recording that holds a text, whole. */
async function recordingWith(text: string): Promise<readonly Recorded[] | undefined> {
  for (const { sessionId } of await listSessions(gateway.recordingDir)) {
    const records: Recorded[] = [];
    for await (const record of readSession(gateway.recordingDir, sessionId)) records.push(record);
    if (records.some((one) => one.kind === "command" && one.sql.includes(text))) return records;
  }
  return undefined;
}

describeWith("through one connection", found, () => {
  beforeAll(async () => {
    second = (await startOpenSsh()) as OpenSshServer;
    // Both let in the same key: that of the gateway.
    await appendFile(
      join(dirname(second.folder), "authorized_keys"),
      await readFile(join(dirname(server.folder), "gateway.pub")),
    );
    const listener = createServer((socket) => socket.on("error", () => undefined).end("reached\n"));
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    echo = { port: (listener.address() as { port: number }).port, close: () => listener.close() };
    ports.remote = await freePort();
    ports.other = await freePort();
    gateway = await startSshGateway({
      server,
      policies: (await policies()) + tunnels("Allow"),
      options: {
        forwarding: {
          local: [`127.0.0.1:${echo.port}`, `127.0.0.1:${second.port}`],
          remote: [`127.0.0.1:${ports.remote}`, join(server.folder, "back.sock")],
        },
      },
      args: ["--approvers", "dora=local:leads"],
    });
    const known = gateway.options.find((one) => one.startsWith("UserKnownHostsFile="))?.split("=")[1] ?? "";
    hostKey = (await readFile(known, "utf8")).trim();
  }, 60_000);
  afterAll(async () => {
    echo?.close();
    await gateway?.stop();
    await server.stop();
    await second?.stop();
  });

  test("S21 a user name leads to another resource behind the same port, with a token for that one alone", async () => {
    const port = `echo $SSH_CONNECTION | cut -d" " -f4`;
    const token = gateway.issuer.token({ user: "alice", claims: { aud: "sallyport:default/other" } });
    const to = (user: string, options: RunOptions = {}) =>
      gateway.run("ssh", [...gateway.options, "-l", user, "127.0.0.1", port], options);
    for (const user of ["app%%other", "app%%default/other"])
      expect(await to(user, { token }), user).toMatchObject({ code: 0, stdout: `${second.port}\n` });
    expect(await to("app%%web")).toMatchObject({ code: 0, stdout: `${server.port}\n` });
    expect((await to("app%%other")).code).toBe(255);
    expect((await to("app%%web", { token })).code).toBe(255);
  });

  test("S7 whoever speaks SOCKS to ssh -D reaches what is offered and nothing else", async () => {
    const port = await freePort();
    const args = [...gateway.options, "-N", "-D", `127.0.0.1:${port}`, gateway.destination];
    const { child, ended } = running(args, as("alice"));
    /** SOCKS 5 with a name, which the host's side resolves: here the gateway. */
    const through = (host: string, to: number) =>
      new Promise<string>((resolve, reject) => {
        const socket = connect({ port, host: "127.0.0.1", timeout: 10_000 });
        const name = Buffer.from(host);
        const ask = Buffer.from([5, 1, 0, 3, name.length, ...name, to >> 8, to & 255]);
        let got = Buffer.alloc(0);
        socket.once("connect", () => socket.write(Buffer.concat([Buffer.of(5, 1, 0), ask])));
        socket.on("data", (piece: Buffer) => {
          got = Buffer.concat([got, piece]);
        });
        socket.once("timeout", () => socket.destroy(new Error("nothing comes")));
        socket.once("end", () => socket.destroy()).once("error", reject);
        // Two bytes about the login, ten about the connection, and what comes through it.
        socket.once("close", () => resolve(got.subarray(12).toString()));
      });
    try {
      await until(async () => (await heardAtAll(port)) === true);
      expect(await through("127.0.0.1", echo.port)).toBe("reached\n");
      for (const [host, to] of [
        ["127.0.0.1", gateway.port],
        ["localhost", 25],
        ["169.254.169.254", 80],
        ["127.0.0.1", server.port],
      ] as const)
        expect(await through(host, to), `${host}:${to}`).toBe("");
    } finally {
      child.kill("SIGKILL");
      await ended;
    }
  }, 60_000);

  test("S7 ssh -J goes through the gateway to a host that is offered, and to no other", async () => {
    const folder = join(gateway.home, "jump");
    expect(await gateway.login(folder)).toMatchObject({ code: 0 });
    const [key, inner] = [join(folder, "inner-key"), join(folder, "inner-known")];
    await writeFile(key, second.privateKey, { mode: 0o600 });
    const lines = [second, server].map((one) => `[127.0.0.1]:${one.port} ${one.hostKey}\n`);
    await writeFile(inner, lines.join(""));
    const jump = (to: OpenSshServer) =>
      gateway.run("ssh", [
        ...["-F", join(folder, "config"), "-J", "web", "-p", String(to.port), "-i", key, "-l", to.user],
        ...["-o", `UserKnownHostsFile=${inner}`, "-o", "BatchMode=yes", "127.0.0.1", "echo inside"],
      ]);
    expect(await jump(second)).toMatchObject({ code: 0, stdout: "inside\n" });
    // The resource's own host is reached as the policy says, and not beside it.
    const refused = await jump(server);
    expect(refused).toMatchObject({ code: 255, stdout: "" });
    expect(refused.stderr).toContain("forwarding there is not offered");
  });

  test("S8 -R brings connections back, by a port and by a socket, until it is cancelled or policy denies it", async () => {
    const socket = join(server.folder, "back.sock");
    const control = ["-o", `ControlPath=${join(gateway.home, "mux-back")}`];
    const ways = [
      [{ port: ports.remote, host: "127.0.0.1" }, `127.0.0.1:${ports.remote}:127.0.0.1:${echo.port}`],
      [{ path: socket }, `${socket}:127.0.0.1:${echo.port}`],
    ] as const;
    const begin = async () => {
      const flags = ["-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes"];
      const forwards = ways.flatMap(([, forward]) => ["-R", forward]);
      const args = [...gateway.options, ...control, ...flags, ...forwards, "-MN", gateway.destination];
      const master = running(args, as("rita"));
      for (const [where] of ways) await until(async () => (await heard(where)) === "reached\n");
      return master;
    };
    const one = await begin();
    for (const [where, forward] of ways) {
      await run("ssh", [...control, "-O", "cancel", "-R", forward, "nobody"], { timeout: 10_000 });
      await until(async () => (await heard(where)) === undefined);
    }
    one.child.kill("SIGKILL");
    await one.ended;
    // sshd leaves the socket behind when it is cancelled.
    await run("rm", ["-f", socket, join(gateway.home, "mux-back")], { timeout: 10_000 });
    const two = await begin();
    await gateway.write("tunnels.yaml", tunnels("Deny").replace("name: rita", "name: rita-denied"));
    for (const [where] of ways) await until(async () => (await heard(where)) === undefined);
    // What was denied is not asked for again either, and the connection goes on.
    const denied = await gateway.run(
      "ssh",
      [
        ...gateway.options,
        "-o",
        "ExitOnForwardFailure=yes",
        "-R",
        ways[1][1],
        gateway.destination,
        "echo ran",
      ],
      as("rita"),
    );
    expect(denied).toMatchObject({ code: 255, stdout: "" });
    expect(two.child.exitCode).toBeNull();
    two.child.kill("SIGKILL");
    await two.ended;
  }, 90_000);

  test("a shell that needs approval is held, says so, and begins when it is approved", async () => {
    const shell = running([...gateway.options, "-tt", gateway.destination], as("dora"));
    const name = await until(() => /held for approval (\S+):/.exec(shell.printed.err)?.[1]);
    expect(shell.printed.out).toBe("");
    await new Promise<void>((resolve, reject) => {
      const sent = request(
        {
          socketPath: join(dirname(gateway.recordingDir), "approvals/socket"),
          path: `/v1/approvals/${name}/decisions`,
          method: "POST",
          timeout: 10_000,
          headers: { authorization: `Bearer ${gateway.issuer.token({ user: "lea", groups: ["leads"] })}` },
        },
        (response) =>
          response.resume().once("end", () => {
            if (response.statusCode === 200) resolve();
            else reject(new Error(`the gateway answered ${response.statusCode}`));
          }),
      );
      sent.on("error", reject).end(JSON.stringify({ decision: "Approved" }));
    });
    shell.child.stdin?.write("echo begun-$((40+2)); exit 7\n");
    expect(await shell.ended).toBe(7);
    expect(shell.printed.out).toContain("begun-42");
  }, 60_000);

  test("S13 commands of one connection are recorded each by itself, with its decision and its output", async () => {
    const control = ["-o", `ControlPath=${join(gateway.home, "mux-few")}`];
    const master = running([...gateway.options, ...control, "-MN", gateway.destination], as("few"));
    try {
      await until(async () => {
        const check = run("ssh", [...control, "-O", "check", "nobody"], { timeout: 10_000 });
        return check.then(
          () => true,
          () => false,
        );
      });
      const words = ["first", "second", "third"];
      const asked = [...words.map((word) => `echo recorded-${word}`), "id recorded-never"];
      const flags = [...control, "-o", "ProxyCommand=false"];
      const done = await Promise.all(asked.map((line) => gateway.ssh(flags, [line], as("few"))));
      expect(done.map(({ code }) => code)).toEqual([0, 0, 0, 126]);
      // Whatever ran has a response once its channel is over.
      const records = await until(async () => {
        const some = (await recordingWith("recorded-never")) ?? [];
        return some.filter(({ kind }) => kind === "response").length >= words.length ? some : undefined;
      });
      const numbers = new Set<number>();
      for (const line of asked) {
        const command = records.find((one) => one.kind === "command" && one.sql === line);
        if (command?.kind !== "command") throw new Error(`no record of ${line}`);
        numbers.add(command.n);
        const shown = records
          .filter((one) => one.kind === "stream" && one.n === command.n && one.stream === "o")
          .map((one) => (one.kind === "stream" ? (one.text ?? Buffer.from(one.base64 ?? "", "base64")) : ""));
        const isDenied = line.startsWith("id");
        expect(command.verdict.action).toBe(isDenied ? "Deny" : "Allow");
        expect(shown.join("")).toBe(isDenied ? "" : `${line.slice("echo ".length)}\n`);
      }
      expect(numbers.size).toBe(asked.length);
    } finally {
      master.child.kill("SIGKILL");
      await master.ended;
    }
  }, 60_000);

  test("S1 a terminal's modes reach the host, and so does each new size; both are in the recording's player", async () => {
    const one = await signedIn(gateway, hostKey);
    const channel = await sessionOf(one);
    // ECHO off, ONLCR off, VINTR ^G, and the end (RFC 4254, 8).
    const modes = Buffer.from([53, 0, 0, 0, 0, 72, 0, 0, 0, 0, 1, 0, 0, 0, 7, 0]);
    one.send(message.channelRequest, channel, "pty-req", true, "xterm", 91, 31, 0, 0, modes);
    await one.next(message.channelSuccess);
    one.send(
      message.channelRequest,
      channel,
      "exec",
      true,
      "stty -a; stty size; while ! stty size | grep -q '^45 120'; do sleep 0.05; done; stty size; echo resized-there",
    );
    await one.next(message.channelSuccess);
    let text = "";
    const shows = async (what: string) => {
      while (!text.includes(what)) {
        const data = await one.next(message.channelData);
        data.uint32();
        text += data.string().toString();
      }
    };
    await shows("31 91");
    expect(text).toMatch(/intr = \^G/);
    expect(text).toMatch(/ -echo /);
    expect(text).toMatch(/ -onlcr/);
    one.send(message.channelRequest, channel, "window-change", false, 120, 45, 0, 0);
    await shows("45 120");
    const closed = await one.next(message.channelClose);
    expect(closed.uint32()).toBe(0);
    one.transport.destroy();
    const asked = await until(() => recordingWith("resized-there"));
    const command = asked.find((entry) => entry.kind === "command" && entry.sql.includes("resized-there"));
    const opening = asked[0];
    if (command?.kind !== "command" || opening?.kind !== "opening") throw new Error("not recorded");
    const replay = () =>
      gateway.run(process.execPath, [
        ...[...sallyportCommand, "replay", gateway.recordingDir, opening.sessionId],
        ...["--asciicast", String(command.n)],
      ]);
    const lines = await until(async () => {
      const { stdout } = await replay();
      return stdout.includes("resized-there") ? stdout.trim().split("\n") : undefined;
    });
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({
      version: 2,
      width: 91,
      height: 31,
      env: { TERM: "xterm" },
    });
    expect(lines.slice(1).map((line) => JSON.parse(line).slice(1))).toContainEqual(["r", "120x45"]);
  }, 60_000);

  test("S1 a command's end comes in order: its output, the end of it, how it ended, and then the close", async () => {
    const one = await signedIn(gateway, hostKey);
    for (const [line, name, check] of [
      ["printf all; exit 3", "exit-status", (rest: Reader) => expect(rest.uint32()).toBe(3)],
      [
        "printf all; ulimit -c 0; kill -SEGV $$",
        "exit-signal",
        (rest: Reader) => {
          expect(rest.text()).toBe("SEGV");
          // Whether it left a core; sshd says what the system said.
          expect(typeof rest.boolean()).toBe("boolean");
          rest.text();
          rest.text();
          expect(rest.isAtEnd).toBe(true);
        },
      ],
    ] as const) {
      const channel = await sessionOf(one);
      one.send(message.channelRequest, channel, "exec", true, line);
      await one.next(message.channelSuccess);
      const order: number[] = [];
      for (let type = 0; type !== message.channelClose; order.push(type)) {
        const { channelData, channelEof, channelClose, channelRequest } = message;
        const payload = await one.nextOf(channelData, channelEof, channelClose, channelRequest);
        type = payload[0] ?? 0;
        if (type !== channelRequest) continue;
        const reader = new Reader(payload, 5);
        expect(reader.text()).toBe(name);
        expect(reader.boolean()).toBe(false);
        check(new Reader(reader.rest));
      }
      const { channelData, channelEof, channelClose, channelRequest } = message;
      expect(order[0]).toBe(channelData);
      expect(order.at(-1)).toBe(channelClose);
      expect([...order].sort()).toEqual([channelData, channelEof, channelClose, channelRequest].sort());
      one.send(message.channelClose, channel);
    }
    one.transport.destroy();
  });

  test("S22 a session ends after the time that policy gives it, and says so", async () => {
    const live = running([...gateway.options, gateway.destination, "echo up; sleep 60"], as("short"));
    await until(() => live.printed.out === "up\n");
    expect(await live.ended).toBe(255);
    expect(live.printed.err).toMatch(/sallyport: the session/);
  }, 30_000);
});

/** Whether anybody listens there. */
function heardAtAll(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1", timeout: 5_000 });
    const settle = (isThere: boolean) => {
      socket.destroy();
      resolve(isThere);
    };
    socket.once("connect", () => settle(true)).once("error", () => settle(false));
    socket.once("timeout", () => settle(false));
  });
}
