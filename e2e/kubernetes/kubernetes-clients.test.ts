/** Clients of every age and language through the Kubernetes gateway, and what ends them, against real pods. */

import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createKubectl, type Kubectl, run } from "../cluster/kubectl.ts";
import { postgresImageName } from "../image/postgres/image.ts";
import { sallyportCommand } from "../targets/gateway.ts";
import type { KubernetesGateway } from "../targets/kubernetes-gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { workAsProgram } from "./clients/javascript.ts";
import { goModule } from "./go-program.ts";
import { oldAges, oldKubectl } from "./old-kubectl.ts";
import { openScenario } from "./scenario.ts";
import { decideHeld, going, heldExec, recordedLines, shellPod, startShellGateway } from "./shell-pod.ts";
import { NotSwitched, openWebSocket } from "./websocket-client.ts";

const scenario = openScenario("kubernetes-clients");
const { namespace } = scenario;
const privileged = `${namespace}-privileged`;

const policy = (user: string, rest = "") =>
  policyDocument(
    "cluster",
    user,
    `  profile: Admin
${rest}`,
  );

const policies = [
  policy(
    "ana",
    `  rules:
  - name: no-password-file
    match: {commands: [pods/exec], cel: '"/etc/passwd" in command.argv'}
    action: Deny
    message: accounts are not read here
  - name: no-odd-port
    match: {commands: [pods/portforward], cel: 'command.facts.port == 9999'}
    action: Deny
    message: that port stays closed
  - name: no-host-access
    match: {cel: 'command.facts.verb in ["create","update","patch"] && command.facts.hostAccess && !(command.facts.subresource in ["exec","attach"])'}
    action: Deny
    message: pods may not reach the node
  - name: no-exec-into-privileged
    match: {commands: [pods/exec, pods/attach], cel: command.facts.hostAccess}
    action: Deny
    message: nobody enters what reaches the node
  - name: known-debuggers
    match: {cel: 'command.facts.subresource == "ephemeralcontainers" && command.facts.images.exists(i, i != "${postgresImageName}")'}
    action: Deny
    message: debug with the known image
  - name: target
    match: {cel: 'command.facts.subresource == "ephemeralcontainers" && command.facts.target == "other"'}
    action: Deny
    message: that container is not looked into`,
  ),
  policy("hal", heldExec),
  policy("ida", "  limits: {idle: 4s}"),
  policy("moe", '  masking:\n  - {columns: ["core.secrets.data"], with: Redact}'),
  policy("mia", "  masking:\n  - {patterns: [email], with: Redact}"),
  policy(
    "cal",
    `  rules:
  - name: closed-files
    match: {objects: ["/tmp/closed/*", "*.pem"]}
    action: Deny
    message: that stays where it is
  - name: small-files
    match: {commands: [cp.get, cp.put], cel: 'command.facts.fileSize > 100000'}
    action: Deny
    message: a file has 100 kB at most`,
  ),
].join("");
const leaving = policy("rex");
const users = ["ana", "hal", "ida", "moe", "mia", "rex", "pol", "cal"];

let gateway: KubernetesGateway;
let ana: Kubectl;
let folder = "";

/** Cold, a build takes about two minutes. */
beforeAll(async () => {
  if (scenario.full) for (const age of oldAges) await oldKubectl(age);
}, 900_000);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sallyport-clients-"));
  await scenario.apply(shellPod());
  await scenario.cluster.kubectl.apply([
    { apiVersion: "v1", kind: "Namespace", metadata: { name: privileged } },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "rooted", namespace: privileged },
      spec: {
        terminationGracePeriodSeconds: 0,
        automountServiceAccountToken: false,
        containers: [
          {
            name: "main",
            image: postgresImageName,
            imagePullPolicy: "Never",
            command: ["sleep", "3600"],
            securityContext: { privileged: true },
          },
        ],
      },
    },
  ]);
  await scenario.ready("pod/shell");
  gateway = await startShellGateway(scenario, users, policies);
  await gateway.write("leaving.yaml", leaving);
  ana = await gateway.user("ana");
});
afterAll(async () => {
  await gateway?.stop();
  await scenario.cluster.kubectl("delete", "namespace", privileged, "--ignore-not-found", "--wait=false");
  await rm(folder, { recursive: true, force: true });
});

const recorded = () => recordedLines(gateway);
const as = (name: string) => ({ url: gateway.url, caPem: gateway.caPem, token: gateway.token(name) });
const shell = `/api/v1/namespaces/${namespace}/pods/shell`;

