/** The gateway beside the database: injected by the webhook into pods of a StatefulSet that somebody else owns. */
import { expect, test } from "vitest";
import { controlDoor } from "./forwarded.ts";
import { condition, withoutOperators } from "./installed.ts";
import { clientPod, database, databasePassword } from "./objects.ts";
import { openOrders, ordersSql } from "./orders.ts";

const gatewayPassword = "what-the-sidecar-logs-in-with";
const placement = { mode: "Sidecar", podSelector: { matchLabels: { app: "orders" } } };
// The database's own pod reads the other secret: one that both used would be in both containers.
const credentials = [{ name: "main", secretRef: { name: "gateway-login" } }];
const orders = openOrders("operator-sidecar", {
  spec: { placement, credentials },
  setUp: async ({ scenario, resource, readers }) => {
    const role = `CREATE ROLE gateway LOGIN PASSWORD '${gatewayPassword}' IN ROLE pg_read_all_data;`;
    const objects = database("orders", ordersSql + role);
    await scenario.apply(
      ...objects.filter(({ kind }) => kind === "Service"),
      resource(),
      {
        ...{ apiVersion: "v1", kind: "Secret", metadata: { name: "gateway-login" } },
        stringData: { username: "gateway", password: gatewayPassword },
      },
      readers("ReadOnly"),
    );
    await condition(scenario, "protectedresource/orders", "Programmed", "False", "NoPods");
    await scenario.apply(...objects, clientPod("client", { ca: "orders-gateway-ca" }));
    await scenario.ready("statefulset/orders", "pod/client");
    await condition(scenario, "protectedresource/orders", "Ready", "True");
  },
});
const { scenario } = orders;
const { namespace } = scenario;
const target = `${orders.through()} port=15432`;
const psql = (sql: string, at = target) => orders.psql(sql, at);

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

test("O46 the gateway is first, a native sidecar, and alone with its token and secrets", async () => {
  const { spec } = await scenario.kubectl.json<Pod>("pod", "orders-0");
  expect(spec.initContainers[0]).toMatchObject({ name: "sallyport-gateway", restartPolicy: "Always" });
  const mounting = [...spec.initContainers, ...spec.containers].filter(({ volumeMounts = [] }) =>
    volumeMounts.some(({ name }) => name === "sallyport-identity" || name === "sallyport-upstream"),
  );
  expect(mounting.map(({ name }) => name)).toEqual(["sallyport-gateway"]);
});

test("psql works through the Service, and policy decides", async () => {
  await scenario.eventually("the Service to lead to the gateway", async () => {
    const { code } = await psql("SELECT 1");
    return code === 0 || undefined;
  });
  expect(await psql("SELECT item FROM orders")).toEqual({
    code: 0,
    stdout: "tea\n",
    stderr: "",
  });
  expect((await psql("DELETE FROM orders")).stderr).toContain("42501");
});

test("O52 the database's own port is closed, by name and by address", async () => {
  const address = await scenario.kubectl("get", "pod", "orders-0", "-o", "jsonpath={.status.podIP}");
  for (const host of ["orders", address]) {
    const direct = `host=${host} user=postgres password=${databasePassword} dbname=postgres connect_timeout=3`;
    expect((await psql("SELECT 1", direct)).stderr).toContain("timeout expired");
  }
});

test("O54 nobody steps into the pod, and no debugging container joins it", async () => {
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

test("O53 a server that trusts its own loopback is told apart from one that asks everybody for a password", async () => {
  const hba = "host all all 127.0.0.1/32 trust\nhost all all all scram-sha-256";
  await scenario.apply(
    orders.resource(
      {
        endpoint: { serviceRef: { name: "trusting", port: 5432 } },
        placement: { mode: "Sidecar", podSelector: { matchLabels: { app: "trusting" } } },
        credentials,
      },
      "trusting",
    ),
    ...database("trusting", "CREATE ROLE gateway LOGIN;", { hba }),
  );
  await condition(
    scenario,
    "protectedresource/trusting",
    "BypassProtected",
    "False",
    "LoopbackTrust",
    90_000,
  );
  await condition(scenario, "protectedresource/orders", "BypassProtected", "True", "Refused", 90_000);
}, 240_000);

test("O45 a pod with an earlier configuration is counted, and replaced only where the resource asks for it", async () => {
  const uid = () => scenario.kubectl("get", "pod", "orders-0", "-o", "jsonpath={.metadata.uid}");
  const outdated = async (count: number) => {
    const query = "jsonpath={.status.gateways.outdated}";
    await scenario.eventually(
      `${count} outdated`,
      async () =>
        (await scenario.kubectl("get", "protectedresource", "orders", "-o", query)) === String(count) ||
        undefined,
      { ms: 90_000 },
    );
  };
  const before = await uid();
  const changed = { ...placement, resources: { requests: { memory: "80Mi" }, limits: { memory: "300Mi" } } };
  await scenario.apply(orders.resource({ placement: changed, credentials }));
  await outdated(1);
  expect(await uid()).toBe(before);
  // Its gateway goes on: it is a true one, of yesterday.
  expect((await psql("SELECT item FROM orders")).stdout).toBe("tea\n");
  await scenario.apply(orders.resource({ placement: { ...changed, rolloutPolicy: "Evict" }, credentials }));
  await scenario.eventually(
    "another pod",
    async () => {
      const { code, stdout } = await scenario.kubectl.try(
        undefined,
        ...["get", "pod", "orders-0", "-o", "jsonpath={.metadata.uid}"],
      );
      return (code === 0 && stdout !== before) || undefined;
    },
    { ms: 90_000 },
  );
  await scenario.ready("statefulset/orders");
  await outdated(0);
  await scenario.eventually("psql to work", async () => (await psql("SELECT 1")).code === 0 || undefined);
}, 300_000);

test("O42 while the webhook is down a selected pod does not start without its gateway", async () => {
  await withoutOperators(scenario.cluster, async () => {
    const bare = clientPod("bare");
    const pod = { ...bare, metadata: { name: "bare", namespace, labels: { app: "orders" } } };
    const refused = await scenario.kubectl.try(JSON.stringify(pod), "create", "-f", "-");
    expect(refused.code).not.toBe(0);
    // Exec fails closed meanwhile; the break-glass group is not asked about.
    const rescuer = await scenario.cluster.user("rescuer", ["sallyport:break-glass", "system:masters"]);
    const argv = ["psql", target, "-X", "-At", "-c", "SELECT item FROM orders"];
    const served = await rescuer.try(undefined, "-n", namespace, "exec", "client", "--", ...argv);
    expect(served.stdout).toBe("tea\n");
    expect((await scenario.exec("client", "true")).code).not.toBe(0);
  });
});

test("O26 a namespace with a protected database in it goes without hanging", async () => {
  await scenario.cluster.kubectl("delete", "namespace", namespace, "--timeout=90s");
});
