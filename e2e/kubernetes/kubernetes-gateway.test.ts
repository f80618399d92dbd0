/** exec, attach, cp, logs and port-forward through the Kubernetes gateway, with real kubectl against real pods. */
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Kubectl } from "../cluster/kubectl.ts";
import { run } from "../cluster/kubectl.ts";
import type { KubernetesGateway } from "../targets/kubernetes-gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { openScenario } from "./scenario.ts";
import { decideHeld, going, heldExec, recordedLines, shellPod, startShellGateway } from "./shell-pod.ts";

const scenario = openScenario("kubernetes-gateway");
const { namespace } = scenario;

const policy = (user: string, rest: string, name: string) => policyDocument("cluster", user, rest, name);
const policies = [
  policy(
    "ana",
    `  profile: Admin
  rules:
  - name: no-password-file
    match: {commands: [pods/exec], cel: '"/etc/passwd" in command.argv'}
    action: Deny
    message: accounts are not read here
  - name: no-opaque-shell
    match: {commands: [pods/exec], cel: 'command.facts.labels["guarded"] == "yes" && command.facts.shell == "opaque"'}
    action: Deny
    message: write the command out
  - name: no-odd-port
    match: {commands: [pods/portforward], cel: 'command.facts.port == 9999'}
    action: Deny
    message: that port stays closed
  - name: no-host-access
    match: {cel: 'command.facts.verb in ["create", "update", "patch"] && command.facts.hostAccess'}
    action: Deny
    message: pods may not reach the node`,
    "admins",
  ),
  policy("pia", "  profile: Admin", "plain"),
  policy("hal", `  profile: Admin\n${heldExec}`, "held"),
  policy(
    "mia",
    `  profile: Admin
  masking:
  - {patterns: [email], with: Redact}`,
    "masked",
  ),
].join("");

let gateway: KubernetesGateway;
let ana: Kubectl;
let mia: Kubectl;
let pia: Kubectl;
let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sallyport-exec-"));
  await scenario.apply(shellPod());
  await scenario.ready("pod/shell");
  gateway = await startShellGateway(scenario, ["ana", "mia", "pia", "hal"], policies);
  [ana, mia, pia] = [await gateway.user("ana"), await gateway.user("mia"), await gateway.user("pia")];
});
afterAll(async () => {
  await gateway?.stop();
  await rm(folder, { recursive: true, force: true });
});

const exec = (kubectl: Kubectl, flags: readonly string[], command: readonly string[], input?: string) =>
  kubectl.try(input, "exec", ...flags, "-n", namespace, "shell", "--", ...command);
/** The same kubectl made to speak SPDY, as those before 1.31 did. */
const overSpdy = (kubectl: Kubectl, flags: readonly string[], command: readonly string[], input?: string) =>
  run(
    kubectl.program,
    ["--kubeconfig", kubectl.kubeconfig, "exec", ...flags, "-n", namespace, "shell", "--", ...command],
    input,
    { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: "false" },
  );

const recorded = () => recordedLines(gateway);

const both = [
  ["WebSocket", exec],
  ["SPDY", overSpdy],
] as const;

test.each(both)(
  "K9, K10: over %s, streams are apart and exit codes are the command's",
  async (_name, through) => {
    expect(await through(mia, [], ["sh", "-c", "echo out; echo err >&2; exit 7"])).toEqual({
      code: 7,
      stdout: "out\n",
      stderr: "err\ncommand terminated with exit code 7\n",
    });
    expect(await through(ana, [], ["ls", "/nothing"])).toMatchObject({
      code: expect.any(Number),
      stdout: "",
    });
    expect((await through(ana, [], ["no-such-program"])).code).not.toBe(0);
    expect(await through(ana, ["-i"], ["cat"], "typed in\n")).toMatchObject({
      code: 0,
      stdout: "typed in\n",
    });
  },
);

test.each(both)(
  "K9: over %s, kubectl ends as it does without the gateway, whatever ends the command",
  async (_name, through) => {
    for (const command of [
      ["sh", "-c", "exit 255"],
      ["sh", "-c", "kill -9 $$"],
      ["sh", "-c", "/nothing"],
      ["/nothing"],
      ["/tmp"],
    ]) {
      const [direct, ours] = await Promise.all(
        [scenario.cluster.kubectl, pia].map((kubectl) => through(kubectl, [], command)),
      );
      if (direct === undefined || ours === undefined) throw new Error("both were asked");
      // What the runtime says of a program that it cannot start has an id of its own each time.
      const told = ({ code, stdout, stderr }: typeof direct) => [
        code,
        stdout,
        stderr.replaceAll(/[0-9a-f]{64}/g, "ID"),
      ];
      expect([command, ...told(ours)]).toEqual([command, ...told(direct)]);
    }
  },
);

