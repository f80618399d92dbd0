/** `kubectl apply` of a ProtectedResource and an AccessPolicy is all that a user does: psql works through the Service. */
import { beforeAll, describe, expect, test } from "vitest";
import { LocalIssuer } from "../targets/tokens.ts";
import { accessPolicy, condition, install, localProvider, protectedResource } from "./installed.ts";
import { clientPod, database, databasePassword } from "./objects.ts";
import { openScenario } from "./scenario.ts";

const scenario = openScenario("operator-shared", { "sallyport.dev/protection": "enabled" });
const { namespace } = scenario;
const issuer = new LocalIssuer("operator-shared", `sallyport:${namespace}/orders`);
const service = `orders-gateway.${namespace}.svc`;

beforeAll(async () => {
  await install(scenario.cluster);
  await scenario.cluster.kubectl.apply([localProvider("operator-shared", issuer, "operator-shared")]);
  await scenario.apply(
    ...database("orders", "CREATE TABLE orders (id int, item text); INSERT INTO orders VALUES (1, 'tea');"),
    protectedResource("orders", "operator-shared"),
    accessPolicy("readers", {
      resources: { names: ["orders"] },
      subjects: [{ user: "operator-shared:ana" }],
      profile: "ReadOnly",
    }),
    clientPod("client", { ca: "orders-gateway-ca" }),
  );
  await scenario.ready("statefulset/orders", "deployment/orders-gateway", "pod/client");
  await condition(scenario, "protectedresource/orders", "Ready", "True");
  await scenario.reachable("client", service, 5432);
});

const through = (user: string) =>
  `host=${service} user=main dbname=postgres sslmode=verify-full sslrootcert=/ca/ca.crt ` +
  `connect_timeout=5 password=${issuer.token({ user })}`;
const psql = (target: string, sql: string) =>
  scenario.exec("client", "psql", target, "-X", "-At", "-v", "VERBOSITY=verbose", "-c", sql);

test("an allowed statement runs, a denied one is refused with 42501", async () => {
  expect(await psql(through("ana"), "SELECT item FROM orders")).toEqual({
    code: 0,
    stdout: "tea\n",
    stderr: "",
  });
  const refused = await psql(through("ana"), "DELETE FROM orders");
  expect(refused.stderr).toContain("42501");
  expect((await psql(through("mallory"), "SELECT 1")).code).not.toBe(0);
});

test("the database is reached from nowhere but the gateway", async () => {
  const direct = `host=orders user=postgres password=${databasePassword} dbname=postgres connect_timeout=3`;
  expect((await psql(direct, "SELECT 1")).stderr).toContain("timeout expired");
});

test("nobody steps into the gateway's pods or the database's", async () => {
  for (const target of ["deployment/orders-gateway", "orders-0"]) {
    const result = await scenario.exec(target, "true");
    expect(result.code).not.toBe(0);
    expect(result.stderr).toMatch(/closed here|holds a gateway/);
  }
});

test("a refusal gives the session an object, and deleting that ends the connection", async () => {
  const argv = ["-c", "DELETE FROM orders", "-c", "\\! sleep 15", "-c", "SELECT 'still here'"];
  const session = scenario.exec("client", "psql", through("ana"), "-X", "-At", ...argv);
  const name = await scenario.eventually("the Session", async () => {
    const query = "jsonpath={.items[?(@.status.state=='Active')].metadata.name}";
    const [found] = (await scenario.kubectl("get", "sessions", "-o", query)).split(" ");
    return found || undefined;
  });
  const { spec } = await scenario.kubectl.json<{ spec: { subject: object; resource: string } }>(
    "session",
    name,
  );
  expect(spec).toMatchObject({ resource: "orders", subject: { user: "operator-shared:ana", kind: "Human" } });
  await scenario.kubectl("delete", "session", name);
  const { stdout } = await session;
  expect(stdout).not.toContain("still here");
});

test("a changed policy counts within seconds, for everybody", async () => {
  await scenario.apply(
    accessPolicy("readers", {
      resources: { names: ["orders"] },
      subjects: [{ user: "operator-shared:ana" }],
      profile: "ReadWrite",
    }),
  );
  await scenario.eventually("the new policy", async () => {
    const { code } = await psql(through("ana"), "INSERT INTO orders VALUES (2, 'milk')");
    return code === 0 || undefined;
  });
});

test("a missing secret is a condition, and making it is enough", async () => {
  await scenario.apply(
    protectedResource("late", "operator-shared", {
      endpoint: { serviceRef: { name: "orders", port: 5432 } },
      credentials: [{ name: "main", secretRef: { name: "late-login" } }],
      placement: { replicas: 1 },
    }),
  );
  await condition(scenario, "protectedresource/late", "CredentialsResolved", "False", "SecretMissing");
  const pods = ["get", "pods", "-l", "sallyport.dev/gateway=late", "-o", "jsonpath={.items[*].metadata.uid}"];
  const before = await scenario.kubectl(...pods);
  await scenario.apply({
    ...{ apiVersion: "v1", kind: "Secret", metadata: { name: "late-login" } },
    stringData: { username: "postgres", password: databasePassword },
  });
  // The kubelet looks at mounted secrets once a minute.
  await condition(scenario, "protectedresource/late", "Ready", "True", undefined, 180_000);
  expect(await scenario.kubectl(...pods)).toBe(before);
}, 300_000);

describe("while the operator is down", () => {
  const scale = (replicas: number) =>
    scenario.cluster.kubectl(
      ...["-n", "sallyport-system", "scale", "deployment/sallyport-operator", `--replicas=${replicas}`],
    );

  test("sessions go on, and the policy stays", async () => {
    await scale(0);
    await scenario.cluster.kubectl(
      ...["-n", "sallyport-system", "wait", "--for=delete", "pod", "--timeout=60s"],
      ...["-l", "app.kubernetes.io/component=operator"],
    );
    // Exec fails closed meanwhile; the break-glass group is not asked about.
    const rescuer = await scenario.cluster.user("rescuer", ["sallyport:break-glass", "system:masters"]);
    const ask = (sql: string) => {
      const argv = ["psql", through("ana"), "-X", "-At", "-v", "VERBOSITY=verbose", "-c", sql];
      return rescuer.try(undefined, "-n", namespace, "exec", "client", "--", ...argv);
    };
    expect(await ask("SELECT item FROM orders WHERE id = 1")).toEqual({
      code: 0,
      stdout: "tea\n",
      stderr: "",
    });
    expect((await ask("DROP TABLE orders")).stderr).toContain("42501");
    await scale(2);
    await scenario.cluster.kubectl(
      ...["-n", "sallyport-system", "rollout", "status", "deployment/sallyport-operator", "--timeout=90s"],
    );
  });
});

test("deleting the resource removes everything that was made for it", async () => {
  await scenario.kubectl("delete", "protectedresource", "orders", "--timeout=30s");
  await scenario.eventually("nothing to be left", async () => {
    const left = await scenario.kubectl(
      ...[
        "get",
        "deploy,svc,pdb,hpa,networkpolicy,sa,cm,pods",
        "-l",
        "sallyport.dev/resource=orders",
        "-o",
        "name",
      ],
    );
    return left.trim() === "" || undefined;
  });
});
