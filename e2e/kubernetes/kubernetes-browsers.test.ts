/** Watches and logs over WebSocket, and requests that wait for a person, against a real API server. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { dirname } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { run } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { sallyportCommand } from "../targets/gateway.ts";
import {
  clusterAdmins,
  type KubernetesGateway,
  startKubernetesGateway,
} from "../targets/kubernetes-gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { recordedText } from "../targets/recorded.ts";
import { raw, rawHttp2Session } from "./raw-client.ts";
import { type NotSwitched, openWebSocket } from "./websocket-client.ts";

const policy = (user: string, rest: string, name: string) => policyDocument("cluster", user, rest, name);
const policies = [
  policy("ana", "  profile: Admin", "admins"),
  policy(
    "mia",
    `  profile: Admin
  masking:
  - {columns: ["core.secrets.data"], with: Redact}`,
    "masked",
  ),
  policy("health", "  profile: ReadOnly", "health-check"),
  policy(
    "deploy",
    `  profile: ReadWrite
  rules:
  - name: secrets
    match: {objects: ["get:secrets", "create:secrets", "patch:secrets"]}
    action: RequireApproval
    message: a person looks at what is secret
    approval: {required: 1, timeout: 60s}`,
    "deploy",
  ),
  policy(
    "gus",
    `  profile: Admin
  rules:
  - name: remove
    match: {objects: ["delete:configmaps"]}
    action: RequireApproval
    approval: {required: 1, timeout: 1s, breakGlass: {group: "local:oncall"}}
  - name: make
    match: {objects: ["create:configmaps"]}
    action: RequireApproval
    approval: {required: 1, timeout: 1s, reasonRequired: true}`,
    "glass",
  ),
].join("");
const users = ["ana", "mia", "health", "deploy", "gus"];
const secrets = "/api/v1/namespaces/default/secrets";

let api: ApiServer;
let gateway: KubernetesGateway;

beforeAll(async () => {
  api = await startApiServer();
  await api.kubectl.apply(clusterAdmins(users));
  gateway = await startKubernetesGateway(api, { policies, args: ["--approvers", "local:leads"] });
});
afterAll(async () => {
  await gateway?.stop();
  await api?.close();
});

const as = (name: string) => ({ url: gateway.url, caPem: gateway.caPem, token: gateway.token(name) });

test("K26: a watch over WebSocket brings an event in each message, masked where the objects are", async () => {
  const password = Buffer.from("hunter2secret").toString("base64");
  const watch = `${secrets}?watch=1&fieldSelector=metadata.name%3Dseen`;
  const [open, closed] = [
    await openWebSocket(as("ana"), watch, []),
    await openWebSocket(as("mia"), watch, []),
  ];
  await api.kubectl("create", "secret", "generic", "seen", "--from-literal=password=hunter2secret");
  await api.kubectl("label", "secret", "seen", "a=b");
  for (const { messages } of [open, closed]) {
    await waitFor("both events", async () => messages.length >= 2 || undefined);
    const events = messages.map(({ opcode, bytes }) => ({ opcode, ...JSON.parse(bytes.toString()) }));
    expect(events.map(({ opcode, type }) => [opcode, type])).toEqual([
      [1, "ADDED"],
      [1, "MODIFIED"],
    ]);
    const shown = messages === open.messages ? password : Buffer.from("***").toString("base64");
    expect(events.map(({ object }) => object.data.password)).toEqual([shown, shown]);
  }
  open.send(9, Buffer.from("still there"));
  closed.send(8, Buffer.from([0x03, 0xe8]));
  await closed.closed;
  open.socket.destroy();
});

test("a browser's token is a protocol that it names: it logs in, and is never the one that is chosen", async () => {
  const { url, caPem, token } = as("ana");
  const named = (text: string) =>
    `base64url.bearer.authorization.k8s.io.${Buffer.from(text).toString("base64url")}`;
  const watch = "/api/v1/namespaces/default/configmaps?watch=1";
  const open = await openWebSocket({ url, caPem }, watch, [named(token), "base64.binary.k8s.io"]);
  expect(open.protocol).toBe("base64.binary.k8s.io");
  await api.kubectl("create", "configmap", "browsed");
  await waitFor(
    "the event",
    async () => open.messages.some(({ bytes }) => bytes.includes("browsed")) || undefined,
  );
  open.socket.destroy();
  for (const offered of [
    [named("not a token"), "base64.binary.k8s.io"],
    [named(token.slice(0, -3)), "base64.binary.k8s.io"],
    [`${named(token)}=`, "base64.binary.k8s.io"],
    [named(token), named(gateway.token("mia"))],
  ]) {
    const failed = await openWebSocket({ url, caPem }, watch, offered).catch((error: unknown) => error);
    expect(failed).toMatchObject({ status: 401 });
  }
});

test("K22: what is refused or fails over WebSocket is a Status, not a switch", async () => {
  const refused = async (name: string, path: string) =>
    openWebSocket(as(name), path, ["binary.k8s.io"]).then(
      () => undefined,
      (error: NotSwitched) => [error.status, JSON.parse(error.body).reason],
    );
  expect(await refused("health", `${secrets}?watch=1`)).toEqual([403, "Forbidden"]);
  expect(await refused("health", "/api/v1/namespaces/default/pods/none/log")).toEqual([404, "NotFound"]);
  expect(await refused("ana", `${secrets}`)).toEqual([400, "BadRequest"]);
  expect(await refused("ana", "/api/v1/namespaces/default/pods/none/exec?command=id")).toEqual([
    400,
    "BadRequest",
  ]);
});

test("a health check reads status, and its rollout restart is refused", async () => {
  const spec = {
    selector: { matchLabels: { app: "web" } },
    template: { metadata: { labels: { app: "web" } }, spec: { containers: [{ name: "c", image: "i" }] } },
  };
  await api.kubectl.apply([{ apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "web" }, spec }]);
  const health = await gateway.user("health");
  expect(await health("get", "deployment", "web", "-o", "jsonpath={.metadata.name}")).toBe("web");
  const { code, stderr } = await health.try(undefined, "rollout", "restart", "deployment/web");
  expect(code).toBe(1);
  expect(stderr).toMatch(/forbidden.*no policy allows patch on patch:deployments\.apps/);
});

/** What a lead says about the one request that waits. */
async function decide(verb: string, ...rest: readonly string[]): Promise<void> {
  const state = ["--state", dirname(gateway.recordingDir)];
  const lead = { SALLYPORT_TOKEN: gateway.token("lea", ["leads"]) };
  const name = await waitFor("a request to wait", async () => {
    const { stdout } = await run(
      process.execPath,
      [...sallyportCommand, "approvals", "-o", "json", ...state],
      undefined,
      lead,
    );
    return /"name":\s*"([^"]+)"/.exec(stdout)?.[1];
  });
  const said = await run(
    process.execPath,
    [...sallyportCommand, verb, name, ...rest, ...state],
    undefined,
    lead,
  );
  if (said.code !== 0) throw new Error(said.stderr);
}