test("K9: whose pod goes away meanwhile hears of it, and does not end with 0", async () => {
  const { metadata, ...rest } = shellPod("leaving");
  await scenario.apply({ ...rest, metadata: { name: metadata.name } });
  await scenario.ready("pod/leaving");
  const ends = [{}, { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: "false" }].map((environment) => {
    const script = "echo begun; sleep 600";
    const argv = ["exec", "-n", namespace, "leaving", "--", "sh", "-c", script];
    const { child, text } = going(pia, environment, ...argv);
    return { text, ended: once(child, "exit") };
  });
  for (const { text } of ends)
    await scenario.eventually("the command to run", async () => text().includes("begun") || undefined);
  await scenario.kubectl("delete", "pod", "leaving", "--wait=false");
  for (const { text, ended } of ends) {
    const [code] = await ended;
    expect(code, text()).toBeGreaterThan(0);
  }
});

test("kubectl applies, watches and deletes on the node, and makes no pod that reaches it", async () => {
  const map = (value: string) =>
    JSON.stringify({
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "day", namespace },
      data: { value },
    });
  const apply = (value: string, ...flags: readonly string[]) =>
    ana.withInput(map(value), "apply", ...flags, "-f", "-");
  await apply("one");
  const shown = ["--watch", "-o", "jsonpath={.data.value};"];
  const watching = going(ana, {}, "get", "configmap", "day", "-n", namespace, ...shown);
  try {
    // An apply of the other side moves the fields' owners in a write of its own: the same is shown again.
    const shows = (text: RegExp) =>
      scenario.eventually(`the watch to show ${text}`, async () => text.test(watching.text()) || undefined);
    await shows(/^one;$/);
    await apply("two");
    await shows(/^one;two;$/);
    await apply("three", "--server-side", "--force-conflicts");
    await shows(/^one;two;(three;)+$/);
  } finally {
    watching.child.kill("SIGKILL");
  }
  await ana("delete", "configmap", "day", "-n", namespace);
  const { spec, ...pod } = shellPod("rooted");
  const rooted = {
    ...pod,
    metadata: { name: "rooted", namespace },
    spec: { ...(spec as object), hostPID: true },
  };
  const refused = await ana.try(JSON.stringify(rooted), "apply", "-f", "-");
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("pods may not reach the node")]);
});

test("K3, K5: a denied exec is told once, with one id, over WebSocket and the SPDY that follows", async () => {
  const refused = await exec(ana, [], ["cat", "/etc/passwd"]);
  expect(refused.code).toBe(1);
  expect(refused.stderr.match(/accounts are not read here/g)).toHaveLength(1);
  const id = /\(([0-9a-f]{12})\)/.exec(refused.stderr)?.[1];
  expect(id).toBeDefined();
  const lines = await recorded();
  const denied = lines.filter(
    (line) => line.kind === "command" && String(line.sql).endsWith("-- cat /etc/passwd"),
  );
  expect(denied).toHaveLength(1);
  expect(
    lines.filter((line) => line.name === "refused" && JSON.stringify(line).includes(id ?? "")),
  ).toHaveLength(1);
});

test.each(both)(
  "K15: over %s, a shell that could run anything is refused where rules say so",
  async (_name, through) => {
    const opaque = await through(ana, [], ["sh", "-c", "cat $(echo /etc/passwd)"]);
    expect(opaque.stderr).toContain("write the command out");
    expect((await through(ana, [], ["sh", "-c", "echo plain; echo done"])).stdout).toBe("plain\ndone\n");
  },
);

test.each(both)("K14: over %s, what goes through is what came, to the last byte", async (name, through) => {
  const megabytes = scenario.full ? 200 : 8;
  const command = ["sh", "-c", `head -c ${megabytes * 1024 * 1024} /dev/zero`];
  const { code, stdout } = await through(mia, [], command);
  expect([name, code, stdout.length]).toEqual([name, 0, megabytes * 1024 * 1024]);
});

test("K16: what a command printed and was given is recorded, each stream apart", async () => {
  await exec(mia, ["-i"], ["sh", "-c", "cat; echo to-stderr >&2"], "to-stdin\n");
  const found = await scenario.eventually("the recording of all three", async () => {
    const streams = (await recorded()).filter(({ kind }) => kind === "stream");
    const has = (stream: string, text: string) =>
      streams.some((line) => line.stream === stream && String(line.text).includes(text));
    return (has("o", "to-stdin") && has("e", "to-stderr") && has("i", "to-stdin")) || undefined;
  });
  expect(found).toBe(true);
});

