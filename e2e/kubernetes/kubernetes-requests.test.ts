/** What of the Kubernetes gateway needs no node: requests, watches, patches and secrets, against a real API server. */
import { readFile, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { createKubectl, type Kubectl } from "../cluster/kubectl.ts";
import { type Authority, createAuthority } from "../targets/certificates.ts";
import {
  clusterAdmins,
  type KubernetesGateway,
  startKubernetesGateway,
} from "../targets/kubernetes-gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { type RawRequest, rawBytes, raw as rawFrom, upgradeHead } from "./raw-client.ts";

const policy = (user: string, rest: string, name: string) => policyDocument("cluster", user, rest, name);
const policies = [
  policy(
    "ana",
    `  profile: Admin
  rules:
  - name: no-host-access
    match: {cel: 'command.facts.verb in ["create","update","patch"] && command.facts.hostAccess'}
    action: Deny
    message: pods may not reach the node
  - name: keep-kube-system
    match: {operations: [write], cel: 'command.facts.namespace == "kube-system"'}
    action: Deny`,
    "admins",
  ),
  policy("bob", "  profile: ReadOnly", "readers"),
  policy(
    "mia",
    `  profile: Admin
  masking:
  - {columns: ["core.secrets.data"], with: Redact}`,
    "masked",
  ),
  policy(
    "pat",
    `  profile: Admin
  rules:
  - name: no-host-access
    match: {cel: 'command.facts.hostAccess'}
    action: Deny
    message: pods may not reach the node
  - name: no-unknown-images
    match: {cel: '!command.facts.images.all(i, i in ["known", "other"])'}
    action: Deny
    message: run the known image`,
    "patchers",
  ),
  policy(
    "pam",
    `  profile: Admin
  rules:
  - name: no-host-access
    match: {cel: 'command.facts.hostAccess'}
    action: Deny
    message: pods may not reach the node`,
    "blind",
  ),
].join("");

/** Without a controller manager nobody makes it, and pods are admitted with one alone. */
const account = { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default" } };

let api: ApiServer;
let gateway: KubernetesGateway;
let ana: Kubectl;
let bob: Kubectl;
let mia: Kubectl;
let people: Authority;

beforeAll(async () => {
  api = await startApiServer();
  people = await createAuthority("people");
  await api.kubectl.apply(clusterAdmins(["ana", "bob", "mia"]));
  gateway = await startKubernetesGateway(api, {
    policies,
    provider: { clientCertificates: { caBundle: people.caPem } },
  });
  [ana, bob, mia] = [await gateway.user("ana"), await gateway.user("bob"), await gateway.user("mia")];
});
afterAll(async () => {
  await gateway?.stop();
  await api?.close();
});

const raw = (path: string, options?: RawRequest) => rawFrom(gateway, path, options);
const bytes = (text: string) => rawBytes(gateway, text);

test("K24: the API server sees the user whom the gateway speaks for, whatever the client claims", async () => {
  const review = JSON.stringify({ apiVersion: "authentication.k8s.io/v1", kind: "SelfSubjectReview" });
  const { status, body } = await raw("/apis/authentication.k8s.io/v1/selfsubjectreviews", {
    method: "POST",
    headers: {
      "content-type": "application/json",
      "impersonate-user": "system:admin",
      "Impersonate-Group": ["system:masters", "system:nodes"],
      "IMPERSONATE-UID": "0",
      "Impersonate-Extra-Scopes": "all",
      "x-remote-user": "root",
      "X-Remote-Group": "system:masters",
      cookie: "session=stolen",
    },
    body: review,
  });
  expect(status).toBe(201);
  const { userInfo } = JSON.parse(body).status;
  expect(userInfo.username).toBe("local:ana");
  expect(userInfo.groups).toEqual(["system:authenticated"]);
  expect(userInfo.uid).toBe("ana");
  expect(Object.keys(userInfo.extra)).toEqual(["sallyport.dev/session"]);
});

test("a client certificate logs kubectl in as whom it names, and one of another authority, or that has run out, nobody", async () => {
  const asCertified = async (file: string, authority: Authority, days = 1) => {
    const name = { commonName: "bob", organizations: ["testers"] };
    const issued = await authority.issue({ ...name, usage: "client", days });
    const config = JSON.parse(await readFile(bob.kubeconfig, "utf8"));
    const inBase64 = (pem: string) => Buffer.from(pem).toString("base64");
    config.users[0].user = {
      "client-certificate-data": inBase64(issued.certPem),
      "client-key-data": inBase64(issued.keyPem),
    };
    const path = `${bob.kubeconfig}.${file}`;
    await writeFile(path, JSON.stringify(config), { mode: 0o600 });
    return createKubectl(bob.program, path);
  };
  const certified = await asCertified("certified", people);
  const { userInfo } = JSON.parse(await certified("auth", "whoami", "-o", "json")).status;
  expect(userInfo.username).toBe("local:bob");
  expect(userInfo.groups).toEqual(expect.arrayContaining(["local:testers", "system:authenticated"]));
  expect(userInfo.groups).not.toContain("system:masters");
  expect(await certified.try(undefined, "create", "configmap", "certified")).toMatchObject({ code: 1 });
  const others = [
    await asCertified("foreign", await createAuthority("people")),
    await asCertified("late", people, -1),
  ];
  for (const wrong of others) {
    const { code, stderr } = await wrong.try(undefined, "get", "configmaps");
    expect([code, stderr]).toEqual([1, expect.stringMatching(/Unauthorized|must be logged in/)]);
  }
});

test("kubectl applies, reads, patches and deletes through the gateway", async () => {
  const map = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "m" }, data: { a: "1" } };
  await ana.withInput(JSON.stringify(map), "apply", "-f", "-");
  await ana.withInput(
    JSON.stringify({ ...map, data: { a: "2" } }),
    "apply",
    "--server-side",
    "--force-conflicts",
    "-f",
    "-",
  );
  expect(await ana("get", "configmap", "m", "-o", "jsonpath={.data.a}")).toBe("2");
  expect(await ana("get", "configmap")).toContain("NAME");
  await ana("patch", "configmap", "m", "--type=json", "-p", '[{"op":"add","path":"/data/b","value":"3"}]');
  expect(await ana("get", "--raw", "/api/v1/namespaces/default/configmaps/m")).toContain('"b":"3"');
  expect(await ana("api-resources", "--api-group=apps")).toContain("deployments");
  await ana("delete", "configmap", "m");
});

