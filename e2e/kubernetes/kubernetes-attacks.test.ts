/** What somebody with a valid account tries against the Kubernetes gateway, against a real API server. */
import { once } from "node:events";
import { connect } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { run } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import {
  clusterAdmins,
  type KubernetesGateway,
  startKubernetesGateway,
} from "../targets/kubernetes-gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import {
  type RawRequest,
  rawBytes,
  raw as rawFrom,
  rawHttp2,
  rawHttp2Session,
  upgradeHead,
} from "./raw-client.ts";

const policy = (user: string, rest: string, name: string) => policyDocument("cluster", user, rest, name);
const policies = [
  policy(
    "ana",
    `  profile: Admin
  rules:
  - name: no-host-access
    match: {cel: 'command.facts.verb in ["create","update","patch"] && command.facts.hostAccess'}
    action: Deny
    message: pods may not reach the node`,
    "admins",
  ),
  policy("bob", "  profile: ReadOnly", "readers"),
  policy(
    "sam",
    `  profile: ReadWrite
  rules:
  - name: secrets
    match: {operations: [write], objects: ["create:secrets"]}
    action: Allow`,
    "secret-writers",
  ),
  policy(
    "mia",
    `  profile: Admin
  masking:
  - {columns: ["core.secrets.data", "core.pods.spec"], with: Redact}`,
    "masked",
  ),
  policy(
    "max",
    `  profile: Admin
  maskedWrites: Allow
  masking:
  - {columns: ["core.secrets.data", "core.pods.spec"], with: Redact}`,
    "masked-writers",
  ),
  policy(
    "deb",
    `  rules:
  - name: looks
    match: {operations: [read], objects: ["*:pods", "*:configmaps"]}
    action: Allow
  - name: when-tried
    match: {objects: ["*:configmaps"], cel: command.facts.dryRun}
    action: Allow
  - name: only-patched
    match: {objects: ["patch:configmaps"]}
    action: Allow
  - name: only-updated
    match: {objects: ["update:limitranges", "update:leases.coordination.k8s.io"]}
    action: Allow
  - name: proxied
    match: {objects: ["create:pods/proxy", "create:services/proxy", "create:pods/exec"]}
    action: Allow
  - name: not-the-database
    match: {cel: 'command.facts.name == "db" || ("tier" in command.facts.labels && command.facts.labels["tier"] == "db")'}
    action: Deny
    message: the database is closed
  - name: not-that-container
    match: {cel: command.facts.container == "c"}
    action: Deny
    message: the container is closed`,
    "tries",
  ),
  policy(
    "dot",
    `  rules:
  - name: debugs
    match: {objects: ["*:pods/ephemeralcontainers", "*:pods"]}
    action: Allow
  - name: not-that-one
    match: {cel: command.facts.target == "other"}
    action: Deny
    message: that container is not looked into
  - name: not-the-node
    match: {cel: command.facts.hostAccess}
    action: Deny
    message: nobody enters what reaches the node`,
    "debuggers",
  ),
].join("");

const users = ["ana", "bob", "sam", "mia", "max", "deb", "dot", "wes"];
const value = "hunter2secret";
const forms = [value, Buffer.from(value).toString("base64"), Buffer.from(value).toString("hex")];
const secrets = "/api/v1/namespaces/default/secrets";
const pods = "/api/v1/namespaces/default/pods";
const image = "registry.example/hidden-image:7";

let api: ApiServer;
let gateway: KubernetesGateway;

beforeAll(async () => {
  api = await startApiServer();
  await api.kubectl.apply(clusterAdmins(users));
  const secret = {
    apiVersion: "v1",
    kind: "Secret",
    metadata: {
      name: "s",
      labels: { of: "test" },
      annotations: { "kapp.k14s.io/original": JSON.stringify({ data: { password: value } }) },
    },
    stringData: { password: value },
  };
  // A client-side apply, so that the annotation of the last apply holds the value.
  await api.kubectl.withInput(JSON.stringify(secret), "apply", "-f", "-");
  await api.kubectl.apply([{ apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default" } }]);
  const spec = { automountServiceAccountToken: false, containers: [{ name: "c", image }] };
  await api.kubectl.apply([
    { apiVersion: "v1", kind: "Pod", metadata: { name: "p", labels: { tier: "db" } }, spec },
    { apiVersion: "v1", kind: "Pod", metadata: { name: "q" }, spec },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "two" },
      spec: {
        automountServiceAccountToken: false,
        containers: ["c", "other"].map((name) => ({ name, image })),
      },
    },
    { apiVersion: "v1", kind: "Pod", metadata: { name: "node" }, spec: { ...spec, hostPID: true } },
    { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "kept" }, data: { a: "b" } },
  ]);
  gateway = await startKubernetesGateway(api, { policies });
});
afterAll(async () => {
  await gateway?.stop();
  await api?.close();
});

const raw = (path: string, options?: RawRequest) => rawFrom(gateway, path, options);
const json = { "content-type": "application/json" };
const reasonOf = (body: string) => JSON.parse(body).message as string;