test.each(both)(
  "patterns are masked over %s, also where they come in pieces and with colours",
  async (_name, through) => {
    const script = "printf 'mail ann@exam'; printf 'ple.com end\\n'; printf 'b\\033[1mob@example.com\\n'";
    const { stdout } = await through(mia, [], ["sh", "-c", script]);
    expect(stdout).toContain(`mail ${"*".repeat("ann@example.com".length)} end`);
    expect(stdout).not.toContain("ple.com");
    const all = (await recorded())
      .filter((line) => line.kind === "stream")
      .map((line) => JSON.stringify(line));
    expect(all.join("")).not.toContain("ann@example.com");
  },
);

test("K19: files go both ways whole, and are listed by name, size and hash", async () => {
  const content = randomBytes(300_000);
  const [there, back] = [join(folder, "there.bin"), join(folder, "back.bin")];
  await writeFile(there, content);
  await pia("cp", there, `${namespace}/shell:/tmp/copied.bin`);
  await pia("cp", `${namespace}/shell:/tmp/copied.bin`, back);
  expect((await readFile(back)).equals(content)).toBe(true);
  const files = await scenario.eventually("both files to be recorded", async () => {
    const found = (await recorded()).filter((line) => line.name === "file").map((line) => line.fields);
    return found.length >= 2 ? found : undefined;
  });
  const sha256 = createHash("sha256").update(content).digest("hex");
  expect(files).toContainEqual(
    expect.objectContaining({ direction: "in", name: "copied.bin", size: 300_000, sha256 }),
  );
  expect(files).toContainEqual(expect.objectContaining({ direction: "out", size: 300_000, sha256 }));
});

test("K26: logs follow, and are masked like a terminal", async () => {
  const following = going(ana, {}, "logs", "-f", "-n", namespace, "shell");
  await scenario.eventually(
    "the log's first lines",
    async () => following.text().includes("ann@example.com") || undefined,
  );
  following.child.kill("SIGKILL");
  const shown = await mia("logs", "-n", namespace, "shell");
  expect(shown).toContain("mail ****");
  expect(shown).not.toContain("ann@");
});

test("K11: with a terminal, both streams are one, and sizes are recorded", async () => {
  const line = `${ana.program} --kubeconfig ${ana.kubeconfig} exec -it -n ${namespace} shell -- cat /proc/self/comm /nothing`;
  const { code, stdout } = await run("script", ["-qec", `stty cols 101 rows 33; ${line}`, "/dev/null"]);
  expect(code).not.toBe(0);
  expect(stdout).toMatch(/cat\r\n.*No such file.*\r\n/);
  await scenario.eventually("the size to be recorded", async () => {
    const sizes = (await recorded()).filter(({ name }) => name === "resized").map(({ fields }) => fields);
    return sizes.some((size) => JSON.stringify(size).includes('"width":101,"height":33')) || undefined;
  });
});

test("K17: attach reaches the running program, and what it prints comes back", async () => {
  const { child, text } = going(ana, {}, "attach", "-i", "-n", namespace, "shell");
  try {
    child.stdin?.write("hello\n");
    await scenario.eventually("the program's answer", async () => text().includes("got hello") || undefined);
  } finally {
    child.kill("SIGKILL");
  }
});

test.each([
  ["WebSocket", "true"],
  ["SPDY", "false"],
])(
  "K18: over %s, a tunnel carries connections, and a closed port stays closed",
  async (_name, websockets) => {
    const server = going(
      scenario.cluster.kubectl,
      {},
      "exec",
      "-n",
      namespace,
      "shell",
      "--",
      "sh",
      "-c",
      "while true; do echo pong | nc -l -p 7777 >/dev/null; done",
    );
    const environment = { KUBECTL_PORT_FORWARD_WEBSOCKETS: websockets };
    const forward = going(ana, environment, "port-forward", "-n", namespace, "pod/shell", ":7777", ":9999");
    try {
      const ports = await scenario.eventually("both ports to be forwarded", async () => {
        const found = [...forward.text().matchAll(/127\.0\.0\.1:(\d+) -> (\d+)/g)];
        return found.length === 2
          ? new Map(found.map(([, local, remote]) => [remote, Number(local)]))
          : undefined;
      });
      for (let round = 0; round < 2; round += 1) {
        // kubectl gives the whole tunnel up where nobody listens.
        await scenario.eventually("the program to listen", async () => {
          const { stdout } = await scenario.exec("shell", "cat", "/proc/net/tcp", "/proc/net/tcp6");
          return /:1E61 0+:0000 0A/.test(stdout) || undefined;
        });
        const answer = await scenario.eventually("an answer", async () => {
          const socket = connect(ports.get("7777") ?? 0, "127.0.0.1");
          let got = "";
          socket.on("data", (chunk) => {
            got += chunk.toString();
          });
          socket.on("error", () => undefined);
          socket.write("ping\n");
          await Promise.race([
            once(socket, "close").catch(() => undefined),
            new Promise((r) => setTimeout(r, 1_500)),
          ]);
          socket.destroy();
          return got === "" ? undefined : got;
        });
        expect(answer).toBe("pong\n");
      }
      const refused = connect(ports.get("9999") ?? 0, "127.0.0.1");
      refused.on("error", () => undefined);
      await once(refused, "close").catch(() => undefined);
      await scenario.eventually(
        "the refusal to be told",
        async () => forward.text().includes("that port stays closed") || undefined,
      );
    } catch (error) {
      throw new Error(`${forward.text()}\n${gateway.logs()}`, { cause: error });
    } finally {
      forward.child.kill("SIGKILL");
      server.child.kill("SIGKILL");
    }
    const tunnels = (await recorded()).filter(
      (line) => String(line.sql).includes("portforward") && String(line.sql).endsWith("port 7777"),
    );
    expect(tunnels.length).toBeGreaterThan(0);
  },
);