test("a reader reads, and is told in the API server's words what nobody allows", async () => {
  expect(await bob("get", "namespaces")).toContain("kube-system");
  const refused = await bob.try(undefined, "create", "configmap", "n");
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(/configmaps is forbidden: no policy allows create on create:configmaps/);
  const secrets = await bob.try(undefined, "get", "secrets", "-A");
  expect(secrets.stderr).toContain("no policy allows list on list:secrets");
});

test("K6: side doors to a command are governed like the command", async () => {
  const doors: readonly (readonly [string, string])[] = [
    ["POST", "/api/v1/nodes/n/proxy/exec/default/p/c"],
    ["GET", "/api/v1/nodes/n/proxy/run/default/p/c"],
    ["GET", "/api/v1/namespaces/default/pods/p/proxy/"],
    ["GET", "/api/v1/namespaces/default/services/s/proxy/x"],
    ["PATCH", "/api/v1/namespaces/default/pods/p/ephemeralcontainers"],
    ["POST", "/api/v1/namespaces/default/serviceaccounts/default/token"],
    ["POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests"],
    ["POST", "/api/v1/namespaces/default/pods/p/eviction"],
    ["POST", "/apis/batch/v1/namespaces/default/jobs"],
    ["GET", "/metrics"],
    ["GET", "/logs/"],
    ["GET", "/debug/pprof/heap"],
  ];
  for (const [method, path] of doors) {
    const { status, body } = await raw(path, {
      method,
      user: "bob",
      headers: { "content-type": "application/json" },
    });
    expect([path, status, JSON.parse(body).reason]).toEqual([path, 403, "Forbidden"]);
  }
});