test("K27: no way of asking shows a masked Secret to whom it is masked for", async () => {
  const asks: readonly (readonly [path: string, options: RawRequest])[] = [
    ...[
      "",
      "*/*",
      "application/*",
      "application/cbor",
      "application/cbor-seq",
      "application/cbor, application/json",
      "application/vnd.kubernetes.protobuf, */*",
      "application/vnd.kubernetes.protobuf;stream=watch",
      "application/json;stream=watch",
      "application/json;as=Table;g=meta.k8s.io;v=v1beta1",
      "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
      "application/yaml",
      "application/yaml, application/json;q=0.1",
      "text/plain",
      "application/json;q=0, application/yaml;q=1",
    ].flatMap((accept): (readonly [string, RawRequest])[] => [
      [`${secrets}/s`, { headers: { accept } }],
      [secrets, { headers: { accept } }],
      [`${secrets}?watch=1&timeoutSeconds=1`, { headers: { accept, "accept-encoding": "gzip, br" } }],
    ]),
    [`${secrets}/s?pretty=true`, {}],
    [`${secrets}/s?watch=true`, {}],
    [`${secrets}/s`, { method: "HEAD" }],
    [`${secrets}?watch=0&watch=1&timeoutSeconds=1`, {}],
    [`${secrets}?watch&timeoutSeconds=1`, {}],
    [`${secrets}?watch=False&timeoutSeconds=1`, {}],
    [`${secrets}?watch=1&pretty=1&timeoutSeconds=1`, {}],
    [
      `${secrets}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1`,
      {},
    ],
    [`${secrets}?resourceVersion=0&resourceVersionMatch=NotOlderThan`, {}],
    [`${secrets}?resourceVersion=nonsense`, {}],
    [`${secrets}?limit=1`, {}],
    [`${secrets}?fieldSelector=metadata.name%3Ds`, {}],
    [`${secrets}?fieldSelector=data.password%3D${value}`, {}],
    [`${secrets}?labelSelector=of%3Dtest`, {}],
    [`/api/v1/watch/namespaces/default/secrets/s?timeoutSeconds=1`, {}],
    [`/api/v1/watch/secrets?timeoutSeconds=1`, {}],
    ["/api/v1/secrets", { headers: { accept: "application/json;as=Table;v=v1;g=meta.k8s.io" } }],
    [
      `/api/v1/secrets?includeObject=Object`,
      { headers: { accept: "application/json;as=Table;v=v1;g=meta.k8s.io" } },
    ],
    [`${secrets}/`, {}],
    [`/api/v1/namespaces/default/%73ecrets/s`, {}],
    [`//api/v1/namespaces/default/secrets/s`, {}],
    [`/api//v1/namespaces/default/secrets/s`, {}],
    [`/api/v1/namespaces/default/configmaps/..%2fsecrets/s`, {}],
    [`/api/v1/namespaces/default/configmaps/%2e%2e/secrets/s`, {}],
    [`/apis/core/v1/namespaces/default/secrets/s`, {}],
    [`/api/v2/namespaces/default/secrets/s`, {}],
    [`https://localhost${secrets}/s`, {}],
    [`${secrets}/s`, { method: "DELETE", headers: json, body: '{"dryRun":["All"]}' }],
    [`${secrets}/s?dryRun=All`, { method: "DELETE" }],
    [`${secrets}?dryRun=All&labelSelector=of%3Dtest`, { method: "DELETE" }],
    [`${secrets}/s`, { method: "OPTIONS" }],
    [`${secrets}/s`, { method: "PROPFIND" }],
    [`${secrets}/s`, { headers: { connection: "accept, x", "x-http-method-override": "GET" } }],
    [`${secrets}/s`, { headers: { range: "bytes=0-10" } }],
    [`${secrets}/s`, { headers: { "if-none-match": "*" } }],
  ];
  for (const user of ["mia", "max"]) {
    const answers = await Promise.all(
      asks.map(async ([path, options]) => ({ path, options, ...(await raw(path, { user, ...options })) })),
    );
    for (const { path, options, status, headers, body } of answers) {
      const said = [user, options.method ?? "GET", path, JSON.stringify(options.headers), status].join(" ");
      for (const form of forms) expect([said, body.includes(form)]).toEqual([said, false]);
      expect([said, headers["content-encoding"]]).toEqual([said, undefined]);
    }
  }
  expect((await raw(`${secrets}/s`)).body).toContain(forms[1]);
});

test("K27: HTTP/2 shows no more of a masked Secret than HTTP/1.1", async () => {
  const authorization = `Bearer ${gateway.token("mia")}`;
  for (const accept of ["application/json", "application/cbor", "application/vnd.kubernetes.protobuf, */*"]) {
    const { status, body } = await rawHttp2(gateway, { ":path": `${secrets}/s`, authorization, accept });
    expect(body.length + status).toBeGreaterThan(200);
    for (const form of forms) expect(body).not.toContain(form);
  }
});

test("K27: writing shows nothing of a masked Secret either, also where writes are allowed", async () => {
  const patch = (type: string, body: unknown, query = "") =>
    [
      `${secrets}/s${query}`,
      { method: "PATCH", headers: { "content-type": type }, body: JSON.stringify(body) },
    ] as const;
  const harmless = { metadata: { labels: { tried: "yes" } } };
  const apply = { apiVersion: "v1", kind: "Secret", metadata: { name: "s", labels: { a: "b" } } };
  const writes = [
    patch("application/merge-patch+json", harmless),
    patch("application/merge-patch+json", harmless, "?dryRun=All"),
    patch("application/strategic-merge-patch+json", harmless),
    patch("application/strategic-merge-patch+json", { data: { password: 5 } }),
    patch("application/apply-patch+yaml", apply, "?fieldManager=x&force=true"),
    patch(
      "application/apply-patch+yaml",
      { ...apply, data: { password: "YQ==" } },
      "?fieldManager=y&dryRun=All",
    ),
    patch("application/json-patch+json", [
      { op: "copy", from: "/data/password", path: "/metadata/annotations/x" },
    ]),
    patch("application/json-patch+json", [
      { op: "move", from: "/data/password", path: "/metadata/annotations/x" },
    ]),
    patch("application/json-patch+json", [{ op: "test", path: "/data/password", value: forms[1] }]),
    patch("APPLICATION/JSON-PATCH+JSON; charset=utf-8", [
      { op: "copy", from: "/data/password", path: "/metadata/annotations/x" },
    ]),
    [`${secrets}`, { method: "POST", headers: json, body: JSON.stringify({ ...apply, kind: "Secret" }) }],
    [
      `${secrets}?dryRun=All`,
      { method: "POST", headers: json, body: JSON.stringify({ metadata: { name: "n" } }) },
    ],
  ] as const;
  for (const user of ["mia", "max"]) {
    for (const [path, options] of writes) {
      const { status, body } = await raw(path, { user, ...options });
      for (const form of forms)
        expect([JSON.stringify(options), body.includes(form)]).toEqual([JSON.stringify(options), false]);
      const isPatch = options.method === "PATCH";
      if (isPatch && (user === "mia" || /json-patch/i.test(JSON.stringify(options.headers))))
        expect([path, JSON.stringify(options), status]).toEqual([path, JSON.stringify(options), 403]);
    }
  }
  const { metadata, data } = JSON.parse((await raw(`${secrets}/s`)).body);
  expect(metadata.annotations?.x).toBeUndefined();
  expect(data.password).toBe(forms[1]);
});

