/** What is judged at one moment and runs at another: the Kubernetes gateway before a real API server. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { connect as connectTls } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { waitFor } from "../cluster/processes.ts";
import {
  clusterAdmins,
  type KubernetesGateway,
  startKubernetesGateway,
} from "../targets/kubernetes-gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { freePort } from "../targets/postgres.ts";
import { type QuietKubelet, startQuietKubelet } from "../targets/quiet-kubelet.ts";
import { raw } from "./raw-client.ts";
import { NotSwitched, openWebSocket } from "./websocket-client.ts";

const policy = (user: string, rest: string, name = user) => policyDocument("cluster", user, rest, name);
const held = (match: string) =>
  `  profile: Admin\n  rules:\n  - {name: held, match: ${match}, action: RequireApproval, approval: {required: 1, timeout: 60s}}\n`;
const policies = [
  policy("ann", held("{objects: ['get:secrets', 'watch:secrets']}")),
  policy("eva", held("{commands: [pods/exec]}")),
  policy("pat", held("{objects: ['patch:deployments.apps']}")),
  policy(
    "del",
    held(
      "{objects: ['delete:*', 'deletecollection:*', 'patch:*', 'update:*', 'create:pods/eviction', 'create:serviceaccounts/token']}",
    ),
  ),
  policy("may", "  profile: ReadOnly\n  masking:\n  - {patterns: [email], with: Redact}\n"),
  policy("low", held("{objects: ['delete:*']}")),
  policy("wim", held("{cel: 'command.facts.port == 5432'}")),
  policy("exp", held("{objects: ['create:secrets']}")),
  policy(
    "lou",
    `  profile: Admin
  rules:
  - {name: closed, match: {commands: [pods/portforward], cel: '"closed" in command.facts.labels'}, action: Deny, message: the pod is closed}`,
  ),
].join("");
const users = ["ann", "eva", "pat", "wim", "exp", "lou", "pol", "tim", "ida", "del", "may"];
const inDefault = "/api/v1/namespaces/default";
const secretText = Buffer.from("shown-in-time").toString("base64");

let api: ApiServer;
let gateway: KubernetesGateway;
let kubelet: QuietKubelet;
let auditLog: string;

const podOf = (name: string, image = "registry.example/shown:1") => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name },
  spec: {
    nodeName: "quiet",
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 0,
    containers: [{ name: "c", image }],
  },
});

beforeAll(async () => {
  // No node: what stands in for its kubelet has no certificate of the cluster.
  const folder = await mkdtemp(join(tmpdir(), "sallyport-audit-"));
  auditLog = join(folder, "log");
  const rules = [
    { level: "Request", verbs: ["delete", "deletecollection"], resources: [{ group: "" }] },
    {
      level: "Request",
      verbs: ["update", "patch", "create"],
      resources: [{ group: "", resources: ["configmaps", "serviceaccounts/token", "pods/eviction"] }],
    },
    { level: "None" },
  ];
  const auditPolicy = { apiVersion: "audit.k8s.io/v1", kind: "Policy", rules };
  await writeFile(join(folder, "policy.json"), JSON.stringify(auditPolicy));
  api = await startApiServer({
    apiServerFlags: [
      "--kubelet-certificate-authority=",
      `--audit-policy-file=${join(folder, "policy.json")}`,
      `--audit-log-path=${auditLog}`,
    ],
  });
  await api.kubectl.apply(clusterAdmins(users));
  kubelet = await startQuietKubelet(api.kubectl, "quiet");
  await api.kubectl.apply([
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default" } },
    { apiVersion: "v1", kind: "Secret", metadata: { name: "s" }, data: { key: secretText } },
    ...["p", "replaced", "forwarded"].map((name) => podOf(name)),
  ]);
  gateway = await startKubernetesGateway(api, { policies, args: ["--approvers", "local:leads"] });
});
afterAll(async () => {
  await gateway?.stop();
  await kubelet?.close();
  await api?.close();
  if (auditLog !== undefined) await rm(dirname(auditLog), { recursive: true, force: true });
});

const as = (name: string) => ({ url: gateway.url, caPem: gateway.caPem, token: gateway.token(name) });

/** What an approver asks the gateway, or tells it. */
function asLead(path: string, body?: object): Promise<{ readonly status: number; readonly body: string }> {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        socketPath: join(dirname(gateway.recordingDir), "approvals/socket"),
        path: `/v1/approvals${path}`,
        method: body === undefined ? "GET" : "POST",
        timeout: 10_000,
        headers: { authorization: `Bearer ${gateway.token("lea", ["leads"])}` },
      },
      (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => {
          text += chunk;
        });
        response.once("end", () => resolve({ status: response.statusCode ?? 0, body: text }));
      },
    );
    sent.on("error", reject).end(body === undefined ? undefined : JSON.stringify(body));
  });
}

