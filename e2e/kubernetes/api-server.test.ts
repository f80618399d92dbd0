/** What other tests take for granted of the API server that they start: rights, tokens, neighbours, and no remains. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiServer, serviceAccountIssuer, startApiServer } from "../cluster/api-server.ts";
import { startedAt, waitFor } from "../cluster/processes.ts";

let api: ApiServer;
beforeAll(async () => {
  api = await startApiServer({ controllerManager: true });
});
afterAll(() => api?.close());

const role = (name: string, verbs: readonly string[], subject: object) => [
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "Role",
    metadata: { name, namespace: "default" },
    rules: [{ apiGroups: [""], resources: ["configmaps"], verbs }],
  },
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "RoleBinding",
    metadata: { name, namespace: "default" },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name },
    subjects: [{ apiGroup: "rbac.authorization.k8s.io", ...subject }],
  },
];

test("users have the rights of their name and groups, and no others", async () => {
  await api.kubectl.apply([
    ...role("writer", ["get", "create"], { kind: "Group", name: "okta:writers" }),
    ...role("reader", ["get"], { kind: "User", name: "bob" }),
  ]);
  const [alice, bob] = [await api.user("alice", ["okta:writers"]), await api.user("bob")];
  const may = async (kubectl: typeof alice, verb: string) =>
    (await kubectl.try(undefined, "auth", "can-i", verb, "configmaps")).stdout.trim();
  expect([await may(alice, "create"), await may(alice, "get")]).toEqual(["yes", "yes"]);
  expect([await may(bob, "create"), await may(bob, "get")]).toEqual(["no", "yes"]);
  const refused = await bob.try(undefined, "create", "configmap", "mine");
  expect(refused.stderr).toContain('User "bob" cannot create resource "configmaps"');
});

test("a token of a service account is for its audience alone, and TokenReview says whose it is", async () => {
  const token = await api.serviceAccountToken("demo", "ci", ["control.sallyport.dev"]);
  const review = async (audiences: readonly string[]) => {
    const body = { apiVersion: "authentication.k8s.io/v1", kind: "TokenReview", spec: { token, audiences } };
    const argv = ["create", "-o", "json", "-f", "-"];
    return JSON.parse(await api.kubectl.withInput(JSON.stringify(body), ...argv)).status;
  };
  expect(await review(["control.sallyport.dev"])).toMatchObject({
    authenticated: true,
    user: { username: "system:serviceaccount:demo:ci" },
  });
  expect((await review(["another"])).authenticated).not.toBe(true);
  const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
  expect(claims.iss).toBe(serviceAccountIssuer);
});

test("the controller manager ends namespaces and collects what has lost its owner", async () => {
  await api.kubectl("create", "namespace", "short");
  await api.kubectl("create", "configmap", "inside", "--namespace", "short");
  await api.kubectl("delete", "namespace", "short", "--timeout=60s");
  const owner = JSON.parse(await api.kubectl("create", "configmap", "owner", "-o", "json"));
  await api.kubectl.apply([
    {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: {
        name: "owned",
        namespace: "default",
        ownerReferences: [{ apiVersion: "v1", kind: "ConfigMap", name: "owner", uid: owner.metadata.uid }],
      },
    },
  ]);
  await api.kubectl("delete", "configmap", "owner");
  await api.kubectl("wait", "--for=delete", "configmap/owned", "--timeout=60s");
});

test("two run side by side and know nothing of each other; what is written survives a crash", async () => {
  const other = await startApiServer();
  try {
    await other.kubectl("create", "namespace", "only-here");
    expect(await api.kubectl("get", "namespaces", "-o", "name")).not.toContain("only-here");
    await other.restart();
    expect(await other.kubectl("get", "namespaces", "-o", "name")).toContain("only-here");
  } finally {
    await other.close();
  }
  expect(existsSync(other.folder)).toBe(false);
});

test("nobody comes in without a certificate or a token", async () => {
  const status = await new Promise((resolve, reject) => {
    const asked = request(`${api.url}/api/v1/secrets`, { ca: api.caPem, agent: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    });
    asked.once("error", reject);
    asked.end();
  });
  expect(status).toBe(403);
});

test("what a killed test left is cleared by the next start", async () => {
  const source = join(import.meta.dirname, "../cluster/api-server.ts");
  const script = `import { startApiServer } from ${JSON.stringify(source)};
    const api = await startApiServer();
    console.log(api.folder);
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let printed = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    printed += text;
  });
  const folder = await waitFor("the other server", () => printed.trim() || undefined, { ms: 60_000 });
  child.kill("SIGKILL");
  await waitFor("its owner to end", () => startedAt(child.pid ?? 0) === undefined || undefined);
  expect(existsSync(folder)).toBe(true);
  await (await startApiServer()).close();
  expect(existsSync(folder)).toBe(false);
});