test("K27: columns, names and errors do not tell of a masked spec", async () => {
  const table = "application/json;as=Table;v=v1;g=meta.k8s.io";
  const replaced = {
    metadata: { name: "p" },
    spec: { containers: [{ name: "c", image: "x" }], nodeName: "n" },
  };
  const answers = [
    await raw(`${pods}?includeObject=Object`, { user: "mia", headers: { accept: table } }),
    await raw(`${pods}?watch=1&timeoutSeconds=1`, { user: "mia", headers: { accept: table } }),
    // The server tells who may not change a field what the field holds.
    await raw(`${pods}/p`, { user: "mia", method: "PUT", headers: json, body: JSON.stringify(replaced) }),
    await raw(`${pods}/p/ephemeralcontainers`, { user: "mia" }),
    await raw(`${pods}/p/status`, { user: "mia" }),
  ];
  for (const { body } of answers) expect(body).not.toContain("hidden-image");
  expect((await raw(`${pods}/p`)).body).toContain("hidden-image");
  // Whoever names no container is told which there are.
  const entered = (user: string) => {
    const head = `Host: localhost\r\nAuthorization: Bearer ${gateway.token(user)}\r\n${upgradeHead}`;
    return rawBytes(gateway, `GET ${pods}/two/exec?command=id&stdout=1 HTTP/1.1\r\n${head}\r\n`);
  };
  for (const [user, isTold] of [
    ["ana", true],
    ["mia", false],
  ] as const) {
    const { body } = await raw(`${pods}/two/log`, { user });
    expect([user, body.includes("[c other]")]).toEqual([user, isTold]);
    const answer = await entered(user);
    expect([user, answer]).toEqual([user, expect.stringMatching(/^HTTP\/1\.1 400 /)]);
    expect([user, answer.includes("[c other]")]).toEqual([user, isTold]);
  }
});

test("K27: no selector, no list of managed fields and no refusal tells of a masked spec", async () => {
  const selectors = [
    "spec.nodeName=",
    "spec.restartPolicy=Always",
    "metadata.name=p,spec.restartPolicy!=Never",
  ];
  for (const selector of selectors) {
    for (const [method, query] of [
      ["GET", ""],
      ["GET", "&watch=1&timeoutSeconds=1"],
      ["DELETE", "&dryRun=All"],
    ] as const) {
      const path = `${pods}?fieldSelector=${encodeURIComponent(selector)}${query}`;
      expect([path, (await raw(path, { user: "mia", method })).status]).toEqual([path, 403]);
    }
  }
  // Selectors of what is not masked go on.
  expect((await raw(`${pods}?fieldSelector=metadata.name%3Dp`, { user: "mia" })).status).toBe(200);
  const pod = JSON.parse((await raw(`${pods}/p`)).body);
  expect(JSON.stringify(pod.metadata.managedFields)).toContain('"f:spec"');
  expect((await raw(`${pods}/p`, { user: "mia" })).body).not.toContain("f:spec");
  // The server repeats what the object holds to whoever may not change it.
  const changed = JSON.stringify({ ...pod, spec: { ...pod.spec, restartPolicy: "Never" } });
  const told = async (user: string) =>
    raw(`${pods}/p`, { user, method: "PUT", headers: json, body: changed });
  expect((await told("ana")).body).toContain("RestartPolicy");
  const toMax = await told("max");
  expect([toMax.status, toMax.body.includes("RestartPolicy")]).toEqual([422, false]);
});