interface Shown {
  readonly name: string;
  readonly command: string;
  readonly requester: string;
  readonly phase: string;
}

/** The request of somebody that waits for a decision. */
const waiting = (user: string) =>
  waitFor(`a request of ${user} to wait`, async () => {
    const { approvals } = JSON.parse((await asLead("")).body) as { approvals: readonly Shown[] };
    return approvals.find((one) => one.requester.endsWith(user) && one.phase === "Pending")?.name;
  });
const approve = (name: string) => asLead(`/${name}/decisions`, { decision: "Approved" });

/** Puts a policy of one user beside the others, and waits until a request tells that it is in force. */
async function change(user: string, rest: string, isSeen: () => Promise<boolean>): Promise<void> {
  await gateway.write(`${user}-more.yaml`, policy(user, rest, `${user}-more`));
  await waitFor("the policy to be in force", async () => (await isSeen()) || undefined);
}

test("a mask that begins while a read is held hides what the read shows", async () => {
  const answer = raw(gateway, `${inDefault}/secrets/s`, { user: "ann" });
  const name = await waiting("ann");
  await change(
    "ann",
    `  masking:\n  - {columns: ["core.secrets.data"], with: Redact}`,
    async () => !(await raw(gateway, `${inDefault}/secrets`, { user: "ann" })).body.includes(secretText),
  );
  expect((await approve(name)).status).toBe(200);
  const { status, body } = await answer;
  expect([status, body.includes(secretText)]).toEqual([200, false]);
});

test("an approved exec does not enter a pod that has taken the place of the one that was asked about", async () => {
  const path = `${inDefault}/pods/replaced/exec?command=id&stdout=true`;
  const stream = await openWebSocket(as("eva"), path, ["v4.channel.k8s.io"]);
  const name = await waiting("eva");
  await api.kubectl("delete", "pod", "replaced", "--force", "--grace-period=0");
  await api.kubectl.apply([podOf("replaced", "registry.example/another:1")]);
  expect((await approve(name)).status).toBe(200);
  await stream.closed;
  const said = Buffer.concat(stream.messages.map(({ bytes }) => bytes)).toString();
  expect(said).toContain(`approval ${name} is void`);
  expect(kubelet.asked.filter((url) => url.includes("/replaced/"))).toEqual([]);
});

test("an approved patch does not change a workload that has changed, or been replaced, since it was asked about", async () => {
  const path = "/apis/apps/v1/namespaces/default/deployments/web";
  const web = (image: string) => ({
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: "web", namespace: "default" },
    spec: {
      selector: { matchLabels: { app: "web" } },
      template: {
        metadata: { labels: { app: "web" } },
        spec: { containers: [{ name: "c", image }] },
      },
    },
  });
  await api.kubectl.apply([web("registry.example/asked-about:1")]);
  const patch = (env: string) =>
    raw(gateway, path, {
      user: "pat",
      method: "PATCH",
      headers: { "content-type": "application/strategic-merge-patch+json" },
      body: JSON.stringify({
        spec: { template: { spec: { containers: [{ name: "c", env: [{ name: env, value: "1" }] }] } } },
      }),
    });
  const outcomes: unknown[] = [];
  for (const meanwhile of [
    () => Promise.resolve(),
    () => api.kubectl.apply([web("registry.example/another:1")]),
    async () => {
      await api.kubectl("delete", "deployment", "web");
      await api.kubectl.apply([web("registry.example/another:1")]);
    },
  ]) {
    const answer = patch(`LATE_${outcomes.length}`);
    const name = await waiting("pat");
    await meanwhile();
    await approve(name);
    const { status, body } = await answer;
    outcomes.push([status, body.includes("is void")]);
  }
  expect(outcomes).toEqual([
    [200, false],
    [403, true],
    [403, true],
  ]);
});

