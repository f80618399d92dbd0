/** The image runs in a pod as it is shipped, non-root and read-only, and is the only way to the database. */
import { beforeAll, expect, test } from "vitest";
import { createAuthority } from "../targets/certificates.ts";
import { localProvider } from "../targets/manifests.ts";
import { LocalIssuer } from "../targets/tokens.ts";
import { clientPod, database, databasePassword, standaloneGateway } from "./objects.ts";
import { openScenario } from "./scenario.ts";

const scenario = openScenario("standalone");
const { namespace } = scenario;
const issuer = new LocalIssuer("sallyport-test", `sallyport:${namespace}/shop`);
const direct = `host=db user=postgres password=${databasePassword} dbname=postgres connect_timeout=3`;

beforeAll(async () => {
  const authority = await createAuthority();
  const certificate = await authority.issue({
    commonName: "gateway",
    dnsNames: ["gateway"],
    usage: "server",
  });
  await scenario.apply(
    ...database("db", "CREATE TABLE orders (id int, item text); INSERT INTO orders VALUES (1, 'tea');"),
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: "gateway-tls" },
      type: "kubernetes.io/tls",
      stringData: { "tls.crt": certificate.certPem, "tls.key": certificate.keyPem },
    },
    { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "ca" }, data: { "ca.crt": authority.caPem } },
    { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "manifests" }, data: manifests() },
    ...standaloneGateway({
      name: "gateway",
      port: 15432,
      manifests: "manifests",
      secrets: ["db-credential", "gateway-tls"],
    }),
    clientPod("client", { ca: "ca" }),
  );
  await scenario.ready("statefulset/db", "deployment/gateway", "pod/client");
  await scenario.reachable("client", "db", 5432);
  await scenario.reachable("client", "gateway", 5432);
});

/** psql in the client's pod; `target` is a connection string. */
const psql = (target: string, sql: string) =>
  scenario.exec("client", "psql", target, "-X", "-At", "-v", "VERBOSITY=verbose", "-c", sql);
const through = (user: string) =>
  `host=gateway user=shop dbname=postgres sslmode=verify-full sslrootcert=/ca/ca.crt password=${issuer.token({ user })}`;

test("an allowed statement runs through the gateway's Service", async () => {
  expect(await psql(through("ana"), "SELECT item FROM orders")).toEqual({
    code: 0,
    stdout: "tea\n",
    stderr: "",
  });
});

test("a denied statement is refused with the policy's reason, and changes nothing", async () => {
  const refused = await psql(through("ana"), "DELETE FROM orders");
  expect(refused.code).not.toBe(0);
  expect(refused.stderr).toContain("42501");
  expect((await psql(through("ana"), "SELECT count(*) FROM orders")).stdout).toBe("1\n");
});

test("somebody whom no policy names gets nothing", async () => {
  const refused = await psql(through("mallory"), "SELECT 1");
  expect(refused.code).not.toBe(0);
});

test("the gateway runs as nobody's user, with no capability, on a file system that it cannot change", async () => {
  const script = `
    const { readFileSync, writeFileSync } = require("node:fs");
    let written = "yes";
    try { writeFileSync("/opt/sallyport/x", ""); } catch (error) { written = error.code; }
    const caps = /CapEff:\\s*(\\w+)/.exec(readFileSync("/proc/1/status", "utf8"))[1];
    console.log(JSON.stringify({ uid: process.getuid(), written, caps: parseInt(caps, 16) }));`;
  const { stdout } = await scenario.exec("deployment/gateway", "/usr/local/bin/node", "-e", script);
  expect(JSON.parse(stdout)).toEqual({ uid: 65532, written: "EROFS", caps: 0 });
});

test("a NetworkPolicy closes the database to all but the gateway", async () => {
  // First the way is open, or the refusal would prove nothing.
  expect(await psql(direct, "SELECT 1")).toEqual({ code: 0, stdout: "1\n", stderr: "" });
  await scenario.apply({
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: { name: "db" },
    spec: {
      podSelector: { matchLabels: { app: "db" } },
      policyTypes: ["Ingress"],
      ingress: [{ from: [{ podSelector: { matchLabels: { app: "gateway" } } }], ports: [{ port: 5432 }] }],
    },
  });
  const refused = await scenario.eventually("the database to be closed", async () => {
    const answer = await psql(direct, "SELECT 1");
    return answer.code === 0 ? undefined : answer;
  });
  expect(refused.stderr).toContain("timeout expired");
  const byAddress = await scenario.kubectl("get", "pod", "db-0", "-o", "jsonpath={.status.podIP}");
  expect((await psql(direct.replace("host=db", `host=${byAddress}`), "SELECT 1")).stderr).toContain(
    "timeout expired",
  );
  expect(await psql(through("ana"), "SELECT item FROM orders")).toEqual({
    code: 0,
    stdout: "tea\n",
    stderr: "",
  });
});

/** JSON is YAML, so the manifests need no YAML library. */
function manifests(): Record<string, string> {
  const apiVersion = "sallyport.dev/v1alpha1";
  const objects = {
    provider: localProvider(issuer),
    resource: {
      ...{ apiVersion, kind: "ProtectedResource", metadata: { name: "shop", namespace } },
      spec: {
        protocol: "postgres",
        endpoint: { host: "db", port: 5432 },
        listen: { port: 15432 },
        tls: { certificateRef: { name: "gateway-tls" }, upstream: { mode: "disable" } },
        credentials: [{ name: "shop", secretRef: { name: "db-credential" } }],
        identity: { providers: ["local"] },
      },
    },
    policy: {
      ...{ apiVersion, kind: "AccessPolicy", metadata: { name: "readers", namespace } },
      spec: {
        resources: { names: ["shop"] },
        subjects: [{ user: "local:ana" }],
        profile: "ReadOnly",
      },
    },
  };
  return Object.fromEntries(
    Object.entries(objects).map(([name, object]) => [`${name}.yaml`, JSON.stringify(object)]),
  );
}