/** kubectl of each age: the cluster's own twice, the second time as those before 1.31 speak; all of them with --full. */
const ages = [
  { age: "current", environment: {} },
  { age: "current, SPDY", environment: { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: "false" } },
  ...(scenario.full ? oldAges.map((age) => ({ age, environment: {} })) : []),
];

/** The program of an age, as a user. */
async function ofAge(age: string, user: Kubectl): Promise<Kubectl> {
  const old = oldAges.find((one) => one === age);
  return old === undefined ? user : createKubectl(await oldKubectl(old), user.kubeconfig);
}

test.each(ages)(
  "K2, K3: kubectl $age reads, runs commands and is told a denial once, with one record",
  async ({ age, environment }) => {
    const kubectl = await ofAge(age, ana);
    const exec = (input: string | undefined, ...argv: readonly string[]) =>
      run(
        kubectl.program,
        [
          "--kubeconfig",
          kubectl.kubeconfig,
          "exec",
          ...(input === undefined ? [] : ["-i"]),
          "-n",
          namespace,
          "shell",
          "--",
          ...argv,
        ],
        input,
        environment,
      );
    expect(await kubectl("get", "pods", "-n", namespace)).toMatch(/shell +1\/1 +Running/);
    expect(await exec(undefined, "sh", "-c", "echo out; echo err >&2; exit 7")).toMatchObject({
      code: 7,
      stdout: "out\n",
      stderr: expect.stringContaining("err\n"),
    });
    expect(await exec("typed in\n", "cat")).toMatchObject({ code: 0, stdout: "typed in\n" });
    const path = "/etc/passwd";
    const denied = async () =>
      (await recorded()).filter((line) => String(line.sql).endsWith(`-- cat ${path}`)).length;
    const before = await denied();
    const refused = await exec(undefined, "cat", path);
    expect(refused.code).toBe(1);
    expect(refused.stderr.match(/accounts are not read here/g)).toHaveLength(1);
    // What comes after it is stored after it.
    await exec(undefined, "sh", "-c", "true");
    expect((await denied()) - before).toBe(1);
  },
);

test.each(ages)(
  "K4: kubectl $age shows what a held exec waits for, and runs it once somebody agrees",
  async ({ age, environment }) => {
    const hal = await ofAge(age, await gateway.user("hal"));
    const { child, text } = going(hal, environment, "exec", "-i", "-n", namespace, "shell", "--", "cat");
    const ended = once(child, "exit");
    child.stdin?.end("typed meanwhile\n");
    await scenario.eventually("the notice", async () => text().includes("held for approval") || undefined);
    expect(text()).toContain("somebody else must agree");
    expect(text()).not.toContain("typed meanwhile");
    await decideHeld(gateway, text(), "approve");
    expect([(await ended)[0], text().includes("typed meanwhile")]).toEqual([0, true]);
    const refused = going(
      hal,
      environment,
      "exec",
      "-n",
      namespace,
      "shell",
      "--",
      "sh",
      "-c",
      "echo ran > /tmp/ran",
    );
    const over = once(refused.child, "exit");
    await scenario.eventually(
      "the notice",
      async () => refused.text().includes("held for approval") || undefined,
    );
    await decideHeld(gateway, refused.text(), "deny", "--reason", "not today");
    expect((await over)[0]).not.toBe(0);
    expect(refused.text()).toContain("not today");
    expect((await scenario.exec("shell", "cat", "/tmp/ran")).code).not.toBe(0);
  },
);

test.each(ages.slice(0, 2))(
  "K4: with a terminal, kubectl $age shows the notice on it",
  async ({ environment }) => {
    const hal = await gateway.user("hal");
    const line = `${hal.program} --kubeconfig ${hal.kubeconfig} exec -it -n ${namespace} shell -- sh -c "echo done"`;
    const child = spawn("script", ["-qefc", line, "/dev/null"], {
      env: { ...process.env, ...environment },
      stdio: ["pipe", "pipe", "inherit"],
      timeout: 60_000,
    });
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    const ended = once(child, "exit");
    await scenario.eventually("the notice", async () => text.includes("held for approval") || undefined);
    await decideHeld(gateway, text, "approve");
    expect((await ended)[0]).toBe(0);
    expect(text).toContain("done");
  },
);