test("a deploy job's Secret waits for a person: approved it is written as it was asked, denied it is not", async () => {
  const deploy = await gateway.user("deploy");
  const create = async (name: string, verb: string, ...rest: readonly string[]) => {
    const argv = [
      "--kubeconfig",
      deploy.kubeconfig,
      "create",
      "secret",
      "generic",
      name,
      "--from-literal=a=b",
    ];
    const child = spawn(deploy.program, argv, { timeout: 60_000 });
    let text = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        text += chunk.toString();
      });
    }
    const ended = once(child, "close");
    await decide(verb, ...rest);
    return { code: (await ended)[0] as number, text };
  };
  const approved = await create("granted", "approve");
  expect(approved).toMatchObject({ code: 0, text: expect.stringContaining("secret/granted created") });
  expect(approved.text).toMatch(/Warning: held for approval .*a person looks at what is secret.*approved/);
  const denied = await create("refused", "deny", "--reason", "not today");
  expect(denied).toMatchObject({ code: 1, text: expect.stringContaining("not today") });
  const names = await api.kubectl("get", "secrets", "-o", "name");
  expect([names.includes("secret/granted"), names.includes("secret/refused")]).toEqual([true, false]);
});

test("requests of one connection that wait for a person wait in turn, and each is decided by itself", async () => {
  const session = rawHttp2Session(gateway, 90_000);
  const created = new Map<string, number>();
  try {
    const authorization = `Bearer ${gateway.token("deploy")}`;
    const waiting = new Map(
      ["turn-1", "turn-2", "turn-3"].map((name) => {
        const answer = session.ask(
          { ":method": "POST", ":path": secrets, authorization, "content-type": "application/json" },
          JSON.stringify({ apiVersion: "v1", kind: "Secret", metadata: { name } }),
        );
        return [name, answer.then(({ status, body }) => ({ name, status, body }))] as const;
      }),
    );
    // What needs nobody goes on beside them.
    const read = await session.ask({ ":path": "/api/v1/namespaces/default/configmaps", authorization });
    expect(read.status).toBe(200);
    // Which one is asked about first is the network's matter.
    for (const [verb, status, ...rest] of [
      ["approve", 201],
      ["deny", 403, "--reason", "not that one"],
      ["approve", 201],
    ] as const) {
      await decide(verb, ...rest);
      const answered = await Promise.race(waiting.values());
      waiting.delete(answered.name);
      created.set(answered.name, answered.status);
      expect([answered.status, answered.body.includes("not that one")]).toEqual([status, status === 403]);
    }
  } finally {
    session.close();
  }
  const names = await api.kubectl("get", "secrets", "-o", "name");
  for (const [name, status] of created)
    expect([name, names.includes(`secret/${name}\n`)]).toEqual([name, status === 201]);
});