test("K27: no warning and no refusal of an admission policy tells of what is masked", async () => {
  await api.kubectl.apply([
    ...["quoted", "quoted-too"].map((name) => ({
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name },
      stringData: { password: value },
    })),
    ...(["Warn", "Deny"] as const).flatMap((action) => quotingPolicy(action)),
  ]);
  const named = { metadata: { labels: { quoted: "yes" } } };
  const asks = (name: string): readonly (readonly [string, RawRequest])[] => [
    [`${secrets}/${name}?dryRun=All`, { method: "DELETE" }],
    [`${secrets}?dryRun=All&labelSelector=none%3D${name}`, { method: "DELETE" }],
    ...["application/merge-patch+json", "application/strategic-merge-patch+json"].map(
      (type): readonly [string, RawRequest] => [
        `${secrets}/${name}?dryRun=All`,
        { method: "PATCH", headers: { "content-type": type }, body: JSON.stringify(named) },
      ],
    ),
  ];
  const told = async (user: string, [path, options]: readonly [string, RawRequest]) => {
    const { status, headers, body } = await raw(path, { user, ...options });
    return {
      status,
      text: `${body} ${String(headers.warning ?? "")}`,
      warning: String(headers.warning ?? ""),
    };
  };
  const of = (own: object) => ({
    headers: json,
    body: JSON.stringify({ apiVersion: "v1", kind: "Secret", metadata: { name: "s", ...own } }),
  });
  const [stale, other] = [of({ resourceVersion: "1" }), of({ uid: "another" })];
  const quotes = (text: string) => forms.some((form) => text.includes(form));
  const [remove, , patch] = asks("quoted");
  const [removed, , patched] = asks("quoted-too");
  if (!remove || !patch || !removed || !patched) throw new Error("no requests");
  // Policies come into force a little later; what they say the server itself tells whoever nothing is masked for.
  await waitFor("the policies", async () => {
    const [warned, denied] = [await told("ana", remove), await told("ana", removed)];
    return (quotes(warned.warning) && quotes(denied.text)) || undefined;
  });
  expect(quotes((await told("ana", patched)).text)).toBe(true);
  for (const user of ["mia", "max"])
    for (const one of [...asks("quoted"), ...asks("quoted-too")]) {
      const { text, status, warning } = await told(user, one);
      const said = [user, one[1].method, one[0], status];
      expect([...said, quotes(text)]).toEqual([...said, false]);
      expect([...said, warning.includes("ValidatingAdmissionPolicy")]).toEqual([...said, false]);
    }
  // That there was a warning, or which kind of refusal, is said.
  expect((await told("max", patch)).warning).toContain("could show what is masked for you");
  const refused = await told("max", patched);
  expect([refused.status, refused.text]).toEqual([422, expect.stringContaining('"reason":"Invalid"')]);
  expect((await told("max", [`${secrets}/none`, { method: "DELETE" }])).text).toContain(
    'secrets \\"none\\" not found',
  );
  for (const [conflicting, words] of [
    [[`${secrets}/s?uid=another`, { method: "DELETE" }], "does not match the UID in record"],
    [[`${secrets}/s?dryRun=All`, { ...stale, method: "PUT" }], "the object has been modified"],
    [[`${secrets}/s?dryRun=All`, { ...other, method: "PUT" }], "UID in precondition: another"],
  ] as const)
    expect((await told("max", conflicting)).text).toContain(words);
  await api.kubectl("delete", "validatingadmissionpolicies,validatingadmissionpolicybindings", "--all");
});

/** An admission policy whose words quote the password of the Secret `quoted`, or of the one it denies to change. */
function quotingPolicy(action: "Warn" | "Deny"): readonly object[] {
  const name = `quotes-${action.toLowerCase()}`;
  const quoted = "(object != null ? object : oldObject)";
  const rule = {
    apiGroups: [""],
    apiVersions: ["v1"],
    operations: ["UPDATE", "DELETE"],
    resources: ["secrets"],
  };
  return [
    {
      apiVersion: "admissionregistration.k8s.io/v1",
      kind: "ValidatingAdmissionPolicy",
      metadata: { name },
      spec: {
        failurePolicy: "Fail",
        matchConstraints: { resourceRules: [rule] },
        matchConditions: [
          { name: "one", expression: `request.name == "${action === "Warn" ? "quoted" : "quoted-too"}"` },
        ],
        validations: [
          { expression: "false", messageExpression: `"it holds " + string(${quoted}.data["password"])` },
        ],
      },
    },
    {
      apiVersion: "admissionregistration.k8s.io/v1",
      kind: "ValidatingAdmissionPolicyBinding",
      metadata: { name },
      spec: { policyName: name, validationActions: [action] },
    },
  ];
}

test("K27: a deletion is a dry run only where the server takes it for one", async () => {
  const kept = "/api/v1/namespaces/default/configmaps/kept";
  const all = "/api/v1/namespaces/default/configmaps?labelSelector=none%3Dx&dryRun=All";
  const remove = (path: string, body?: string) =>
    raw(path, { user: "deb", method: "DELETE", ...(body === undefined ? {} : { headers: json, body }) });
  // A server that gets options in a body does not look at the query.
  expect((await remove(`${kept}?dryRun=All`, "{}")).status).toBe(403);
  expect((await remove(`${kept}?dryRun=All`, '{"dryRun":[]}')).status).toBe(403);
  expect((await remove(`${kept}?dryRun=All`, '{"dryRun":["All"],"dryRun":[]}')).status).toBe(403);
  expect((await remove(`${kept}?dryRun=All`, "dryRun: [All]")).status).toBe(403);
  expect((await remove(all, '{"kind":"DeleteOptions","apiVersion":"v1"}')).status).toBe(403);
  expect((await remove(`${kept}?dryRun=All`)).status).toBe(200);
  expect((await remove(kept, '{"dryRun":["All"]}')).status).toBe(200);
  expect((await raw(kept)).status).toBe(200);
  // Taken as it is, the first of them deletes: the rule is needed.
  expect((await raw(`${kept}?dryRun=All`, { method: "DELETE", headers: json, body: "{}" })).status).toBe(200);
  expect((await raw(kept)).status).toBe(404);
  await api.kubectl.apply([
    { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "kept" }, data: { a: "b" } },
  ]);
});

test("K27: what may only be patched is not created by a server-side apply", async () => {
  const path = (name: string) => `/api/v1/namespaces/default/configmaps/${name}?fieldManager=deb&force=true`;
  const apply = (name: string, uid?: string) =>
    raw(path(name), {
      user: "deb",
      method: "PATCH",
      headers: { "content-type": "application/apply-patch+yaml" },
      body: JSON.stringify({
        apiVersion: "v1",
        kind: "ConfigMap",
        metadata: { name, uid },
        data: { c: "d" },
      }),
    });
  expect((await apply("new")).status).toBe(403);
  const { uid } = JSON.parse((await raw("/api/v1/namespaces/default/configmaps/kept")).body).metadata;
  expect((await apply("kept", uid)).status).toBe(200);
  expect((await apply("new", uid)).status).toBe(409);
});