test.each(ages)(
  "K19: kubectl $age copies what rules let it, and a file that they do not ends the copy before its first byte",
  async ({ age, environment }) => {
    const cal = await ofAge(age, await gateway.user("cal"));
    const place = await mkdtemp(join(folder, "copied-"));
    const there = `/tmp/${basename(place)}`;
    const cp = (from: string, to: string) =>
      run(cal.program, ["--kubeconfig", cal.kubeconfig, "cp", from, to], undefined, environment);
    const inPod = (path: string) => `${namespace}/shell:${path}`;
    const made = async (name: string, content: string | Buffer) => {
      const path = join(place, name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, content);
      return path;
    };
    const hasFile = async (path: string) => (await scenario.exec("shell", "ls", path)).code === 0;
    const makeFiles = `mkdir -p ${there} /tmp/closed; echo no > /tmp/closed/x; head -c 200000 /dev/zero > ${there}/large`;
    await scenario.exec("shell", "sh", "-c", makeFiles);

    const small = await made("small", randomBytes(5_000));
    expect(await cp(small, inPod(`${there}/small`))).toMatchObject({ code: 0 });
    const back = join(place, "back");
    expect(await cp(inPod(`${there}/small`), back)).toMatchObject({ code: 0 });
    expect((await readFile(back)).equals(await readFile(small))).toBe(true);

    const refused = async (from: string, to: string, ...told: readonly string[]) => {
      const { code, stderr } = await cp(from, to);
      expect(code, stderr).not.toBe(0);
      for (const text of told) expect(stderr).toContain(text);
    };
    await made("folder/a.txt", "may go");
    await made("folder/key.pem", "may not");
    await made("folder/z.txt", "comes behind");
    const key = `"${there}/folder/key.pem" of 7 bytes is not copied by rule closed-files of policy cal`;
    await refused(join(place, "folder"), inPod(`${there}/folder`), key, "that stays where it is");
    const left = await scenario.exec("shell", "ls", `${there}/folder`);
    expect(left.stdout).not.toMatch(/key\.pem|z\.txt/);
    const denied = async () =>
      (await recorded()).filter(
        (line) => line.kind === "command" && String(line.sql).includes(`"${there}/folder/key.pem"`),
      ).length;
    await scenario.eventually("the record", async () => (await denied()) > 0 || undefined);

    const away = join(place, "away");
    await refused(inPod("/tmp/closed"), away, '"/tmp/closed/x" of 3 bytes is not copied', "closed-files");
    expect(existsSync(join(away, "x"))).toBe(false);
    await refused(inPod("/tmp/closed/x"), away, "that stays where it is");

    const large = await made("big", Buffer.alloc(200_000));
    await refused(large, inPod(`${there}/big`), "a file has 100 kB at most", "200000 bytes");
    expect(await hasFile(`${there}/big`)).toBe(false);
    await refused(inPod(`${there}/large`), join(place, "large"), "a file has 100 kB at most");
    expect(existsSync(join(place, "large"))).toBe(false);

    await mkdir(join(place, "linked"));
    await symlink("/etc", join(place, "linked", "etc"));
    await refused(join(place, "linked"), inPod(`${there}/linked`), "links and devices lead elsewhere");
    expect(await hasFile(`${there}/linked`)).toBe(false);
    await refused(inPod(`/tmp/..${there}/small`), away, "a path from the root");
    // What comes after it is stored after it.
    expect(await denied()).toBe(1);
  },
);

test("K19: where a container has no tar, kubectl says so as it does without the gateway, and it is recorded", async ({
  onTestFinished,
}) => {
  const { metadata, ...rest } = shellPod("bare");
  // Other tests count the pods.
  onTestFinished(async () => {
    await scenario.kubectl("delete", "pod", "bare", "--timeout=60s");
  });
  await scenario.apply({ ...rest, metadata: { name: metadata.name } });
  await scenario.ready("pod/bare");
  await scenario.eventually("its tar to be gone", async () => {
    await scenario.exec("bare", "/bin/busybox", "rm", "-f", "/tmp/bin/tar");
    return (await scenario.exec("bare", "ls", "/tmp/bin/tar")).code !== 0 || undefined;
  });
  const local = join(folder, "for-bare");
  await writeFile(local, "content");
  for (const [from, to] of [
    [`${namespace}/bare:/tmp/x`, join(folder, "from-bare")],
    [local, `${namespace}/bare:/tmp/x`],
  ] as const) {
    const [direct, ours] = await Promise.all(
      [scenario.cluster.kubectl, await gateway.user("cal")].map((kubectl) =>
        kubectl.try(undefined, "cp", from, to),
      ),
    );
    const told = (text = "") => text.replaceAll(/[0-9a-f]{64}/g, "ID");
    expect(ours?.stderr).toContain("tar");
    expect([ours?.code, told(ours?.stderr)]).toEqual([direct?.code, told(direct?.stderr)]);
    expect(ours?.code).not.toBe(0);
  }
  const asked = async () =>
    (await recorded()).filter((line) => / \S+\/bare .*-- tar /.test(String(line.sql))).length;
  await scenario.eventually("both records", async () => (await asked()) === 2 || undefined);
});