test("a reason comes from kubectl or in a header: rules that want one take it, and break-glass passes for its group", async () => {
  const gus = await gateway.user("gus", ["oncall"]);
  const because = (reason: string) => ["--as=me", `--as-user-extra=sallyport-reason=${reason}`];
  const make = ["create", "configmap", "made"];
  const unsaid = await gus.try(undefined, ...make);
  expect(unsaid.code).toBe(1);
  expect(unsaid.stderr).toContain("a reason is required");
  expect(unsaid.stderr).toContain('kubectl --as=me --as-user-extra=sallyport-reason="..."');
  const held = await gus.try(undefined, ...make, ...because("ticket 12, for the sake of it"));
  expect([held.code, held.stderr]).toEqual([1, expect.stringContaining("nobody decided in time")]);

  const names = ["one", "two", "three"];
  for (const name of names) await api.kubectl("create", "configmap", name);
  const removed = async (name: string, ...more: readonly string[]) =>
    (await gus.try(undefined, "delete", "configmap", name, ...more)).code === 0;
  expect(await removed("one")).toBe(false);
  expect(await removed("one", ...because(" \u200b "))).toBe(false);
  expect(await removed("one", ...because("INC-42: größer"))).toBe(true);
  const asked = async (name: string, headers: Readonly<Record<string, string>>, groups = ["oncall"]) => {
    const authorization = `Bearer ${gateway.token("gus", groups)}`;
    const path = `/api/v1/namespaces/default/configmaps/${name}`;
    return (await raw(gateway, path, { method: "DELETE", headers: { authorization, ...headers } })).status;
  };
  expect(await asked("two", { "sallyport-reason": "INC-43" }, [])).toBe(403);
  expect(await asked("two", { "sallyport-reason": "INC-43" })).toBe(200);
  const metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  expect(metrics).toMatch(/^sallyport_break_glass_total\{[^}]*resource="default\/cluster"[^}]*\} 2$/m);
  expect(await api.kubectl("get", "configmaps", "-o", "name")).toContain("configmap/three");
  const told = /"name":"breakGlass".*"reason":"(INC-42: größer|INC-43)"/g;
  await waitFor(
    "both uses to be recorded",
    async () => (await recordedText(gateway.recordingDir)).match(told)?.length === 2 || undefined,
  );
});
