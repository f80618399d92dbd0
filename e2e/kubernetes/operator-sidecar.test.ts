/** The gateway beside the database: injected by the webhook into pods of a StatefulSet that somebody else owns. */
import { beforeAll, expect, test } from "vitest";
import { LocalIssuer } from "../targets/tokens.ts";
import { controlDoor } from "./forwarded.ts";
import { accessPolicy, condition, install, localProvider, protectedResource } from "./installed.ts";
import { clientPod, database, databasePassword } from "./objects.ts";
import { openScenario } from "./scenario.ts";

const scenario = openScenario("operator-sidecar", { "sallyport.dev/protection": "enabled" });
const { namespace } = scenario;
const issuer = new LocalIssuer("operator-sidecar", `sallyport:${namespace}/orders`);
const gatewayPassword = "what-the-sidecar-logs-in-with";
const service = `orders-gateway.${namespace}.svc`;

beforeAll(async () => {
  await install(scenario.cluster);
  await scenario.cluster.kubectl.apply([localProvider("operator-sidecar", issuer, "operator-sidecar")]);
  const objects = database(
    "orders",
    "CREATE TABLE orders (id int, item text); INSERT INTO orders VALUES (1, 'tea');" +
      `CREATE ROLE gateway LOGIN PASSWORD '${gatewayPassword}' IN ROLE pg_read_all_data;`,
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
      stringData: { username: "gateway", password: gatewayPassword },
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

test("who runs code in the application's container finds no token, secret or control stream of the gateway's", async () => {
  // Break-glass stands for somebody who has taken over the database's own process.
  const rescuer = await scenario.cluster.user("rescuer", ["sallyport:break-glass", "system:masters"]);
  const inside = async (script: string) => {
    const flags = ["-n", namespace, "exec", "orders-0", "-c", "postgres", "--", "sh", "-c", script];
    const { stdout, stderr } = await rescuer.try(undefined, ...flags);
    return { stdout, stderr };
  };
  // Files: neither where the gateway has them, nor by another mount.
  const files = await inside(
    "cut -d' ' -f2 /proc/mounts; ls -R /var/run/secrets /run/secrets; ls /var/lib/sallyport",
  );
  expect(files.stdout).toMatch(/^\/data$/m);
  expect(files.stdout).not.toMatch(/sallyport|token|serviceaccount/);
  // Processes: the gateway is not among them, so neither are its files by /proc/PID/root nor its environment.
  const processes = await inside(
    "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; tr '\\0' ' ' < $p/environ; ls $p/root/var/run/secrets; done",
  );
  expect(processes.stdout).toContain("postgres");
  expect(processes.stdout).not.toMatch(/sallyport|SALLYPORT|\/opt\/sallyport/);
  expect(processes.stdout).not.toContain(gatewayPassword);
  // The network that both share: what the gateway serves beside its port holds no secret and takes no orders.
  const ports = await inside(
    "for p in metrics healthz readyz policy token secrets; do wget -q -O - http://127.0.0.1:9464/$p; done",
  );
  expect(ports.stdout).toContain("sallyport_");
  expect(ports.stdout).not.toContain(gatewayPassword);
  expect(ports.stdout).not.toMatch(/eyJ[\w-]+\.eyJ|PRIVATE KEY|AccessPolicy/);
  // Even a token of the pod's own account opens no stream: it is not of the gateways' audience, and none is handed out.
  const account = await scenario.kubectl(
    "get",
    "pod",
    "orders-0",
    "-o",
    "jsonpath={.spec.serviceAccountName}",
  );
  const ofThisPod = ["create", "token", account, "--bound-object-kind=Pod", "--bound-object-name=orders-0"];
  const refused = await scenario.kubectl.try(undefined, ...ofThisPod, "--audience=control.sallyport.dev");
  expect(refused.stderr).toContain("not handed out");
  const authorities = ["get", "configmap", "orders-gateway-ca", "-o", "jsonpath={.data.ca\\.crt}"];
  const door = await controlDoor(scenario, await scenario.kubectl(...authorities));
  try {
    const token = (await scenario.kubectl(...ofThisPod)).trim();
    expect(await door.knock(token)).toMatchObject({ kind: "refused", code: "unauthenticated" });
  } finally {
    door.close();
  }
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
