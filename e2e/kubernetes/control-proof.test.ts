/** Who opens a control stream and who replays, on a real API server with tokens that it issued itself. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GatewayAuthenticator, type LivePod } from "@sallyport/operator/control";
import { type KubeClient, kubeClient, kubeconfigConnection } from "@sallyport/operator/kube";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { type ReplayServer, startReplayServer } from "../targets/replay-server.ts";

let api: ApiServer;
let client: KubeClient;
let authenticator: GatewayAuthenticator;
let folder: string;
let replay: ReplayServer;

const control = "control.sallyport.dev";
const recorder = "recorder.sallyport.dev";

beforeAll(async () => {
  api = await startApiServer();
  folder = await mkdtemp(join(tmpdir(), "sallyport-proof-"));
  const connection = await kubeconfigConnection({ file: api.kubeconfig });
  client = kubeClient({ connection });
  authenticator = new GatewayAuthenticator({ client, isGateway });
  await api.kubectl.apply([
    ...["shop", "system"].map((name) => ({ apiVersion: "v1", kind: "Namespace", metadata: { name } })),
    ...["gateway", "auditor", "nobody"].map((name) => account("shop", name)),
    account("system", "recorder"),
    bound("ClusterRole", "system:auth-delegator", "recorder", "system"),
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "Role",
      metadata: { name: "replay", namespace: "shop" },
      rules: [{ apiGroups: ["sallyport.dev"], resources: ["sessions/recording"], verbs: ["get"] }],
    },
    bound("Role", "replay", "auditor", "shop"),
    ...["gateway-1", "gateway-2"].map((name) => pod(name, { resource: "shop.db" })),
    pod("app-0", {}),
  ]);
  const token = join(folder, "token");
  await writeFile(token, await api.serviceAccountToken("system", "recorder"));
  const ca = join(folder, "ca.crt");
  await writeFile(ca, api.caPem);
  replay = await startReplayServer({ url: api.url, tokenFile: token, caFile: ca });
});
afterAll(async () => {
  await replay?.stop();
  client?.close();
  await api?.close();
  await rm(folder, { recursive: true, force: true });
});

test("a token bound to a gateway's pod opens a stream for that pod's resource", async () => {
  const found = await authenticator.authenticate(await token("gateway", [control], "gateway-1"));
  const uid = await api.kubectl("-n", "shop", "get", "pod", "gateway-1", "-o", "jsonpath={.metadata.uid}");
  expect(found).toMatchObject({
    kind: "gateway",
    resource: "shop/db",
    pod: { name: "gateway-1", uid: String(uid).trim() },
  });
});

test("the same service account and audience in another pod opens none", async () => {
  const found = await authenticator.authenticate(await token("gateway", [control], "app-0"));
  expect(found).toMatchObject({ kind: "refused", code: "notAGateway" });
});

test("a CI job's token, bound to no pod, opens none", async () => {
  const found = await authenticator.authenticate(await api.serviceAccountToken("shop", "gateway", [control]));
  expect(found).toMatchObject({ kind: "refused", code: "notAGateway" });
});

test("tokens for another audience, or for more than this one, open none", async () => {
  for (const audiences of [["sallyport:shop/db"], [], [control, "sallyport:shop/db"]]) {
    const found = await authenticator.authenticate(await token("gateway", audiences, "gateway-1"));
    expect(found).toMatchObject({ kind: "refused", code: "unauthenticated" });
  }
});

test("a token that was changed, or whose pod is gone, opens none", async () => {
  const good = await token("gateway", [control], "gateway-2");
  const [head = "", body = "", signature = ""] = good.split(".");
  const forged = `${head}.${body}.${signature.split("").reverse().join("")}`;
  expect(await authenticator.authenticate(forged)).toMatchObject({
    kind: "refused",
    code: "unauthenticated",
  });
  expect(await authenticator.authenticate(good)).toMatchObject({ kind: "gateway" });
  await api.kubectl("-n", "shop", "delete", "pod", "gateway-2", "--force", "--grace-period=0");
  expect(await authenticator.authenticate(good)).toMatchObject({ kind: "refused" });
});

test("who may get sessions/recording in the namespace replays, and nobody else", async () => {
  const path = "/v1/namespaces/shop/sessions";
  expect(await get(path, await api.serviceAccountToken("shop", "auditor", [recorder]))).toBe(200);
  expect(
    await get("/v1/namespaces/system/sessions", await api.serviceAccountToken("shop", "auditor", [recorder])),
  ).toBe(403);
  expect(await get(path, await api.serviceAccountToken("shop", "nobody", [recorder]))).toBe(403);
  // Meant for another door: a gateway's token, and one of the API server's own.
  expect(await get(path, await api.serviceAccountToken("shop", "auditor", [control]))).toBe(401);
  expect(await get(path, await api.serviceAccountToken("shop", "auditor"))).toBe(401);
  expect(await get(path, "not-a-token")).toBe(401);
  expect(await get(path, undefined)).toBe(401);
});

test("a right that is taken away is gone at the next question", async () => {
  const auditor = await api.serviceAccountToken("shop", "auditor", [recorder]);
  expect(await get("/v1/namespaces/shop/sessions/s-1/recording", auditor)).toBe(404);
  await api.kubectl("-n", "shop", "delete", "rolebinding", "auditor");
  let status = 404;
  // The authorizer follows its own watch.
  while (status !== 403) status = await get("/v1/namespaces/shop/sessions/s-1/recording", auditor);
});

/** In these tests a label names the resource that a pod was rendered for. */
function isGateway({ metadata }: LivePod) {
  const resource = metadata.labels?.resource?.replace(".", "/");
  return resource === undefined
    ? ({ kind: "foreign", message: "not rendered by the operator" } as const)
    : ({ kind: "gateway", resource } as const);
}

async function token(name: string, audiences: readonly string[], pod: string): Promise<string> {
  const flags = audiences.map((audience) => `--audience=${audience}`);
  const bound = ["--bound-object-kind=Pod", `--bound-object-name=${pod}`];
  return String(await api.kubectl("-n", "shop", "create", "token", name, ...flags, ...bound)).trim();
}

function get(path: string, bearer: string | undefined): Promise<number> {
  return new Promise((resolve, reject) => {
    const headers = bearer === undefined ? {} : { authorization: `Bearer ${bearer}` };
    const sent = request(
      { host: "127.0.0.1", port: replay.port, path, ca: replay.caPem, headers },
      (answer) => {
        answer.resume();
        resolve(answer.statusCode ?? 0);
      },
    );
    sent.on("error", reject);
    sent.end();
  });
}

const account = (namespace: string, name: string) => ({
  apiVersion: "v1",
  kind: "ServiceAccount",
  metadata: { name, namespace },
});

const pod = (name: string, labels: Readonly<Record<string, string>>) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, namespace: "shop", labels },
  spec: { serviceAccountName: "gateway", containers: [{ name: "one", image: "example.com/one:1" }] },
});

function bound(kind: "Role" | "ClusterRole", role: string, name: string, namespace: string) {
  return {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: kind === "Role" ? "RoleBinding" : "ClusterRoleBinding",
    metadata: { name, ...(kind === "Role" && { namespace }) },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind, name: role },
    subjects: [{ kind: "ServiceAccount", name, namespace }],
  };
}