test.each(ages.slice(0, 2))(
  "K14: kubectl $age sends what it is given, to the last byte",
  async ({ environment }) => {
    const megabytes = scenario.full ? 200 : 8;
    const path = join(folder, "given.bin");
    const block = randomBytes(1024 * 1024);
    const content = Buffer.concat(Array.from({ length: megabytes }, () => block));
    await writeFile(path, content);
    const line = `${ana.program} --kubeconfig ${ana.kubeconfig} exec -i -n ${namespace} shell -- /bin/busybox sha256sum < ${path}`;
    const { code, stdout } = await run("sh", ["-c", line], undefined, environment);
    expect([code, stdout.split(" ")[0]]).toEqual([0, createHash("sha256").update(content).digest("hex")]);
  },
);

test("K1: whoever offers v5 alone gets v5, and the end of what is typed reaches the command", async () => {
  const path = `${shell}/exec?command=/bin/busybox&command=wc&command=-c&stdin=true&stdout=true&stderr=true`;
  const client = await openWebSocket(as("ana"), path, ["v5.channel.k8s.io"]);
  expect(client.protocol).toBe("v5.channel.k8s.io");
  client.send(2, Buffer.from("\0five!"));
  // Channel 255 closes the one that it names; a server of v4 would take no notice, and the command would wait for ever.
  client.send(2, Buffer.from([255, 0]));
  await scenario.eventually("the status", async () =>
    client.messages.some(({ opcode, bytes }) => opcode === 2 && bytes[0] === 3) ? true : undefined,
  );
  await client.closed;
  const on = (channel: number) =>
    client.messages
      .filter(({ opcode, bytes }) => opcode === 2 && bytes[0] === channel)
      .map(({ bytes }) => bytes.toString("utf8", 1));
  expect(on(1).join("").trim()).toBe("5");
  expect(
    on(3)
      .filter((text) => text !== "")
      .map((text) => JSON.parse(text).status),
  ).toEqual(["Success"]);
  expect(client.messages.some(({ opcode, bytes }) => opcode === 2 && bytes[0] === 255)).toBe(false);
});

test("K2: base64 and older channels of browsers carry a command, its streams and its end", async () => {
  const path = `${shell}/exec?command=sh&command=-c&command=head+-n+1%3Becho+err+%3E%262%3Bexit+3&stdin=true&stdout=true&stderr=true`;
  for (const protocol of ["v4.base64.channel.k8s.io", "base64.channel.k8s.io", "channel.k8s.io"]) {
    const client = await openWebSocket(as("ana"), path, [protocol]);
    expect(client.protocol).toBe(protocol);
    const isBase64 = protocol.includes("base64");
    const typed = Buffer.from("from a browser\n");
    if (isBase64) client.send(1, Buffer.from(`0${typed.toString("base64")}`));
    else client.send(2, Buffer.concat([Buffer.from([0]), typed]));
    const read = () => {
      const streams = ["", "", "", ""];
      for (const { opcode, bytes } of client.messages) {
        if (opcode > 2 || bytes.length === 0) continue;
        const channel = isBase64 ? Number(String.fromCharCode(bytes[0] ?? 0)) : (bytes[0] ?? 0);
        const text = isBase64
          ? Buffer.from(bytes.toString("latin1", 1), "base64").toString()
          : bytes.toString("utf8", 1);
        streams[channel] += text;
      }
      return streams;
    };
    await scenario.eventually("the echo", async () => read()[1]?.includes("from a browser") || undefined);
    await client.closed;
    const [, out, err, status = ""] = read();
    expect([protocol, out, err]).toEqual([protocol, "from a browser\n", expect.stringContaining("err\n")]);
    if (protocol.startsWith("v4"))
      expect(JSON.parse(status)).toMatchObject({ status: "Failure", reason: "NonZeroExitCode" });
    else expect(status).toContain("exit code 3");
  }
});

test("K26: logs come over WebSocket, masked where they are, and in base64 where asked for", async () => {
  const read = async (name: string, protocols: readonly string[]) => {
    const client = await openWebSocket(as(name), `${shell}/log`, protocols);
    await client.closed;
    return client.messages
      .filter(({ opcode }) => opcode <= 2)
      .map(({ opcode, bytes }) =>
        opcode === 1 ? Buffer.from(bytes.toString(), "base64").toString() : bytes.toString(),
      )
      .join("");
  };
  // A pod is ready before it has said anything.
  await scenario.eventually(
    "the log",
    async () => (await read("ana", [])).includes("mail ann@example.com") || undefined,
  );
  for (let round = 0; round < 5; round += 1)
    expect(await read("ana", ["base64.binary.k8s.io"])).toContain("mail ann@example.com");
  const masked = await read("mia", ["binary.k8s.io"]);
  expect(masked).toContain("mail ****");
  expect(masked).not.toContain("ann@");
});