test("K30: a path that can be read in two ways is not read at all", async () => {
  for (const path of [
    "/api/v1/namespaces/default/../kube-system/secrets",
    "/api/v1/namespaces/default%2f..%2fkube-system/configmaps",
    "/api/v1//secrets",
    "/api/v1/namespaces/%2e%2e/secrets",
    "/api/v1/proxy/nodes/n/metrics",
    "/api/v1/namespaces/default/pods/p/exec/extra",
  ]) {
    const { status } = await raw(path, { user: "bob" });
    expect([path, status]).toEqual([path, 400]);
  }
});

test("K25: what makes a pod privileged is a fact, in a pod, a template, a patch and a form that cannot be read", async () => {
  await api.kubectl.apply([account]);
  const pod = { containers: [{ name: "c", image: "i", securityContext: { privileged: true } }] };
  const send = (path: string, body: unknown, type = "application/json", method = "POST") =>
    raw(path, {
      method,
      headers: { "content-type": type },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
  const pods = "/api/v1/namespaces/default/pods";
  const tries = [
    send(pods, { kind: "Pod", apiVersion: "v1", metadata: { name: "p" }, spec: pod }),
    send("/apis/apps/v1/namespaces/default/deployments", {
      kind: "Deployment",
      spec: { template: { spec: pod } },
    }),
    send(
      "/apis/apps/v1/namespaces/default/deployments/d",
      [{ op: "add", path: "/spec/template/spec/hostPID", value: true }],
      "application/json-patch+json",
      "PATCH",
    ),
    send(
      "/apis/apps/v1/namespaces/default/deployments/d",
      [{ op: "copy", from: "/a", path: "/b" }],
      "application/json-patch+json",
      "PATCH",
    ),
    send(pods, "k8s\u0000binary", "application/vnd.kubernetes.protobuf"),
    send(pods, "apiVersion: v1\nkind: Pod\nspec: {hostNetwork: true}", "application/yaml"),
    send(
      `${pods}/p/ephemeralcontainers`,
      {
        spec: {
          ephemeralContainers: [{ name: "d", securityContext: { capabilities: { add: ["SYS_PTRACE"] } } }],
        },
      },
      "application/strategic-merge-patch+json",
      "PATCH",
    ),
  ];
  for (const { status, body } of await Promise.all(tries)) {
    expect([status, JSON.parse(body).message]).toEqual([
      403,
      expect.stringContaining("pods may not reach the node"),
    ]);
  }
  const plain = {
    kind: "Pod",
    apiVersion: "v1",
    metadata: { name: "plain" },
    spec: { containers: [{ name: "c", image: "i" }] },
  };
  const allowed = await send(`${pods}?dryRun=All`, plain);
  expect([allowed.status, allowed.body]).toEqual([201, expect.stringContaining('"name":"plain"')]);
});

const rootedSpec = {
  containers: [
    { name: "c", image: "known", securityContext: { privileged: true } },
    { name: "beside", image: "odd" },
  ],
};
const plainSpec = { containers: [{ name: "c", image: "known" }] };
const labels = { app: "x" };
const templated = (spec: object) => ({ metadata: { labels }, spec });

/** Every kind that makes pods, as an object of it holds them, and the path to them. */
const workloads = [
  ["pods", "/api/v1", "Pod", (pod: object) => ({ spec: { ...pod } }), "/spec"],
  [
    "replicationcontrollers",
    "/api/v1",
    "ReplicationController",
    (pod: object) => ({ spec: { replicas: 0, selector: labels, template: templated(pod) } }),
    "/spec/template/spec",
  ],
  ...["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"].map(
    (kind) =>
      [
        `${kind.toLowerCase()}s`,
        "/apis/apps/v1",
        kind,
        (pod: object) => ({ spec: { selector: { matchLabels: labels }, template: templated(pod) } }),
        "/spec/template/spec",
      ] as const,
  ),
  [
    "jobs",
    "/apis/batch/v1",
    "Job",
    (pod: object) => ({ spec: { template: templated({ ...pod, restartPolicy: "Never" }) } }),
    "/spec/template/spec",
  ],
  [
    "cronjobs",
    "/apis/batch/v1",
    "CronJob",
    (pod: object) => ({
      spec: {
        schedule: "0 0 1 1 *",
        suspend: true,
        jobTemplate: { spec: { template: templated({ ...pod, restartPolicy: "Never" }) } },
      },
    }),
    "/spec/jobTemplate/spec/template/spec",
  ],
] as const;

test.each(workloads)(
  "K25: a patch that writes an image alone reaches what the pods of its %s reach, in every form",
  async (resource, root, kind, holding, path) => {
    const pat = [
      { resources: [resource], verbs: ["get", "patch", "create"] },
      { resources: [`${resource}/status`], verbs: ["patch"] },
    ];
    const group = root === "/api/v1" ? "" : root.slice("/apis/".length, -"/v1".length);
    await api.kubectl.apply([
      account,
      {
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "ClusterRole",
        metadata: { name: `pat-${resource}` },
        rules: pat.map((rule) => ({ apiGroups: [group], ...rule })),
      },
      {
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "ClusterRoleBinding",
        metadata: { name: `pat-${resource}` },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: `pat-${resource}` },
        subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: "local:pat" }],
      },
      ...[
        ["rooted", rootedSpec],
        ["plain", plainSpec],
      ].map(([name, pod]) => ({
        apiVersion: group === "" ? "v1" : `${group}/v1`,
        kind,
        metadata: { name: name as string },
        ...holding(pod as object),
      })),
    ]);
    const send = (name: string, type: string, body: unknown, query = "") =>
      raw(`${root}/namespaces/default/${resource}/${name}${query}`, {
        user: "pat",
        method: "PATCH",
        headers: { "content-type": type },
        body: JSON.stringify(body),
      });
    const own = { apiVersion: group === "" ? "v1" : `${group}/v1`, kind };
    const image = (name: string) => ({ containers: [{ name: "c", image: name }] });
    const forms: readonly (readonly [string, (name: string) => unknown, string?])[] = [
      ["application/strategic-merge-patch+json", () => holding(image("other"))],
      ["application/merge-patch+json", () => holding(image("other"))],
      [
        "application/json-patch+json",
        () => [{ op: "replace", path: `${path}/containers/0/image`, value: "other" }],
      ],
      ["application/json-patch+json", () => [{ op: "remove", path: `${path}/containers/0/image` }]],
      [
        "application/apply-patch+yaml",
        (name) => ({ ...own, metadata: { name }, ...holding(image("other")) }),
        "?fieldManager=x&force=true",
      ],
    ];
    for (const [type, body, query] of forms) {
      const { status, body: answer } = await send("rooted", type, body("rooted"), query);
      expect([type, status, JSON.parse(answer).message]).toEqual([
        type,
        403,
        expect.stringContaining("pods may not reach the node"),
      ]);
      // Of what is no pod of the node's the rule has nothing to say, and the server what it will.
      const plain = await send("plain", type, body("plain"), query);
      expect([type, plain.body]).toEqual([type, expect.not.stringContaining("may not reach the node")]);
    }
    // Who says what the pods run is asked; who labels, scales or restarts them is not, nor for images that are there already.
    const named = { metadata: { labels: { seen: "yes" } } };
    expect((await send("rooted", "application/merge-patch+json", named)).status).toBe(200);
    const unknown = [{ op: "add", path: `${path}/containers/0/image`, value: "evil" }];
    const evil = await send("plain", "application/json-patch+json", unknown);
    expect(JSON.parse(evil.body).message).toContain("run the known image");
    expect((await send("none", "application/merge-patch+json", holding(image("other")))).status).toBe(404);
    const shown = await api.kubectl("get", resource, "rooted", "-o", "json");
    expect(shown).not.toContain('"other"');
  },
);