const configMap = (name: string, text = "") => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, namespace: "default" },
  data: { text },
});
const configMaps = async () =>
  (await api.kubectl("get", "configmaps", "-n", "default", "-o", "name")).split("\n");
const json = { "content-type": "application/json" };
const options = { kind: "DeleteOptions", apiVersion: "v1", propagationPolicy: "Background" };
/** Ways to have one object deleted. */
const deletions = [
  ["/x", undefined],
  ["/x?gracePeriodSeconds=0&propagationPolicy=Background", undefined],
  ["/x", options],
  ["/x", { ...options, preconditions: {} }],
  ["?fieldSelector=metadata.name%3Dx", undefined],
  ["?fieldSelector=metadata.name%3D%3Dx", options],
] as const;

const deletion = (user: string, path: string, body?: object) =>
  raw(gateway, `${inDefault}/configmaps${path}`, {
    user,
    method: "DELETE",
    ...(body === undefined ? {} : { headers: json, body: JSON.stringify(body) }),
  });

interface AuditEvent {
  readonly requestURI: string;
  readonly requestObject?: { readonly preconditions?: { readonly uid?: string } };
}

/** What an object that is changed is named by, in every form. */
const uidOf = async (kind: string, name: string) =>
  (await api.kubectl("get", kind, name, "-n", "default", "-o", "jsonpath={.metadata.uid}")).trim();

const namesUid = ({ requestURI, requestObject }: AuditEvent, uid: string) =>
  requestURI.includes(`uid=${uid}`) || requestObject?.preconditions?.uid === uid;

test("an approved deletion deletes what was asked about, and nothing that has taken its name", async () => {
  for (const [path, body] of deletions) {
    for (const isReplaced of [true, false]) {
      await api.kubectl.apply([configMap("x")]);
      const uid = await api.kubectl(..."get configmap x -n default -o jsonpath={.metadata.uid}".split(" "));
      const answer = deletion("del", path, body);
      const name = await waiting("del");
      if (isReplaced) {
        await api.kubectl("delete", "configmap", "x", "-n", "default");
        await api.kubectl.apply([configMap("x", "of somebody else")]);
      }
      expect((await approve(name)).status).toBe(200);
      const { status, body: said } = await answer;
      const what = `${path} ${JSON.stringify(body)}`;
      expect([what, status, said.includes("is void")]).toEqual([what, isReplaced ? 403 : 200, isReplaced]);
      expect((await configMaps()).includes("configmap/x")).toBe(isReplaced);
      // It names the object to the server, too: there is a moment between the gateway's look and the deletion.
      if (!isReplaced)
        await waitFor("the server to have been told the uid", async () => {
          const lines = (await readFile(auditLog, "utf8")).trim().split("\n");
          return lines.some((line) => namesUid(JSON.parse(line), uid)) || undefined;
        });
    }
  }
});

test("an approved deletion of what was not there deletes nothing that has come since", async () => {
  const answer = deletion("del", "/late");
  const name = await waiting("del");
  await api.kubectl.apply([configMap("late")]);
  await approve(name);
  expect([(await answer).status, (await configMaps()).includes("configmap/late")]).toEqual([403, true]);
});