test("K27: what may only be updated is not created by an update, where the server would create it", async () => {
  const limits = "/api/v1/namespaces/default/limitranges";
  const leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
  for (const [base, apiVersion, kind, spec] of [
    [limits, "v1", "LimitRange", { limits: [] }],
    [leases, "coordination.k8s.io/v1", "Lease", { holderIdentity: "a" }],
  ] as const) {
    const put = (user: string, name: string, own = {}) =>
      raw(`${base}/${name}`, {
        user,
        method: "PUT",
        headers: json,
        body: JSON.stringify({ apiVersion, kind, metadata: { name, namespace: "default", ...own }, spec }),
      });
    expect([kind, (await put("deb", "new")).status]).toEqual([kind, 403]);
    // The server itself creates it for whoever may create: the rule is needed.
    const made = await put("ana", "made");
    expect([kind, made.status]).toEqual([kind, 201]);
    const { uid, resourceVersion } = JSON.parse(made.body).metadata;
    expect([kind, (await put("deb", "made")).status]).toEqual([kind, 403]);
    expect([kind, (await put("deb", "made", { uid, resourceVersion })).status]).toEqual([kind, 200]);
    expect([kind, (await put("deb", "new", { uid })).status]).toEqual([kind, 409]);
    expect([kind, (await raw(`${base}/new`)).status]).toEqual([kind, 404]);
  }
});

test("K27: a node's own list of its pods is not shown to whom pods are masked", async () => {
  const path = "/api/v1/nodes/none/proxy/pods";
  expect((await raw(path, { user: "mia" })).status).toBe(406);
  expect((await raw(path)).status).toBe(404);
});

test("K6: a rule about a pod or a service is not got round by naming a port, or no container", async () => {
  for (const name of ["db", "db:80", "http:db:80", "https:db:", "HTTP:db:80", "x:db:80", "db:80:"]) {
    const { status } = await raw(`/api/v1/namespaces/default/services/${name}/proxy/`, { user: "deb" });
    expect([name, status === 403 || status === 400]).toEqual([name, true]);
  }
  for (const name of ["p", "p:80", "http:p:80"]) {
    const { status, body } = await raw(`${pods}/${name}/proxy/x`, { user: "deb", method: "POST" });
    expect([name, status, reasonOf(body)]).toEqual([
      name,
      403,
      expect.stringContaining("the database is closed"),
    ]);
  }
  const as = `Host: localhost\r\nAuthorization: Bearer ${gateway.token("deb")}\r\n`;
  for (const query of ["command=id", "command=id&container=", "command=id&container=c"]) {
    const answer = await rawBytes(gateway, `GET ${pods}/q/exec?${query} HTTP/1.1\r\n${as}${upgradeHead}\r\n`);
    expect(answer).toContain("the container is closed");
  }
});

test("K30: HTTP/2 methods that are words of a program are no methods", async () => {
  const authorization = `Bearer ${gateway.token("ana")}`;
  for (const method of ["constructor", "__proto__", "toString"]) {
    const { status } = await rawHttp2(gateway, { ":method": method, ":path": `${secrets}/s`, authorization });
    expect([method, status]).toEqual([method, 400]);
  }
});

test("K24: no header, in whatever form, speaks for somebody else", async () => {
  const review = JSON.stringify({ apiVersion: "authentication.k8s.io/v1", kind: "SelfSubjectReview" });
  const path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
  const lines = (extra: string, body = review) =>
    `POST ${path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${gateway.token("ana")}\r\n` +
    `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n${extra}\r\n${body}`;
  const tries = [
    "iMpErSoNaTe-UsEr: system:admin\r\nImpersonate-User: root\r\nimpersonate-group: system:masters\r\n",
    "Connection: close, Impersonate-User, authorization\r\nImpersonate-User: root\r\n",
    "Impersonate_User: root\r\nX_Remote_User: root\r\nX-Remote-Group: system:masters\r\nX-Remote-Extra-A: b\r\n",
    "Impersonate-Extra-Sallyport.Dev%2fsession: forged\r\nImpersonate-Uid: 0\r\n",
    "X-Forwarded-Client-Cert: Subject=system:admin\r\nSsl-Client-Verify: SUCCESS\r\nX-Client-Cert: x\r\n",
    "Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.eA, binary.k8s.io\r\n",
  ];
  for (const extra of tries) {
    const answer = await rawBytes(
      gateway,
      lines(`${extra.includes("Connection") ? "" : "Connection: close\r\n"}${extra}`),
    );
    expect(answer).toMatch(/^HTTP\/1\.1 201 /);
    const { userInfo } = JSON.parse(/\{.*\}/s.exec(answer)?.[0] ?? "").status;
    expect([extra, userInfo.username, userInfo.groups, userInfo.uid]).toEqual([
      extra,
      "local:ana",
      ["system:authenticated"],
      "ana",
    ]);
    expect(JSON.stringify(userInfo)).not.toMatch(/forged|root|masters/);
  }
  const twoTokens = await rawBytes(
    gateway,
    lines(`Authorization: Bearer ${gateway.token("mia")}\r\nConnection: close\r\n`),
  );
  expect(twoTokens).not.toContain("local:mia");
  const second = await rawHttp2(
    gateway,
    {
      ":method": "POST",
      ":path": path,
      authorization: `Bearer ${gateway.token("ana")}`,
      "content-type": "application/json",
      "impersonate-user": "root",
      "impersonate-group": ["system:masters", "a"],
    },
    review,
  );
  expect(JSON.parse(second.body).status.userInfo.username).toBe("local:ana");
});