test("K18: ports that a WebSocket names are judged before it is opened", async () => {
  const forward = (ports: string) =>
    openWebSocket(as("ana"), `${shell}/portforward?${ports}`, ["v4.channel.k8s.io"]).catch(
      (error: NotSwitched) => error,
    );
  for (const ports of ["ports=9999", "ports=7777&ports=9999", "ports=7777,9999"]) {
    const refused = await forward(ports);
    expect([ports, refused instanceof NotSwitched && refused.status]).toEqual([ports, 403]);
    expect(String(refused)).toContain("that port stays closed");
  }
  const odd = await forward("ports=0");
  expect(odd instanceof NotSwitched && odd.status).toBe(400);
  const open = await forward("ports=7777");
  if (open instanceof NotSwitched) throw open;
  // The kubelet begins each channel with the number of its port.
  await scenario.eventually("both channels", async () => open.messages.length >= 2 || undefined);
  expect(open.messages.slice(0, 2).map(({ bytes }) => [bytes[0], bytes.readUInt16LE(1)])).toEqual([
    [0, 7777],
    [1, 7777],
  ]);
  open.socket.destroy();
});

test("K25: debug is governed by image, target and what reaches the node; what is allowed is attached to", async () => {
  const debug = (...argv: readonly string[]) => ana.try(undefined, "debug", "-n", namespace, ...argv);
  const known = ["--image", postgresImageName, "--image-pull-policy=Never", "--profile=restricted"];
  expect((await debug("shell", "--image=evil.example/x", "--target=main")).stderr).toContain(
    "debug with the known image",
  );
  expect((await debug("shell", ...known, "--target=other")).stderr).toContain(
    "that container is not looked into",
  );
  expect((await debug("shell", "--image", postgresImageName, "--profile=sysadmin")).stderr).toContain(
    "pods may not reach the node",
  );
  const node = (
    await scenario.cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
  ).trim();
  expect((await debug(`node/${node}`, "--image", postgresImageName)).stderr).toContain(
    "pods may not reach the node",
  );
  expect(
    (
      await debug(
        "shell",
        "--copy-to=copied",
        "--image",
        postgresImageName,
        "--profile=sysadmin",
        "--container=d",
      )
    ).stderr,
  ).toContain("pods may not reach the node");
  const line = [
    "debug",
    "-i",
    "-n",
    namespace,
    "shell",
    ...known,
    "--target=main",
    "--container=looking",
    "--",
    "sh",
    "-c",
    "while read -r line; do echo heard $line; done",
  ];
  const { child, text } = going(ana, {}, ...line);
  const ended = once(child, "exit");
  await scenario.eventually("the container to run", async () => {
    const shown = await scenario.kubectl(
      "get",
      "pod",
      "shell",
      "-o",
      "jsonpath={.status.ephemeralContainerStatuses[0].state.running}",
    );
    return shown !== "" || undefined;
  });
  await scenario.eventually("the terminal", async () => text().includes("see a command prompt") || undefined);
  // A container may be running before it is attached to: what is typed in between may not reach it.
  await scenario.eventually("an answer", async () => {
    child.stdin?.write("somebody\n");
    return text().includes("heard somebody") || undefined;
  });
  child.kill("SIGKILL");
  await ended;
  expect(text()).toContain("heard somebody");
  const lines = (await recorded()).map((entry) => String(entry.sql));
  expect(lines.some((text) => text.includes("patch pods/ephemeralcontainers"))).toBe(true);
  expect(lines.some((text) => text.includes("pods/attach") && text.includes("-c looking"))).toBe(true);
});

test("exec into a privileged pod is refused, over both ways to ask", async () => {
  await scenario.cluster.kubectl(
    "wait",
    "-n",
    privileged,
    "pod/rooted",
    "--for=condition=Ready",
    "--timeout=60s",
  );
  for (const environment of [{}, { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: "false" }]) {
    const argv = ["--kubeconfig", ana.kubeconfig, "exec", "-n", privileged, "rooted", "--", "id"];
    const { code, stderr } = await run(ana.program, argv, undefined, environment);
    expect([code, stderr]).toEqual([1, expect.stringContaining("nobody enters what reaches the node")]);
  }
});