test("the server takes a uid in each of the ways in which the gateway names it", async () => {
  await api.kubectl.apply([configMap("x")]);
  for (const [path, body] of deletions) {
    const query = `${path}${path.includes("?") ? "&" : "?"}uid=another`;
    const { status } =
      body === undefined
        ? await deletion("lou", query)
        : await deletion("lou", path, { ...body, preconditions: { uid: "another" } });
    expect([path, status]).toEqual([path, 409]);
  }
  expect(await configMaps()).toContain("configmap/x");
});

test("a deletion whose options cannot be read, or that names another object, is not asked about", async () => {
  await api.kubectl.apply([configMap("x")]);
  const bodies = [
    '{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"another"}}',
    '{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"a"},"preconditions":{}}',
    '{"kind":"DeleteOptions","apiVersion":"v1","preconditions":[]}',
    "kind: DeleteOptions",
    "k8s\u0000",
    "null",
    " ",
  ];
  for (const body of bodies) {
    const { status, body: said } = await raw(gateway, `${inDefault}/configmaps/x`, {
      user: "del",
      method: "DELETE",
      headers: json,
      body,
    });
    expect([body, status, said]).toEqual([body, 403, expect.stringContaining("options of the deletion")]);
  }
  const { status } = await deletion("del", "/x?uid=another&uid=more");
  expect([status, (await configMaps()).includes("configmap/x")]).toEqual([403, true]);
});

test("an approved change changes what was asked about, and nothing that has taken its name", async () => {
  const merge = { "content-type": "application/merge-patch+json" };
  const eviction = { apiVersion: "policy/v1", kind: "Eviction", metadata: { name: "changed" } };
  const changes = [
    [configMap("changed"), "configmaps/changed", "PATCH", merge, { data: { text: "late" } }],
    [configMap("changed"), "configmaps/changed", "PUT", json, configMap("changed", "late")],
    [podOf("changed"), "pods/changed/eviction", "POST", json, eviction],
  ] as const;
  for (const [object, path, method, headers, body] of changes) {
    await api.kubectl.apply([object]);
    const sent = { user: "del", method, headers, body: JSON.stringify(body) };
    const answer = raw(gateway, `${inDefault}/${path}`, sent);
    const name = await waiting("del");
    await api.kubectl("delete", object.kind, "changed", "-n", "default");
    await api.kubectl.apply([object]);
    await approve(name);
    const { status, body: said } = await answer;
    expect([path, status, said]).toEqual([path, 403, expect.stringContaining("is void")]);
    const now = await api.kubectl("get", object.kind, "changed", "-n", "default", "-o", "json");
    expect(now).not.toContain("late");
  }
});