test("K30: nothing hides behind a body, a trailer, a target or a second request", async () => {
  const as = `Host: localhost\r\nAuthorization: Bearer ${gateway.token("bob")}\r\n`;
  const hidden = `GET ${secrets}/s HTTP/1.1\r\n${as}\r\n`;
  const shown = await Promise.all(
    [
      `POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews HTTP/1.1\r\n${as}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nTrailer: Impersonate-User\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\nImpersonate-User: root\r\nAuthorization: Bearer x\r\n\r\n`,
      `GET /api HTTP/1.1\r\n${as}Content-Length: ${hidden.length}\r\nConnection: close\r\n\r\n${hidden}`,
      `GET http://localhost${secrets}/s HTTP/1.1\r\n${as}Connection: close\r\n\r\n`,
      `GET ${secrets}/s?x=1#/version HTTP/1.1\r\n${as}Connection: close\r\n\r\n`,
      `CONNECT localhost:443 HTTP/1.1\r\n${as}\r\n${hidden}`,
      `OPTIONS * HTTP/1.1\r\n${as}Connection: close\r\n\r\n`,
      `GET ${secrets}/s HTTP/1.0\r\n${as}\r\n`,
      `GET ${secrets}/s\r\n\r\n`,
      `GET /api HTTP/1.1\r\nAuthorization : Bearer x\r\n${as}Connection: close\r\n\r\n`,
      `GET /api HTTP/1.1\r\n${as}Transfer-Encoding:\x0bchunked\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`,
      `GET /api HTTP/1.1\r\n${as}Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\r\n${hidden}`,
      `GET ${pods}/p/exec?command=id HTTP/1.1\r\n${as}${upgradeHead}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`,
    ].map((text) => rawBytes(gateway, text)),
  );
  for (const answer of shown) {
    expect(answer).not.toContain(forms[1]);
    expect(answer.match(/HTTP\/1\.1 \d/g)?.length ?? 0).toBeLessThanOrEqual(1);
  }
});

/** A privileged pod in every dress; none of them may get past a rule on what it reaches. */
test("K25: a pod that reaches the node is found in twice-given members, other forms and side doors", async () => {
  const container = '{"name":"c","image":"i"}';
  const send = (path: string, body: string | Buffer, type = "application/json", method = "POST") =>
    raw(path, { method, headers: { "content-type": type }, body });
  const head = '"apiVersion":"v1","kind":"Pod","metadata":{"name":"twice"}';
  const message = (number: number, bytes: Buffer) =>
    Buffer.concat([Buffer.from([number * 8 + 2, bytes.length]), bytes]);
  // Field 2 written as 2 + 2^32, which a reader of 32 bits takes for 2.
  const cut = (bytes: Buffer) =>
    Buffer.concat([Buffer.from([0x92, 0x80, 0x80, 0x80, 0x80, 0x01, bytes.length]), bytes]);
  const main = Buffer.concat([message(1, Buffer.from("c")), message(2, Buffer.from("i"))]);
  const spec = Buffer.concat([message(2, main), Buffer.from([11 * 8, 1])]);
  const meta = message(1, message(1, Buffer.from("binary")));
  const object = (apiVersion: string, kind: string, raw: Buffer) => {
    const type = Buffer.concat([message(1, Buffer.from(apiVersion)), message(2, Buffer.from(kind))]);
    return Buffer.concat([Buffer.from("k8s\0"), message(1, type), message(2, raw)]);
  };
  const ephemeral = {
    spec: { ephemeralContainers: [{ name: "d", image: "i", securityContext: { privileged: true } }] },
  };
  const node = {
    spec: { nodeName: "n", hostPID: true, containers: [{ name: "debugger", image: "i" }] },
    metadata: { generateName: "node-debugger-" },
  };
  const protobuf = "application/vnd.kubernetes.protobuf";
  const tries = [
    send(
      pods,
      `{${head},"spec":{"hostNetwork":true,"containers":[${container}]},"spec":{"containers":[${container}]}}`,
    ),
    send(
      pods,
      `{${head},"spec":{"containers":[${container}],"securityContext":{"windowsOptions":{"hostProcess":true}}}}`,
    ),
    send(pods, object("v1", "Pod", Buffer.concat([meta, message(2, spec)])), protobuf),
    send(pods, object("v1", "Pod", Buffer.concat([meta, cut(spec)])), protobuf),
    send(pods, object("", "", Buffer.concat([meta, message(2, spec)])), protobuf),
    send(pods, "\xd9\xd9\xf7\xa0", "application/cbor"),
    send(pods, JSON.stringify(node)),
    send(`${pods}/p/ephemeralcontainers`, JSON.stringify(ephemeral), "application/merge-patch+json", "PATCH"),
    send(`${pods}/p/ephemeralcontainers`, JSON.stringify(ephemeral), "application/json", "PUT"),
    send(`${pods}/p/ephemeralcontainers`, JSON.stringify(ephemeral), "application/apply-patch+yaml", "PATCH"),
    send(
      `${pods}/p/ephemeralcontainers`,
      JSON.stringify([
        { op: "add", path: "/spec/ephemeralContainers", value: ephemeral.spec.ephemeralContainers },
      ]),
      "application/json-patch+json",
      "PATCH",
    ),
    send(`${pods}/p/ephemeralcontainers`, "spec: {}", "application/apply-patch+cbor", "PATCH"),
    send(
      `${pods}/p/status`,
      JSON.stringify({ spec: { hostIPC: true } }),
      "application/merge-patch+json",
      "PATCH",
    ),
    // A volume of type local is a folder of the node; a template may come as a revision of one.
    send("/api/v1/persistentvolumes", JSON.stringify({ spec: { local: { path: "/etc" } } })),
    send(
      "/api/v1/persistentvolumes",
      object("v1", "PersistentVolume", message(2, message(2, Buffer.from([0xa2, 0x01, 0])))),
      protobuf,
    ),
    send(
      "/apis/apps/v1/namespaces/default/controllerrevisions",
      object("apps/v1", "ControllerRevision", message(2, message(1, Buffer.from("{}")))),
      protobuf,
    ),
  ];
  for (const [at, { status, body }] of (await Promise.all(tries)).entries()) {
    expect([at, status, reasonOf(body)]).toEqual([
      at,
      403,
      expect.stringContaining("pods may not reach the node"),
    ]);
  }
  // Without the gateway the first of them is taken, and reaches the node: the rule is needed.
  const direct = `{${head},"spec":{"hostNetwork":true,"containers":[${container}]},"spec":{"containers":[${container}]}}`;
  await api.kubectl
    .withInput(direct, "create", "--validate=false", "--raw", `${pods}?dryRun=All`, "-f", "-")
    .then((text) => expect(JSON.parse(text).spec.hostNetwork).toBe(true));
});