test("Helm installs, upgrades and lists; where releases are masked it cannot save the mask over them", async () => {
  const beside = join(dirname(ana.program), "helm");
  const helm = existsSync(beside) ? beside : "helm";
  const chart = join(folder, "chart");
  await mkdir(join(chart, "templates"), { recursive: true });
  await writeFile(join(chart, "Chart.yaml"), "apiVersion: v2\nname: small\nversion: 0.1.0\n");
  const map =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: small}\ndata: {value: {{ .Values.value | quote }}}\n";
  await writeFile(join(chart, "templates/map.yaml"), map);
  const as = (user: Kubectl, ...argv: readonly string[]) =>
    run(helm, [...argv, "--kubeconfig", user.kubeconfig, "-n", namespace], undefined, { HOME: folder });
  expect(await as(ana, "install", "small", chart, "--set", "value=one")).toMatchObject({ code: 0 });
  expect(await as(ana, "upgrade", "small", chart, "--set", "value=two")).toMatchObject({ code: 0 });
  expect(await scenario.kubectl("get", "configmap", "small", "-o", "jsonpath={.data.value}")).toBe("two");
  const moe = await gateway.user("moe");
  const blind = await as(moe, "upgrade", "small", chart, "--set", "value=three");
  expect(blind.code).not.toBe(0);
  expect(await scenario.kubectl("get", "configmap", "small", "-o", "jsonpath={.data.value}")).toBe("two");
  const history = await as(ana, "history", "small", "-o", "json");
  expect(JSON.parse(history.stdout).map(({ status }: { status: string }) => status)).toEqual([
    "superseded",
    "deployed",
  ]);
  expect(await as(ana, "uninstall", "small")).toMatchObject({ code: 0 });
});

/** Where the cluster's own programs are built already, this takes some seconds. */
test("K2, K18, K26: client-go discovers, informs, applies, leads, runs commands and forwards ports", async () => {
  const program = await goModule(join(import.meta.dirname, "clients/client-go"));
  expect(await scenario.exec("shell", "/bin/busybox", "httpd", "-p", "7878", "-h", "/tmp")).toMatchObject({
    code: 0,
  });
  const { code, stdout, stderr } = await run(program, [ana.kubeconfig, namespace, "shell"]);
  expect([code, code === 0 ? "" : stderr]).toEqual([0, ""]);
  const command = {
    out: "typed\n",
    err: "err\n",
    code: 7,
    refused: expect.stringContaining("accounts are not read here"),
  };
  expect(JSON.parse(stdout)).toEqual({
    discovered: "PodExecOptions",
    metadata: ["shell"],
    informed: ["added one", "updated two", "deleted two"],
    applied: { value: "one", other: "three" },
    conflict: true,
    led: true,
    log: "started",
    commands: { websocket: command, spdy: command, fallback: command },
    forwarded: { tunnel: "HTTP", spdy: "HTTP" },
  });
}, 300_000);

test("K2, K18, K26: JavaScript's client lists, watches, applies, patches, runs commands, follows a log and forwards a port", async () => {
  const port = 7676;
  const serve = ["/bin/busybox", "httpd", "-p", String(port), "-h", "/tmp"];
  expect(await scenario.exec("shell", ...serve)).toMatchObject({ code: 0 });
  const denied = ["cat", "/etc/passwd"];
  expect(await workAsProgram({ kubeconfig: ana.kubeconfig, namespace, pod: "shell", port, denied })).toEqual({
    pods: ["shell"],
    watched: ['ADDED {"a":"1"}', 'MODIFIED {"a":"1","b":"2"}', 'DELETED {"a":"1","b":"2"}'],
    ran: { out: "typed\n", err: "err\n", code: "7" },
    log: "started",
    forwarded: "HTTP",
    missing: 'pods "none" not found',
    // Its library keeps no more of a refusal than the status.
    refused: "Unexpected server response: 403",
  });
});

/** Languages whose clients are fetched for it: with --full. */
const scripts = scenario.full ? ["clients/client.py"] : [];

test.each(scripts)(
  "K2: a client of another language, %s, reads, watches, patches, runs commands, forwards a port and is refused in its own words",
  async (script) => {
    const home = join(
      process.env.SALLYPORT_CACHE || join(homedir(), ".cache/sallyport"),
      "python-kubernetes-33.1.0",
    );
    const python = join(home, "bin/python");
    if (!existsSync(python)) {
      expect(await run("python3", ["-m", "venv", home])).toMatchObject({ code: 0 });
      expect(await run(python, ["-m", "pip", "install", "--quiet", "kubernetes==33.1.0"])).toMatchObject({
        code: 0,
      });
    }
    const serve = ["/bin/busybox", "httpd", "-p", "7979", "-h", "/tmp"];
    expect(await scenario.exec("shell", ...serve)).toMatchObject({ code: 0 });
    const { code, stdout, stderr } = await run(python, [
      join(import.meta.dirname, script),
      ana.kubeconfig,
      namespace,
    ]);
    expect([code, stderr]).toEqual([0, ""]);
    expect(JSON.parse(stdout)).toEqual({
      pods: ["shell"],
      watched: "ADDED shell",
      out: "out\n",
      err: "err\n",
      code: 7,
      log: true,
      patched: { a: "1", b: "2" },
      forwarded: "HTTP",
      refused: expect.stringContaining("accounts are not read here"),
    });
  },
  300_000,
);