const merge = "application/merge-patch+json";
const strategic = "application/strategic-merge-patch+json";
const steps = "application/json-patch+json";
const apply = "application/apply-patch+yaml";
const custom = "/apis/example.com/v1/namespaces/default/gadgets/changed";
const deployment = "/apis/apps/v1/namespaces/default/deployments/changed";
const metadata = { name: "changed", namespace: "default" };
const evicted = { apiVersion: "policy/v1", kind: "Eviction", metadata };
const tokenRequest = {
  apiVersion: "authentication.k8s.io/v1",
  kind: "TokenRequest",
  spec: { audiences: ["a"] },
};
const scale = { apiVersion: "autoscaling/v1", kind: "Scale", metadata, spec: { replicas: 0 } };
const deployed = {
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata,
  spec: {
    replicas: 0,
    selector: { matchLabels: { app: "changed" } },
    template: {
      metadata: { labels: { app: "changed" } },
      spec: { containers: [{ name: "c", image: "registry.example/changed:1" }] },
    },
  },
};
const labelled = { metadata: { labels: { seen: "yes" } } };
const labelStep = [{ op: "add", path: "/metadata/annotations", value: { seen: "yes" } }];
/** Ways to have one object changed: its kind, the path, the method, the form and what is sent. */
const changesOf: readonly (readonly [string, string, string, string, object])[] = [
  ["configmap", `${inDefault}/configmaps/changed`, "PUT", "application/json", configMap("changed", "put")],
  ["configmap", `${inDefault}/configmaps/changed`, "PATCH", merge, labelled],
  ["configmap", `${inDefault}/configmaps/changed`, "PATCH", strategic, { data: { a: "b" } }],
  ["configmap", `${inDefault}/configmaps/changed`, "PATCH", steps, labelStep],
  [
    "configmap",
    `${inDefault}/configmaps/changed?fieldManager=x&force=true`,
    "PATCH",
    apply,
    configMap("changed", "x"),
  ],
  ["deployment", `${deployment}/scale`, "PUT", "application/json", scale],
  ["deployment", `${deployment}/scale`, "PATCH", merge, { spec: { replicas: 0 } }],
  [
    "deployment",
    `${deployment}/scale`,
    "PATCH",
    steps,
    [{ op: "replace", path: "/spec/replicas", value: 0 }],
  ],
  ["deployment", `${deployment}/status`, "PUT", "application/json", { ...deployed, status: {} }],
  ["deployment", `${deployment}/status`, "PATCH", strategic, { status: {} }],
  ["gadget", custom, "PATCH", merge, { spec: { a: 1 } }],
  ["gadget", custom, "PATCH", steps, labelStep],
  ["gadget", `${custom}/status`, "PATCH", steps, [{ op: "add", path: "/status", value: { a: 1 } }]],
  ["serviceaccount", `${inDefault}/serviceaccounts/changed/token`, "POST", "application/json", tokenRequest],
  ["pod", `${inDefault}/pods/changed/eviction`, "POST", "application/json", evicted],
];

/** A change of the object with this uid alone. */
function naming(path: string, sent: object, uid: string): object {
  if (Array.isArray(sent)) return [{ op: "test", path: "/metadata/uid", value: uid }, ...sent];
  if (path.endsWith("/eviction")) return { ...sent, deleteOptions: { preconditions: { uid } } };
  const own = "metadata" in sent && typeof sent.metadata === "object" ? sent.metadata : {};
  return { ...sent, metadata: { ...own, uid } };
}

async function defineGadgets(): Promise<void> {
  const schema = { type: "object", "x-kubernetes-preserve-unknown-fields": true };
  const names = { kind: "Gadget", plural: "gadgets", singular: "gadget" };
  const version = { name: "v1", served: true, storage: true, schema: { openAPIV3Schema: schema } };
  await api.kubectl.apply([
    {
      apiVersion: "apiextensions.k8s.io/v1",
      kind: "CustomResourceDefinition",
      metadata: { name: "gadgets.example.com" },
      spec: {
        group: "example.com",
        names,
        scope: "Namespaced",
        versions: [{ ...version, subresources: { status: {} } }],
      },
    },
  ]);
  await api.kubectl("wait", "--for=condition=Established", "crd/gadgets.example.com", "--timeout=30s");
}

test("an approved change names its object to the server in every form, and the server takes it for no other", async () => {
  await defineGadgets();
  await api.kubectl.apply([
    configMap("changed"),
    deployed,
    podOf("changed"),
    { apiVersion: "v1", kind: "ServiceAccount", metadata },
    { apiVersion: "example.com/v1", kind: "Gadget", metadata },
  ]);
  for (const [kind, path, method, type, sent] of changesOf) {
    const uid = await uidOf(kind, "changed");
    const send = (user: string, body: string) =>
      raw(gateway, path, { user, method, headers: { "content-type": type }, body });
    // What the server says where another has come to have the name between the gateway's look and its own.
    const another = await send("lou", JSON.stringify(naming(path, sent, "another")));
    const what = [kind, path, method, type];
    expect([...what, another.status]).toEqual([
      ...what,
      expect.toSatisfy((one) => one === 409 || one === 422),
    ]);
    const answer = send("del", JSON.stringify(sent));
    await approve(await waiting("del"));
    const { status, body: said } = await answer;
    expect([...what, status, said]).toEqual([...what, method === "POST" ? 201 : 200, expect.any(String)]);
    if (kind === "deployment" || kind === "gadget") continue;
    await waitFor("the server to have been told the uid", async () => {
      const lines = (await readFile(auditLog, "utf8")).trim().split("\n");
      const told = lines.map((line) => JSON.parse(line) as AuditEvent);
      const own = told.filter(({ requestURI }) => requestURI === path);
      return own.some((event) => JSON.stringify(event.requestObject ?? "").includes(uid)) || undefined;
    });
  }
});

