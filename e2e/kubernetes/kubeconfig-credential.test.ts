/** A gateway before another cluster: its credential is a kubeconfig, of which only what is inline and meant for it is used. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { stringify } from "yaml";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { createKubectl, type Kubectl, run } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { type KubernetesGateway, startKubernetesGateway } from "../targets/kubernetes-gateway.ts";

let api: ApiServer;
let gateway: KubernetesGateway;
let ana: Kubectl;
let token = "";

beforeAll(async () => {
  api = await startApiServer();
  const { hostname, port } = new URL(api.url);
  gateway = await startKubernetesGateway(api, {
    policies: `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: readers, namespace: default}
spec: {resources: {names: [cluster]}, subjects: [{user: "local:ana"}], profile: ReadOnly}
`,
    resource: {
      endpoint: { host: hostname, port: Number(port) },
      tls: { upstream: { mode: "verify-full" } },
      credentials: [{ name: "gateway", secretRef: { name: "other" } }],
    },
  });
  token = (await api.kubectl("create", "token", "gateway", "--namespace", "sallyport-gateway")).trim();
  await api.kubectl("create", "clusterrolebinding", "ana", "--clusterrole=cluster-admin", "--user=local:ana");
  ana = await gateway.user("ana");
});
afterAll(async () => {
  await gateway?.stop();
  await api?.close();
});

/** Puts a kubeconfig into the Secret; what its user and cluster hold beside is the test's. */
async function use(user: object, cluster: object = {}): Promise<void> {
  const kubeconfig = stringify({
    clusters: [
      {
        name: "c",
        cluster: {
          server: api.url,
          "certificate-authority-data": Buffer.from(api.caPem).toString("base64"),
          ...cluster,
        },
      },
    ],
    users: [{ name: "u", user }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    "current-context": "x",
  });
  const metadata = { name: "other", namespace: "default" };
  const secret = { apiVersion: "v1", kind: "Secret", metadata, stringData: { kubeconfig } };
  await gateway.write("secret.yaml", JSON.stringify(secret));
}

const works = async () => {
  let last = "";
  const ask = async () => {
    const { stdout, stderr } = await ana.try(undefined, "get", "namespaces", "-o", "name");
    last = stderr;
    return stdout.includes("namespace/default") || undefined;
  };
  await waitFor("the gateway to reach the API server", ask).catch((cause: unknown) => {
    throw new Error(`kubectl said: ${last}`, { cause });
  });
};
const failsOnce = async (text: string) => {
  let last = "";
  const ask = async () => {
    const { code, stderr } = await ana.try(undefined, "get", "namespaces");
    last = stderr;
    return code !== 0 && stderr.includes(text) ? stderr : undefined;
  };
  return waitFor(text, ask, { ms: 15_000 }).catch((cause: unknown) => {
    throw new Error(`kubectl said: ${last}`, { cause });
  });
};

test("its token and authorities lead to the API server, impersonating as ever", async () => {
  await use({ token });
  await works();
  expect(await ana("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")).toBe("local:ana");
});

test("one that would run a program, or is for another server, is not used, and quoted to nobody", async () => {
  await use({ token, exec: { apiVersion: "client.authentication.k8s.io/v1", command: "/bin/false" } });
  expect(await failsOnce("its user has exec")).not.toContain(token);
  await use({ token });
  await works();
  await use({ token }, { server: "https://attacker.example.com" });
  expect(await failsOnce("for another server")).not.toContain("attacker");
});

test("kubectl asks sallyport for the token, and sallyport says so when it has none", async () => {
  await use({ token });
  await works();
  const folder = await mkdtemp(join(tmpdir(), "sallyport-plugin-"));
  const [config, file, tokens] = ["config", "token", "tokens"].map((name) => join(folder, name)) as [
    ...[string, string, string],
  ];
  const program = join(import.meta.dirname, "../../cli/bin/sallyport.mjs");
  await writeFile(file, gateway.token("ana"), { mode: 0o600 });
  const written = await run(process.execPath, [
    ...[program, "kubeconfig", "--resource", "default/cluster", "--server", gateway.url],
    ...["--ca", gateway.caFile, "--token-file", file, "--kubeconfig", config],
    ...["--folder", tokens, "--command", program],
  ]);
  expect([written.code, written.stderr]).toEqual([0, ""]);
  const kubectl = createKubectl(api.kubectl.program, config);
  expect(await kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")).toBe("local:ana");
  await rm(tokens, { recursive: true });
  const { code, stderr } = await kubectl.try(undefined, "get", "namespaces");
  expect(code).not.toBe(0);
  expect(stderr).toContain("there is no token for default/cluster");
  await rm(folder, { recursive: true });
});