test("replay shows what the terminal showed, with its size", async () => {
  const line = `${ana.program} --kubeconfig ${ana.kubeconfig} exec -it -n ${namespace} shell -c main -- sh -c 'echo seen-in-terminal; ls /'`;
  const shown = await run("script", ["-qec", `stty cols 91 rows 31; ${line}`, "/dev/null"]);
  expect(shown.stdout).toContain("seen-in-terminal\r\n");
  const session = await scenario.eventually("the session's recording", async () => {
    const { stdout } = await run("grep", [
      "-rl",
      "seen-in-terminal",
      gateway.recordingDir,
      "--include=*.journal",
    ]);
    return stdout.trim().split("\n").at(-1)?.split("/").at(-1)?.split(".")[0] || undefined;
  });
  const { n: number } = (await recorded()).find(
    (entry) => entry.kind === "command" && String(entry.sql).includes("seen-in-terminal"),
  ) ?? { n: 0 };
  const replay = await run(process.execPath, [
    ...sallyportCommand,
    "replay",
    gateway.recordingDir,
    session,
    "--asciicast",
    String(number),
  ]);
  const [header = "", ...events] = replay.stdout.trim().split("\n");
  expect([replay.stderr, JSON.parse(header)]).toEqual([
    "",
    expect.objectContaining({ width: 91, height: 31 }),
  ]);
  const text = events
    .map((event) => JSON.parse(event))
    .filter(([, code]) => code === "o")
    .map(([, , data]) => data)
    .join("");
  expect(text).toBe(shown.stdout);
});

test("K31: whoever is idle, or no longer allowed, hears so on every stream, and nothing of theirs goes on", async () => {
  const ida = await gateway.user("ida");
  const idle = going(ida, {}, "exec", "-i", "-n", namespace, "shell", "--", "cat");
  expect((await once(idle.child, "exit"))[0]).not.toBe(0);
  expect(idle.text()).toMatch(/idle/);
  const rex = await gateway.user("rex");
  const streams = [
    going(rex, {}, "exec", "-i", "-n", namespace, "shell", "--", "cat"),
    going(
      rex,
      { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: "false" },
      "exec",
      "-i",
      "-n",
      namespace,
      "shell",
      "--",
      "cat",
    ),
    going(rex, {}, "get", "pods", "-n", namespace, "--watch"),
    going(rex, {}, "logs", "-f", "-n", namespace, "shell"),
  ];
  const ends = streams.map(async ({ child }) => (await once(child, "exit"))[0]);
  const shown = [/still here/, /still here/, /shell/, /started/];
  for (const { child } of streams.slice(0, 2)) child.stdin?.write("still here\n");
  for (const [at, { text }] of streams.entries()) {
    await scenario.eventually(
      `stream ${at} to show something`,
      async () => shown[at]?.test(text()) || undefined,
    );
  }
  await gateway.write("leaving.yaml", "# nobody");
  const codes = await Promise.all(ends);
  expect(codes.slice(0, 2).every((code) => code !== 0)).toBe(true);
  for (const { text } of streams.slice(0, 2)) expect(text()).toMatch(/session|policy/);
  expect((await rex.try(undefined, "get", "pods", "-n", namespace)).stderr).toMatch(
    /no policy|denied|forbidden/i,
  );
});

test("K31: a terminal that policy denies from now on ends, and what it allows goes on", async () => {
  const pol = await gateway.user("pol");
  await gateway.write("narrow.yaml", policy("pol"));
  const exec = (environment: Readonly<Record<string, string>>, ...argv: readonly string[]) =>
    going(pol, environment, "exec", "-i", "-n", namespace, "shell", "--", ...argv);
  await scenario.eventually("the policy to let in", async () =>
    (await pol.try(undefined, "get", "pods", "-n", namespace)).code === 0 ? true : undefined,
  );
  const old = { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: "false" };
  const streams = [exec({}, "cat"), exec(old, "cat"), exec({}, "sh", "-c", "/bin/busybox cat")];
  const ends = streams.map(async ({ child }) => (await once(child, "exit"))[0]);
  for (const { child } of streams) child.stdin?.write("still here\n");
  const shows = (at: number, what: RegExp) =>
    scenario.eventually(
      `stream ${at} to show it`,
      async () => what.test(streams[at]?.text() ?? "") || undefined,
    );
  await Promise.all(streams.map((_, at) => shows(at, /still here/)));
  const rule = `  rules:
  - name: no-cat
    match: {commands: [pods/exec], cel: 'command.argv[0] == "cat"'}
    action: Deny`;
  await gateway.write("narrow.yaml", policy("pol", rule));
  for (const code of await Promise.all(ends.slice(0, 2))) expect(code).not.toBe(0);
  await Promise.all([shows(0, /the access policy has changed/), shows(1, /the access policy has changed/)]);
  streams[2]?.child.stdin?.end("and goes on\n");
  expect(await ends[2]).toBe(0);
  expect(streams[2]?.text()).toContain("and goes on");
});