test("of a custom resource's status the server takes a merge patch for whatever object has the name", async () => {
  await defineGadgets();
  await api.kubectl.apply([
    { apiVersion: "example.com/v1", kind: "Gadget", metadata: { ...metadata, name: "loose" } },
  ]);
  const path = custom.replace("changed", "loose");
  const send = (method: string, type: string, rest: string) =>
    raw(gateway, `${path}/status${rest}`, {
      user: "lou",
      method,
      headers: { "content-type": type },
      body: JSON.stringify({
        apiVersion: "example.com/v1",
        kind: "Gadget",
        metadata: { name: "loose", uid: "another" },
        status: { a: 1 },
      }),
    });
  const answers = [
    await send("PATCH", merge, ""),
    await send("PATCH", apply, "?fieldManager=x&force=true"),
    await send("PUT", "application/json", ""),
  ];
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 409]);
});

test("a change whose form names no object is not asked about", async () => {
  await api.kubectl.apply([configMap("formless")]);
  for (const [type, body] of [
    ["application/yaml", "metadata: {name: formless}"],
    [apply, "metadata: {name: formless}"],
    ["application/vnd.kubernetes.protobuf", "k8s\u0000"],
    [merge, '{"metadata":{"uid":"another"}}'],
    [merge, '{"metadata":null}'],
    [merge, '{"metadata":{},"metadata":{"labels":{}}}'],
  ] as const) {
    const { status, body: said } = await raw(gateway, `${inDefault}/configmaps/formless`, {
      user: "del",
      method: "PATCH",
      headers: { "content-type": type },
      body,
    });
    expect([type, body, status, said]).toEqual([type, body, 403, expect.stringContaining("send it in JSON")]);
  }
});

test("who approves a deletion of many reads what it finds, and what has come since does not die with it", async () => {
  const of = (name: string) => ({
    ...configMap(name),
    metadata: { name, namespace: "default", labels: { many: "yes" } },
  });
  const path = `${inDefault}/configmaps?labelSelector=many%3Dyes`;
  const remove = (query = "") => raw(gateway, `${path}${query}`, { user: "del", method: "DELETE" });
  const shownOf = async (name: string) => JSON.parse((await asLead(`/${name}`)).body) as Shown;
  const left = async () => (await configMaps()).filter((name) => name.startsWith("configmap/many-"));
  await api.kubectl.apply(["many-a", "many-b"].map(of));
  for (const meanwhile of [
    () => api.kubectl.apply([of("many-c")]),
    async () => {
      await api.kubectl("delete", "configmap", "many-b", "many-c", "-n", "default");
      await api.kubectl.apply([of("many-b")]);
    },
  ]) {
    const before = await left();
    const answer = remove();
    const name = await waiting("del");
    const { command } = await shownOf(name);
    for (const one of before) expect(command).toContain(`-- default/${one.slice("configmap/".length)}`);
    await meanwhile();
    await approve(name);
    const { status, body } = await answer;
    expect([status, body]).toEqual([403, expect.stringContaining("is void")]);
    expect(await left()).toContain("configmap/many-a");
  }
  const past = await remove("&resourceVersion=1&resourceVersionMatch=Exact");
  expect([past.status, past.body]).toEqual([403, expect.stringContaining("leave out")]);
  const answer = remove();
  const name = await waiting("del");
  await api.kubectl("delete", "configmap", "many-b", "-n", "default");
  await approve(name);
  expect([(await answer).status, await left()]).toEqual([200, []]);
});