test("K25: whom a debugging container looks into, and what its pod reaches, is known however it is asked for", async () => {
  const path = (pod: string) => `${pods}/${pod}/ephemeralcontainers`;
  const container = (name: string, target?: string) => ({ name, image: "i", targetContainerName: target });
  const debug = (pod: string, type: string, body: unknown, method = "PATCH") =>
    raw(path(pod), {
      user: "dot",
      method,
      headers: { "content-type": type },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
  const merge = "application/strategic-merge-patch+json";
  const steps = "application/json-patch+json";
  const adds = (...list: readonly object[]) => ({ spec: { ephemeralContainers: list } });
  const step = (at: string, value: unknown) => ({ op: "add", path: `/spec/ephemeralContainers${at}`, value });
  const fine = await debug("two", merge, adds(container("fine", "c")));
  expect([fine.status, fine.body]).toEqual([200, expect.stringContaining('"fine"')]);
  const whole = JSON.parse(fine.body);
  whole.spec.ephemeralContainers.push(container("later", "c"));
  expect((await debug("two", "application/json", whole, "PUT")).status).toBe(200);
  const refused: readonly (readonly [string, unknown, number])[] = [
    [merge, adds(container("a", "other")), 403],
    [merge, adds(container("a", "other"), container("b", "c")), 403],
    [merge, adds(container("a", "c"), container("b", "other")), 400],
    [merge, adds(container("a"), container("b", "c")), 400],
    [steps, [step("/-", container("a", "other"))], 403],
    [steps, [step("", [container("a", "other")])], 403],
    [steps, [step("/-", container("a")), step("/2/targetContainerName", "other")], 400],
    [steps, [step("/-", container("fine", "other")), step("/2/name", "a")], 403],
    [
      "application/apply-patch+yaml",
      "spec: {ephemeralContainers: [{name: a, targetContainerName: other}]}",
      403,
    ],
    ["application/apply-patch+yaml", adds(container("a", "other")), 403],
  ];
  for (const [type, body, status] of refused) {
    const said = [type, JSON.stringify(body)];
    expect([...said, (await debug("two", type, body)).status]).toEqual([...said, status]);
  }
  const other = { ...whole, spec: { ...whole.spec } };
  other.spec.ephemeralContainers = [...whole.spec.ephemeralContainers, container("a", "other")];
  expect((await debug("two", "application/json", other, "PUT")).status).toBe(403);
  expect((await raw(`${pods}/two`)).body).not.toContain('"targetContainerName":"other"');
  // What the pod reaches, the debugging container reaches too.
  const inside = await debug("node", merge, adds(container("a")));
  expect([inside.status, reasonOf(inside.body)]).toEqual([
    403,
    expect.stringContaining("nobody enters what reaches the node"),
  ]);
  // Where no rule asks what a body reaches, one that cannot be read is refused all the same.
  const unread = await raw(path("two"), {
    method: "PATCH",
    user: "mia",
    headers: { "content-type": "application/apply-patch+yaml" },
    body: "spec: {ephemeralContainers: [{name: a, targetContainerName: other}]}",
  });
  expect(unread.status).toBe(415);
});

test("K6: a Secret that is a token is no plain write, in whatever form it comes", async () => {
  const token = {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: "t", annotations: { "kubernetes.io/service-account.name": "default" } },
    type: "kubernetes.io/service-account-token",
  };
  const yaml =
    "apiVersion: v1\nkind: Secret\nmetadata: {name: t}\ntype: kubernetes.io/service-account-token\n";
  const twice = JSON.stringify(token).replace(/\}$/, ',"type":"Opaque"}').replace('"type"', '"type"');
  for (const [type, body] of [
    ["application/json", JSON.stringify(token)],
    ["application/json", twice],
    ["application/yaml", yaml],
    ["application/cbor", "\xd9\xd9\xf7\xa0"],
  ] as const) {
    const { status, body: said } = await raw(secrets, {
      user: "sam",
      method: "POST",
      headers: { "content-type": type },
      body,
    });
    expect([type, status, reasonOf(said)]).toEqual([
      type,
      403,
      expect.stringContaining("secrets is forbidden"),
    ]);
  }
  const plain = { ...token, type: "Opaque", metadata: { name: "fine" } };
  const made = await raw(secrets, {
    user: "sam",
    method: "POST",
    headers: json,
    body: JSON.stringify(plain),
  });
  expect(made.status).toBe(201);
});