test("K31: a copy that is under way ends when a changed policy begins to name files, and nothing more of it arrives", async () => {
  const pol = await gateway.user("pol");
  await gateway.write("narrow.yaml", policy("pol"));
  const test = (...argv: readonly string[]) => scenario.exec("shell", "/bin/busybox", ...argv);
  await scenario.eventually("the policy to let in", async () =>
    (await pol.try(undefined, "get", "pods", "-n", namespace)).code === 0 ? true : undefined,
  );
  await test("mkdir", "-p", "/tmp/under-way");
  const local = join(folder, "under-way");
  await mkdir(local);
  for (const name of ["first", "second.pem"]) await writeFile(join(local, name), `${name}\n`);
  const archive = join(folder, "under-way.tar");
  await run("tar", ["--format=ustar", "-cf", archive, "-C", local, "first", "second.pem"]);
  const bytes = await readFile(archive);
  // The first file is whole; of the second there is no head yet.
  const half = 1_024;
  const into = ["exec", "-i", "-n", namespace, "shell", "--"];
  const copy = [...into, "tar", "-xmf", "-", "-C", "/tmp/under-way"];
  const copied = () => pol.try(bytes.toString("latin1"), ...copy);
  for (const websockets of ["true", "false"]) {
    const { child, text } = going(pol, { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: websockets }, ...copy);
    const ended = once(child, "exit");
    child.stdin?.write(bytes.subarray(0, half));
    await scenario.eventually("the first file", async () =>
      (await test("cat", "/tmp/under-way/first")).stdout === "first\n" ? true : undefined,
    );
    const rule = `  rules:
  - name: no-keys
    match: {objects: ["*.pem"]}
    action: Deny`;
    await gateway.write("narrow.yaml", policy("pol", rule));
    expect((await ended)[0], text()).not.toBe(0);
    expect(text()).toContain("the access policy has changed");
    child.stdin?.end(bytes.subarray(half));
    // The same copy is judged file by file from now on.
    expect((await copied()).stderr).toContain("second.pem");
    expect((await test("ls", "/tmp/under-way")).stdout).toBe("first\n");
    await test("rm", "/tmp/under-way/first");
    await gateway.write("narrow.yaml", policy("pol"));
    await scenario.eventually("the rule to go", async () => ((await copied()).code === 0 ? true : undefined));
    await test("rm", "/tmp/under-way/first", "/tmp/under-way/second.pem");
  }
});

test("K21: where nothing more can be recorded, what runs ends and nothing new begins", async () => {
  const mounted = await run("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", gateway.recordingDir]);
  expect(mounted).toMatchObject({ code: 0 });
  try {
    const cut = await ana.try(
      undefined,
      "exec",
      "-n",
      namespace,
      "shell",
      "--",
      "sh",
      "-c",
      "head -c 6000000 /dev/urandom | base64; echo reached-the-end",
    );
    expect(cut.code).not.toBe(0);
    expect(cut.stdout).not.toContain("reached-the-end");
    expect(cut.stderr).toMatch(/record/);
    const begin = (command: string) =>
      ana.try(undefined, "exec", "-n", namespace, "shell", "--", "sh", "-c", command);
    // What was cut gives its last block back.
    const refused = await scenario.eventually("the disk to stay full", async () => {
      await run("sh", ["-c", `cat /dev/zero >> ${gateway.recordingDir}/full`]);
      const next = await begin("true");
      return next.code === 0 ? undefined : next;
    });
    expect(refused.stderr).toMatch(/record/);
    expect((await begin("echo ran > /tmp/unrecorded")).code).toBe(1);
    expect((await ana.try(undefined, "get", "secrets", "-n", namespace)).stderr).toMatch(/record/);
    expect((await scenario.exec("shell", "sh", "-c", "cat /tmp/unrecorded")).code).not.toBe(0);
  } finally {
    await run("umount", ["-l", gateway.recordingDir]);
  }
});