test("nobody is asked about a change of what its author may not read", async () => {
  const metadata = { name: "deletes", namespace: "default" };
  await api.kubectl.apply([
    configMap("x"),
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "Role",
      metadata,
      rules: [{ apiGroups: [""], resources: ["configmaps"], verbs: ["delete"] }],
    },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "RoleBinding",
      metadata,
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: "deletes" },
      subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: "local:low" }],
    },
  ]);
  const { status, body } = await deletion("low", "/x");
  expect([status, body]).toEqual([403, expect.stringContaining("may not read")]);
  expect(await configMaps()).toContain("configmap/x");
});

const logPath = `${inDefault}/pods/p/log`;

test("a log is masked wherever a reader cuts it", async () => {
  kubelet.log = "mail zoe@example.com now\n";
  for (let limit = 1; limit <= kubelet.log.length; limit += 1) {
    const { status, body } = await raw(gateway, `${logPath}?limitBytes=${limit}`, { user: "may" });
    const isWhole = limit === kubelet.log.length;
    expect([limit, status, body]).toEqual([
      limit,
      200,
      isWhole ? `mail ${"*".repeat(15)} now\n` : "*".repeat(limit),
    ]);
  }
});

test("a log is masked however slowly it is read", async () => {
  kubelet.log = "mail zoe@example.com now\n".repeat(1_000_000);
  const { length } = kubelet.log;
  const socket = connectTls({ host: "localhost", port: gateway.port, ca: gateway.caPem });
  const head = [
    `GET ${logPath}?follow=true HTTP/1.1`,
    "Host: localhost",
    `Authorization: Bearer ${gateway.token("may")}`,
    "Connection: close",
  ];
  socket.write(`${head.join("\r\n")}\r\n\r\n`);
  let [got, stops, found] = [0, 0, false];
  let tail = "";
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    got += chunk.length;
    const text = tail + chunk.toString("latin1");
    found ||= text.includes("@");
    tail = text.slice(-1);
    if (got < (stops + 1) * (length / 12)) continue;
    stops += 1;
    // Node reads on until it holds some; then nobody does.
    let [seen, before] = [0, -1];
    await waitFor("nothing to be read", () => {
      seen = socket.bytesRead === before ? seen + 1 : 0;
      before = socket.bytesRead;
      return seen > 2 || undefined;
    });
  }
  expect([got > length, stops > 5, found]).toEqual([true, true, false]);
});

test("a stream that policy has come to deny while the server was asked for it does not begin", async () => {
  await gateway.write("pol.yaml", policy("pol", "  profile: Admin"));
  const path = `${inDefault}/pods/p/exec?command=late&stdout=true`;
  await waitFor("the policy to let in", async () =>
    (await raw(gateway, `${inDefault}/pods`, { user: "pol" })).status === 200 ? true : undefined,
  );
  kubelet.waits = true;
  try {
    const opened = openWebSocket(as("pol"), path, ["v4.channel.k8s.io"]).catch((error: unknown) => error);
    await waitFor("the kubelet to be asked", async () =>
      kubelet.asked.some((url) => url.includes("command=late")) ? true : undefined,
    );
    const rule = "  - {name: none, match: {commands: [pods/exec]}, action: Deny}";
    await change("pol", `  rules:\n${rule}`, async () => {
      const tried = await openWebSocket(as("pol"), `${path}&stderr=true`, ["v4.channel.k8s.io"]).catch(
        (error: unknown) => error,
      );
      return tried instanceof NotSwitched && tried.status === 403;
    });
    kubelet.waits = false;
    const late = await opened;
    if (!(late instanceof NotSwitched)) throw new Error("it was switched");
    expect([late.status, late.body]).toEqual([403, expect.stringContaining("the access policy has changed")]);
  } finally {
    kubelet.waits = false;
  }
  await waitFor("the kubelet's streams to end", async () => kubelet.open === 0 || undefined);
});