test("K6: tokens, certificates and what else speaks for another are privilege, whoever may write", async () => {
  for (const [path, body] of [
    ["/api/v1/namespaces/default/serviceaccounts/default/token?dryRun=All", { spec: {} }],
    ["/apis/certificates.k8s.io/v1/certificatesigningrequests", { spec: {} }],
    ["/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {}],
    ["/api/v1/namespaces/default/pods/p/binding", {}],
    ["/api/v1/namespaces/default/services/s/proxy/", {}],
    ["/api/v1/nodes/n/proxy/exec/default/p/c", {}],
  ] as const) {
    const { status } = await raw(path, {
      user: "sam",
      method: "POST",
      headers: json,
      body: JSON.stringify(body),
    });
    expect([path, status]).toEqual([path, 403]);
  }
});

test("K31: a watch that policy denies, or hides more of, from now on ends, and others of the same connection go on", async () => {
  const of = (rest: string) => policy("wes", rest, "watchers");
  const session = rawHttp2Session(gateway, 60_000);
  await gateway.write("watchers.yaml", of("  profile: Admin"));
  const headers = { authorization: `Bearer ${gateway.token("wes")}`, accept: "application/json" };
  const watch = (path: string) => {
    const state = { text: "", isOver: false };
    const stream = session.stream({ ...headers, ":path": `${path}?watch=1&timeoutSeconds=120` });
    stream.setEncoding("utf8").on("data", (text: string) => {
      state.text += text;
    });
    stream
      .on("error", () => undefined)
      .on("close", () => {
        state.isOver = true;
      });
    return state;
  };
  try {
    await waitFor("the policy to let in", async () =>
      (await raw(secrets, { user: "wes" })).status === 200 ? true : undefined,
    );
    const [hidden, denied, kept] = [watch("/api/v1/configmaps"), watch(secrets), watch("/api/v1/namespaces")];
    const has = (state: { text: string }) => waitFor("events", async () => state.text !== "" || undefined);
    await Promise.all([has(hidden), has(denied), has(kept)]);
    const over = (state: { isOver: boolean }) => waitFor("its end", async () => state.isOver || undefined);
    await gateway.write(
      "watchers.yaml",
      of(`  profile: Admin
  rules:
  - name: no-secrets
    match: {objects: ["*:secrets"]}
    action: Deny`),
    );
    await over(denied);
    expect([hidden.isOver, kept.isOver]).toEqual([false, false]);
    await gateway.write(
      "watchers.yaml",
      of(`  profile: Admin
  masking:
  - {columns: ["core.configmaps.data"], with: Redact}`),
    );
    await over(hidden);
    await api.kubectl("create", "namespace", "seen-by-wes");
    await waitFor("what goes on", async () => kept.text.includes("seen-by-wes") || undefined);
    expect(kept.isOver).toBe(false);
  } finally {
    session.close();
    await gateway.write("watchers.yaml", "# nobody");
  }
});

test("K3: a denial over WebSocket and the SPDY that follows are one record; asking again is another", async () => {
  const as = `Host: localhost\r\nAuthorization: Bearer ${gateway.token("bob")}\r\n`;
  const path = `${pods}/p/exec?command=only-tried&stdout=true`;
  const spdy = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
  const idOf = (answer: string) => /\(([0-9a-f]{12})\)/.exec(answer)?.[1];
  const ids: (string | undefined)[] = [];
  for (let round = 0; round < 3; round += 1) {
    ids.push(idOf(await rawBytes(gateway, `GET ${path} HTTP/1.1\r\n${as}${upgradeHead}\r\n`)));
    ids.push(idOf(await rawBytes(gateway, `POST ${path} HTTP/1.1\r\n${as}${spdy}\r\n`)));
  }
  ids.push(idOf(await rawBytes(gateway, `POST ${path} HTTP/1.1\r\n${as}${spdy}\r\n`)));
  expect(ids).not.toContain(undefined);
  expect([ids[0] === ids[1], ids[2] === ids[3], ids[4] === ids[5], new Set(ids).size]).toEqual([
    true,
    true,
    true,
    4,
  ]);
  const records = async () => {
    const found = await run("grep", [
      "-rhc",
      '"kind":"command".*only-tried',
      gateway.recordingDir,
      "--include=*.journal",
    ]);
    return found.stdout
      .trim()
      .split("\n")
      .reduce((sum, count) => sum + Number(count), 0);
  };
  expect(
    await waitFor("the records", async () => ((await records()) >= 4 ? await records() : undefined)),
  ).toBe(4);
});

test.each(["GET", "POST"])(
  "K16: who asks for a denied exec by %s and leaves before the answer is recorded all the same",
  async (method) => {
    const head = `Host: localhost\r\nAuthorization: Bearer ${gateway.token("bob")}\r\n`;
    const spdy =
      "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
    const target = (round: number) => `${pods}/p/exec?command=left-by-${method}-${round}&stdout=true`;
    const rounds = Array.from({ length: 8 }, (_, round) => round);
    await Promise.all(
      rounds.map(async (round) => {
        const socket = connect({
          host: "localhost",
          port: gateway.port,
          ca: gateway.caPem,
          ALPNProtocols: ["http/1.1"],
        });
        socket.on("error", () => undefined);
        await once(socket, "secureConnect");
        const rest = method === "GET" ? upgradeHead : spdy;
        socket.end(`${method} ${target(round)} HTTP/1.1\r\n${head}${rest}\r\n`);
        socket.resume();
        await once(socket, "close");
      }),
    );
    await waitFor("a record of each", async () => {
      const text = (
        await run("grep", ["-rh", '"kind":"command"', gateway.recordingDir, "--include=*.journal"])
      ).stdout;
      return rounds.every((round) => text.includes(`left-by-${method}-${round}`)) || undefined;
    });
  },
);