test("K25: who may patch a workload and not read it is taken for one who reaches the node", async () => {
  const role = { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "blind" };
  await api.kubectl.apply([
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRole",
      metadata: { name: "blind" },
      rules: [{ apiGroups: ["apps"], resources: ["deployments"], verbs: ["patch"] }],
    },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRoleBinding",
      metadata: { name: "blind" },
      roleRef: role,
      subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: "local:pam" }],
    },
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name: "unread" },
      spec: { replicas: 0, selector: { matchLabels: labels }, template: templated(plainSpec) },
    },
  ]);
  const patch = (body: object) =>
    raw("/apis/apps/v1/namespaces/default/deployments/unread", {
      user: "pam",
      method: "PATCH",
      headers: { "content-type": "application/merge-patch+json" },
      body: JSON.stringify(body),
    });
  const blind = await patch({ spec: { template: { spec: { hostname: "a" } } } });
  expect([blind.status, JSON.parse(blind.body).message]).toEqual([
    403,
    expect.stringContaining("pods may not reach the node"),
  ]);
  const restarted = { spec: { replicas: 0, template: { metadata: { annotations: { at: "now" } } } } };
  expect((await patch(restarted)).status).toBe(200);
});

test("K26: a watch shows each change as it happens, and an old resource version is gone", async () => {
  await ana("create", "configmap", "seen", "--from-literal=n=0");
  const path = "/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3Dseen";
  const seen = await new Promise<string[]>((resolve, reject) => {
    const found: string[] = [];
    const sent = request(
      `${gateway.url}${path}`,
      { ca: gateway.caPem, agent: false, headers: { authorization: `Bearer ${gateway.token("ana")}` } },
      (response) => {
        let held = "";
        response.setEncoding("utf8").on("data", (text: string) => {
          held += text;
          for (let at = held.indexOf("\n"); at >= 0; at = held.indexOf("\n")) {
            const event = JSON.parse(held.slice(0, at));
            held = held.slice(at + 1);
            found.push(`${event.type} ${event.object.data.n}`);
            const next = Number(event.object.data.n) + 1;
            if (found.length === 3) {
              sent.destroy();
              resolve(found);
            } else void ana("patch", "configmap", "seen", "-p", `{"data":{"n":"${next}"}}`).catch(reject);
          }
        });
      },
    );
    sent.on("error", (error) => (found.length === 3 ? undefined : reject(error)));
    sent.end();
  });
  expect(seen).toEqual(["ADDED 0", "MODIFIED 1", "MODIFIED 2"]);
  // What a server has forgotten it says with 410, on which clients list anew.
  const { resourceVersion } = (
    await api.kubectl.json<{ metadata: { resourceVersion: string } }>("configmap", "seen")
  ).metadata;
  const compacted = await fetch(`${api.etcdUrl}/v3/kv/compaction`, {
    method: "POST",
    body: JSON.stringify({ revision: resourceVersion, physical: true }),
  });
  expect([compacted.status, await compacted.text()]).toEqual([200, expect.any(String)]);
  // Of events it keeps no copy of its own.
  const gone = await raw("/api/v1/events?resourceVersion=1&resourceVersionMatch=Exact&limit=1");
  expect([gone.status, JSON.parse(gone.body)]).toEqual([410, expect.objectContaining({ reason: "Expired" })]);
});