test("a tunnel to a port that a WebSocket names ends with the leave for that port", async () => {
  const opened = openWebSocket(as("wim"), `${inDefault}/pods/p/portforward?ports=5432`, [
    "v4.channel.k8s.io",
  ]);
  const name = await waiting("wim");
  await approve(name);
  const tunnel = await opened;
  await waitFor("the tunnel", async () => kubelet.open === 1 || undefined);
  expect((await asLead(`/${name}/revocation`, { reason: "enough" })).status).toBe(200);
  await tunnel.closed;
  await waitFor("the kubelet's stream to end", async () => kubelet.open === 0 || undefined);
});

test("each connection of a port-forward is judged by what the pod is then", async () => {
  const lou = await gateway.user("lou");
  await api.kubectl(
    ..."patch pod forwarded --subresource=status --type=merge -p".split(" "),
    JSON.stringify({ status: { phase: "Running" } }),
  );
  const port = await freePort();
  const child: ChildProcess = spawn(
    lou.program,
    ["--kubeconfig", lou.kubeconfig, "port-forward", "pod/forwarded", `${port}:80`],
    { timeout: 60_000 },
  );
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
  }
  const over = new Promise((resolve) => child.once("close", resolve));
  try {
    await waitFor("kubectl to listen", async () => said.includes("Forwarding from 127.0.0.1") || undefined);
    await api.kubectl("label", "pod", "forwarded", "closed=yes");
    const socket = connect(port, "127.0.0.1").on("error", () => undefined);
    socket.write("x");
    await waitFor("the refusal", async () => said.includes("the pod is closed") || undefined);
    socket.destroy();
  } finally {
    child.kill("SIGKILL");
    await over;
  }
});

test("what runs ends when the hour comes from which on it is denied, or no longer allowed", async () => {
  const hour = Date.now() + 20_000;
  const cel = (test: string) => `{cel: "time ${test} timestamp('${new Date(hour).toISOString()}')"}`;
  const hours: Readonly<Record<string, string>> = {
    tim: `  rules:\n  - {name: hours, match: ${cel("<")}, action: Allow}`,
    ida: `  profile: Admin\n  rules:\n  - {name: closed, match: ${cel(">=")}, action: Deny}`,
  };
  for (const [user, rest] of Object.entries(hours)) await gateway.write(`${user}.yaml`, policy(user, rest));
  for (const user of Object.keys(hours))
    await waitFor("the policy to let in", async () =>
      (await raw(gateway, `${inDefault}/pods`, { user })).status === 200 ? true : undefined,
    );
  const open = Object.keys(hours).map(async (user) => {
    const exec = await openWebSocket(as(user), `${inDefault}/pods/p/exec?command=id&stdout=true`, [
      "v4.channel.k8s.io",
    ]);
    const watch = raw(gateway, `${inDefault}/configmaps?watch=1&timeoutSeconds=100`, { user }).catch(
      (error: unknown) => error,
    );
    await exec.closed;
    return { said: Buffer.concat(exec.messages.map(({ bytes }) => bytes)).toString(), watch: await watch };
  });
  await waitFor("both to run", async () => kubelet.open === 2 || undefined);
  expect(Date.now()).toBeLessThan(hour);
  for (const { said } of await Promise.all(open)) expect(said).toContain("at this time");
  expect(Date.now()).toBeGreaterThanOrEqual(hour);
  await waitFor("the kubelet's streams to end", async () => kubelet.open === 0 || undefined);
});

test("what waits when a token runs out is not run by an approval that comes a moment later", async () => {
  // Long enough for the request to be held with it.
  const seconds = 10;
  const token = gateway.token("exp", [], seconds);
  const over = Date.now() + (seconds + 0.2) * 1000;
  const answer = raw(gateway, `${inDefault}/secrets`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ apiVersion: "v1", kind: "Secret", metadata: { name: "too-late" } }),
  }).catch(() => undefined);
  const name = await waiting("exp");
  await waitFor("the token's end", async () => Date.now() > over || undefined, { pauseMs: 20 });
  await approve(name);
  await answer;
  expect((await api.kubectl("get", "secrets", "-o", "name")).includes("too-late")).toBe(false);
});
