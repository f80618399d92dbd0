/** The gateway beside the database: injected by the webhook into pods of a StatefulSet that somebody else owns. */
import { beforeAll, expect, test } from "vitest";
import { LocalIssuer } from "../targets/tokens.ts";
import { accessPolicy, condition, install, localProvider, protectedResource } from "./installed.ts";
import { clientPod, database, databasePassword } from "./objects.ts";
import { openScenario } from "./scenario.ts";

const scenario = openScenario("operator-sidecar", { "sallyport.dev/protection": "enabled" });
const { namespace } = scenario;
const issuer = new LocalIssuer("operator-sidecar", `sallyport:${namespace}/orders`);
const service = `orders-gateway.${namespace}.svc`;

beforeAll(async () => {
  await install(scenario.cluster);
  await scenario.cluster.kubectl.apply([localProvider("operator-sidecar", issuer, "operator-sidecar")]);
  const objects = database(
    "orders",
    "CREATE TABLE orders (id int, item text); INSERT INTO orders VALUES (1, 'tea');",
  );
  await scenario.apply(
    ...objects.filter(({ kind }) => kind === "Service"),
    protectedResource("orders", "operator-sidecar", {
      placement: { mode: "Sidecar", podSelector: { matchLabels: { app: "orders" } } },
      // The database's own pod reads the other secret: one that both used would be in both containers.
      credentials: [{ name: "main", secretRef: { name: "gateway-login" } }],
    }),
    {
      ...{ apiVersion: "v1", kind: "Secret", metadata: { name: "gateway-login" } },
      stringData: { username: "postgres", password: databasePassword },
    },
    accessPolicy("readers", {
      resources: { names: ["orders"] },
      subjects: [{ user: "operator-sidecar:ana" }],
      profile: "ReadOnly",
    }),
  );
  await condition(scenario, "protectedresource/orders", "Programmed", "False", "NoPods");
  await scenario.apply(...objects, clientPod("client", { ca: "orders-gateway-ca" }));
  await scenario.ready("statefulset/orders", "pod/client");
  await condition(scenario, "protectedresource/orders", "Ready", "True");
});

const through = (user: string) =>
  `host=${service} port=15432 user=main dbname=postgres sslmode=verify-full sslrootcert=/ca/ca.crt ` +
  `connect_timeout=5 password=${issuer.token({ user })}`;
const psql = (target: string, sql: string) =>
  scenario.exec("client", "psql", target, "-X", "-At", "-v", "VERBOSITY=verbose", "-c", sql);

interface Container {
  readonly name: string;
  readonly restartPolicy?: string;
  readonly volumeMounts?: readonly { readonly name: string }[];
}
interface Pod {
  readonly spec: {
    readonly initContainers: readonly Container[];
    readonly containers: readonly Container[];
  };
}

test("the gateway is first, a native sidecar, and alone with its token and secrets", async () => {
  const { spec } = await scenario.kubectl.json<Pod>("pod", "orders-0");
  expect(spec.initContainers[0]).toMatchObject({ name: "sallyport-gateway", restartPolicy: "Always" });
  const mounting = [...spec.initContainers, ...spec.containers].filter(({ volumeMounts = [] }) =>
    volumeMounts.some(({ name }) => name === "sallyport-identity" || name === "sallyport-upstream"),
  );
  expect(mounting.map(({ name }) => name)).toEqual(["sallyport-gateway"]);
});

test("psql works through the Service, and policy decides", async () => {
  await scenario.eventually("the Service to lead to the gateway", async () => {
    const { code } = await psql(through("ana"), "SELECT 1");
    return code === 0 || undefined;
  });
  expect(await psql(through("ana"), "SELECT item FROM orders")).toEqual({
    code: 0,
    stdout: "tea\n",
    stderr: "",
  });
  expect((await psql(through("ana"), "DELETE FROM orders")).stderr).toContain("42501");
});

test("the database's own port is closed, by name and by address", async () => {
  const address = await scenario.kubectl("get", "pod", "orders-0", "-o", "jsonpath={.status.podIP}");
  for (const host of ["orders", address]) {
    const direct = `host=${host} user=postgres password=${databasePassword} dbname=postgres connect_timeout=3`;
    expect((await psql(direct, "SELECT 1")).stderr).toContain("timeout expired");
  }
});

test("nobody steps into the pod, and no debugging container joins it", async () => {
  const exec = await scenario.exec("orders-0", "true");
  expect(exec.stderr).toContain("closed here");
  const debug = await scenario.kubectl.try(
    undefined,
    ...["debug", "orders-0", "--image=busybox", "--profile=restricted", "--", "true"],
  );
  expect(debug.stderr).toContain("no debugging containers");
});

test("while the webhook is down a selected pod does not start without its gateway", async () => {
  const scale = (replicas: number) =>
    scenario.cluster.kubectl(
      ...["-n", "sallyport-system", "scale", "deployment/sallyport-operator", `--replicas=${replicas}`],
    );
  await scale(0);
  try {
    await scenario.cluster.kubectl(
      ...["-n", "sallyport-system", "wait", "--for=delete", "pod", "--timeout=60s"],
      ...["-l", "app.kubernetes.io/component=operator"],
    );
    const bare = clientPod("bare");
    const pod = { ...bare, metadata: { name: "bare", namespace, labels: { app: "orders" } } };
    const refused = await scenario.kubectl.try(JSON.stringify(pod), "create", "-f", "-");
    expect(refused.code).not.toBe(0);
    // Exec fails closed meanwhile; the break-glass group is not asked about.
    const rescuer = await scenario.cluster.user("rescuer", ["sallyport:break-glass", "system:masters"]);
    const argv = ["psql", through("ana"), "-X", "-At", "-c", "SELECT item FROM orders"];
    const served = await rescuer.try(undefined, "-n", namespace, "exec", "client", "--", ...argv);
    expect(served.stdout).toBe("tea\n");
    expect((await scenario.exec("client", "true")).code).not.toBe(0);
  } finally {
    await scale(2);
    await scenario.cluster.kubectl(
      ...["-n", "sallyport-system", "rollout", "status", "deployment/sallyport-operator", "--timeout=90s"],
    );
  }
});

test("a namespace with a protected database in it goes without hanging", async () => {
  await scenario.cluster.kubectl("delete", "namespace", namespace, "--timeout=90s");
});