test.each([
  ["WebSocket", "true"],
  ["SPDY", "false"],
])(
  "K18: over %s, a service is forwarded to by many connections at once, each with its own answer",
  async (_name, websockets) => {
    const target = { name: "shell", port: 80, targetPort: 7474 };
    await scenario.apply({
      ...{ apiVersion: "v1", kind: "Service", metadata: { name: target.name } },
      spec: { selector: { guarded: "yes" }, ports: [{ port: target.port, targetPort: target.targetPort }] },
    });
    const files = [...Array(8).keys()];
    const make = files
      .map((n) => `head -c ${200_000 + n} /dev/zero | tr '\\0' ${n} > /tmp/served-${n}`)
      .join(";");
    const serve = `${make}; /bin/busybox httpd -p ${target.targetPort} -h /tmp || true`;
    expect(await scenario.exec("shell", "sh", "-c", serve)).toMatchObject({ code: 0 });
    const count = async () =>
      (await recorded()).filter(({ kind, sql }) => kind === "command" && String(sql).endsWith("port 7474"))
        .length;
    const before = await count();
    const environment = { KUBECTL_PORT_FORWARD_WEBSOCKETS: websockets };
    const forward = going(pia, environment, "port-forward", "-n", namespace, "service/shell", ":80");
    try {
      const port = await scenario.eventually(
        "the port to be forwarded",
        async () => /127\.0\.0\.1:(\d+) -> 7474/.exec(forward.text())?.[1],
      );
      const ask = async (n: number) => {
        const url = `http://127.0.0.1:${port}/served-${n}`;
        const answer = await fetch(url, {
          headers: { connection: "close" },
          signal: AbortSignal.timeout(60_000),
        });
        return answer.text();
      };
      const answers = await Promise.all([...files, ...files].map(ask));
      for (const [at, text] of answers.entries()) {
        const n = at % files.length;
        expect([n, text === String(n).repeat(200_000 + n)]).toEqual([n, true]);
      }
    } catch (error) {
      throw new Error(forward.text(), { cause: error });
    } finally {
      forward.child.kill("SIGKILL");
    }
    // Each connection is a record of its own.
    await scenario.eventually("a record of each", async () => (await count()) >= before + 16 || undefined);
  },
);

test("K31: a session whose token is over ends with a Status and a failure, not as if it had succeeded", async () => {
  // Long enough for kubectl to come with it.
  const short = await gateway.user("ana", [], 20);
  const { code, stderr } = await exec(short, [], ["sleep", "60"]);
  expect(code).not.toBe(0);
  expect(stderr).toContain("the session ended with the identity's token");
});

test("K4: a held exec tells its terminal what it waits for, keeps what is typed, and runs once somebody agrees", async () => {
  const hal = await gateway.user("hal");
  const { child, text } = going(hal, {}, "exec", "-i", "-n", namespace, "shell", "--", "cat");
  const ended = once(child, "exit");
  child.stdin?.end("typed meanwhile\n");
  await scenario.eventually("the notice", async () => text().includes("held for approval") || undefined);
  expect(text()).toContain("somebody else must agree");
  expect(text()).not.toContain("typed meanwhile");
  await decideHeld(gateway, text(), "approve");
  expect((await ended)[0]).toBe(0);
  expect(text()).toContain("typed meanwhile");
});

test("K4: a held exec that nobody agrees to ends with a failure, and has not run", async () => {
  const hal = await gateway.user("hal");
  const { child, text } = going(
    hal,
    {},
    "exec",
    "-n",
    namespace,
    "shell",
    "--",
    "sh",
    "-c",
    "echo ran > /tmp/ran",
  );
  const ended = once(child, "exit");
  await scenario.eventually("the notice", async () => text().includes("held for approval") || undefined);
  await decideHeld(gateway, text(), "deny", "--reason", "not today");
  expect((await ended)[0]).not.toBe(0);
  expect(text()).toContain("not today");
  expect((await scenario.exec("shell", "cat", "/tmp/ran")).code).not.toBe(0);
});