test("K27: masked secrets are masked in every form, and nobody saves the mask over them", async () => {
  const secret = {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: "s" },
    stringData: { password: "hunter2secret" },
  };
  await ana.withInput(JSON.stringify(secret), "apply", "-f", "-");
  const encoded = Buffer.from("hunter2secret").toString("base64");
  const accepts = [
    "application/json",
    "application/vnd.kubernetes.protobuf,application/json",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "*/*",
  ];
  const base = "/api/v1/namespaces/default/secrets";
  const watch = `${base}?watch=1&timeoutSeconds=1`;
  const lists = (path: string, accept: string) =>
    path === `${base}/s` ? accept : accept.replace("PartialObjectMetadata", "PartialObjectMetadataList");
  for (const path of [
    `${base}/s`,
    base,
    `${base}?includeObject=Object`,
    watch,
    "/api/v1/watch/secrets?timeoutSeconds=1",
  ]) {
    for (const accept of accepts) {
      const { status, body } = await raw(path, {
        user: "mia",
        headers: { accept: path.includes("watch") ? accept : lists(path, accept), "accept-encoding": "gzip" },
      });
      expect([path, accept, status]).toEqual([path, accept, 200]);
      expect(body).not.toContain(encoded);
      expect(body).not.toContain("hunter2secret");
      expect(body.length).toBeGreaterThan(50);
    }
  }
  const binary = await raw(`${base}/s`, {
    user: "mia",
    headers: { accept: "application/vnd.kubernetes.protobuf" },
  });
  expect(binary.status).toBe(406);
  expect(await mia("get", "secret", "s", "-o", "jsonpath={.data.password}")).toBe(
    Buffer.from("***").toString("base64"),
  );
  const saved = await mia.try(JSON.stringify(secret), "replace", "-f", "-");
  expect(saved.stderr).toContain("parts of it are masked for you");
  expect((await mia.try(undefined, "annotate", "secret", "s", "x=y")).code).toBe(1);
  expect(await ana("get", "secret", "s", "-o", "jsonpath={.data.password}")).toBe(encoded);
});

test("K28: can-i speaks of the gateway's policy, and cached discovery stays cached", async () => {
  expect((await bob.try(undefined, "auth", "can-i", "get", "pods")).stdout.trim()).toBe("yes");
  expect((await bob.try(undefined, "auth", "can-i", "create", "pods/exec")).stdout).toMatch(
    /^no - no policy/,
  );
  expect((await bob.try(undefined, "auth", "can-i", "get", "secrets")).stdout).toMatch(/^no - no policy/);
  const first = await raw("/openapi/v2", { headers: { accept: "application/json" } });
  const etag = String(first.headers.etag);
  const again = await raw("/openapi/v2", { headers: { accept: "application/json", "if-none-match": etag } });
  expect([first.status, again.status]).toEqual([200, 304]);
});

test("who shows no credential, a wrong one, or one of another kind gets a Status 401", async () => {
  for (const authorization of ["", "Bearer x.y.z", "Basic YTpi"]) {
    const { status, body } = await raw("/api", { headers: { authorization } });
    expect([status, JSON.parse(body).reason]).toEqual([401, "Unauthorized"]);
  }
});

test("K30: requests that hide another one, and heads without end, are answered 4xx and closed", async () => {
  const as = `Host: localhost\r\nAuthorization: Bearer ${gateway.token("bob")}\r\n`;
  const hidden = "GET /api/v1/secrets HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const exec = "GET /api/v1/namespaces/default/pods/p/exec?command=id HTTP/1.1\r\n";
  const attacks = [
    `POST /api/v1/pods HTTP/1.1\r\n${as}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`,
    `POST /api/v1/pods HTTP/1.1\r\n${as}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`,
    `POST /api/v1/pods HTTP/1.1\r\n${as}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd`,
    `GET /api HTTP/1.1\n${as}\n\n`,
    `GET /api HTTP/1.1\r\n${as}X-Long: ${"x".repeat(40_000)}\r\n\r\n`,
    `${exec}${as}${upgradeHead}Content-Length: 5\r\n\r\nhello`,
    `${exec}${as}${upgradeHead}\r\n${hidden}`,
  ];
  for (const attack of attacks) {
    const answer = await bytes(attack);
    expect([attack.slice(0, 60), answer.slice(0, 10)]).toEqual([
      attack.slice(0, 60),
      expect.stringMatching(/^HTTP\/1\.1 4$/),
    ]);
    expect(answer.match(/HTTP\/1\.1/g)).toHaveLength(1);
  }
});

test("K22: a client is told of a switch only where the server switches", async () => {
  const as = `Host: localhost\r\nAuthorization: Bearer ${gateway.token("ana")}\r\n`;
  const missing = await bytes(
    `GET /api/v1/namespaces/default/pods/none/exec?command=id HTTP/1.1\r\n${as}${upgradeHead}\r\n`,
  );
  expect(missing).toMatch(/^HTTP\/1\.1 404 /);
  expect(missing).toContain('"reason":"NotFound"');
});
