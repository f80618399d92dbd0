/** What holds while parts fail or are replaced: two gateways, live sessions, and the parts ended one after the other. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LocalIssuer } from "../targets/tokens.ts";
import {
  accessPolicy,
  condition,
  gatewayAddresses,
  install,
  localProvider,
  protectedResource,
  systemNamespace,
} from "./installed.ts";
import { type LivePsql, livePsql } from "./live-psql.ts";
import { clientPod, database, databasePassword } from "./objects.ts";
import { openScenario } from "./scenario.ts";

const scenario = openScenario("operator-faults", { "sallyport.dev/protection": "enabled" });
const { namespace } = scenario;
const issuer = new LocalIssuer("operator-faults", `sallyport:${namespace}/orders`);
const service = `orders-gateway.${namespace}.svc`;
const open: LivePsql[] = [];
afterAll(async () => {
  await Promise.all(open.map((session) => session.close()));
});

const readers = (profile: string) =>
  accessPolicy("readers", {
    resources: { names: ["orders"] },
    subjects: [{ user: "operator-faults:ana" }],
    profile,
  });
const noSecrets = (cel?: string) =>
  accessPolicy("no-secrets", {
    resources: { names: ["orders"] },
    subjects: [{ user: "operator-faults:ana" }],
    profile: "None",
    rules: [
      {
        name: "no-secrets",
        match: cel === undefined ? { objects: ["public.secrets"] } : { cel },
        action: "Deny",
      },
    ],
  });

beforeAll(async () => {
  await install(scenario.cluster);
  await scenario.cluster.kubectl.apply([localProvider("operator-faults", issuer, "operator-faults")]);
  await scenario.apply(
    ...database(
      "orders",
      "CREATE TABLE orders (id int, item text); INSERT INTO orders VALUES (1, 'tea');" +
        "CREATE TABLE secrets (word text); INSERT INTO secrets VALUES ('hidden');",
    ),
    protectedResource("orders", "operator-faults", {
      placement: { mode: "Shared", replicas: 2 },
    }),
    readers("ReadOnly"),
    noSecrets(),
    clientPod("client", { ca: "orders-gateway-ca" }),
    clientPod("third"),
  );
  await scenario.ready("statefulset/orders", "deployment/orders-gateway", "pod/client", "pod/third");
  await condition(scenario, "protectedresource/orders", "Ready", "True");
  await scenario.reachable("client", service, 5432);
});

const through = (user: string) =>
  `host=${service} user=main dbname=postgres sslmode=verify-full sslrootcert=/ca/ca.crt ` +
  `connect_timeout=5 password=${issuer.token({ user })}`;
const psql = (sql: string, pod = "client", target = through("ana")) =>
  scenario.exec(pod, "psql", target, "-X", "-At", "-v", "VERBOSITY=verbose", "-c", sql);
const live = () => {
  const session = livePsql(scenario, "client", `live-${open.length}`, through("ana"));
  open.push(session);
  return session;
};
const names = async (selector: string, inNamespace = namespace) => {
  const flags = [
    "-n",
    inNamespace,
    "get",
    "pods",
    "-l",
    selector,
    "-o",
    "jsonpath={.items[*].metadata.name}",
  ];
  return (await scenario.cluster.kubectl(...flags)).split(" ").filter(Boolean);
};
const gateways = () => names("sallyport.dev/gateway=orders");
const operators = (replicas: number) =>
  scenario.cluster.kubectl(
    ...["-n", systemNamespace, "scale", "deployment/sallyport-operator", `--replicas=${replicas}`],
  );
const rolledOut = (workload: string) =>
  scenario.cluster.kubectl(...["-n", systemNamespace, "rollout", "status", workload, "--timeout=120s"]);

test("a gateway needs 90 MB at most while nobody is connected, and sessions fit into its default limit", async () => {
  const node = (await scenario.kubectl("get", "pods", "-o", "jsonpath={.items[0].spec.nodeName}")).trim();
  const megabytes = async () => {
    const path = `/api/v1/nodes/${node}/proxy/metrics/resource`;
    const text = await scenario.cluster.kubectl("get", "--raw", path);
    const line =
      /^container_memory_working_set_bytes\{container="sallyport-gateway",namespace="([^"]+)".*\} (\S+)/gm;
    const own = [...text.matchAll(line)]
      .filter(([, of]) => of === namespace)
      .map(([, , bytes]) => Number(bytes));
    return own.length === 2 ? own.map((bytes) => bytes / 1024 / 1024) : undefined;
  };
  const idle = await scenario.eventually("the kubelet's measurement", megabytes, { ms: 60_000 });
  console.log(`gateways at idle: ${idle.map((each) => each.toFixed(0)).join(" and ")} MB`);
  expect(Math.max(...idle)).toBeLessThanOrEqual(90);
  // The first statements are what used to end it: the parser is compiled, and the catalog is read.
  for (let at = 0; at < 12; at += 1) {
    const columns = Array.from({ length: 50 }, (_, column) => `${at * 50 + column} AS c${column}`).join(", ");
    expect((await psql(`SELECT item, ${columns} FROM orders`)).stdout).toContain("tea|");
  }
  const restarts = await scenario.kubectl(
    ...["get", "pods", "-l", "sallyport.dev/gateway=orders", "-o"],
    "jsonpath={.items[*].status.containerStatuses[*].restartCount}",
  );
  expect(restarts).toBe("0 0");
  const limits = await scenario.kubectl(
    ...["get", "deployment", "orders-gateway", "-o"],
    "jsonpath={.spec.template.spec.containers[0].resources.limits.memory}",
  );
  expect(limits).toBe("256Mi");
});

test("the database's port is closed to a third pod", async () => {
  const address = await scenario.kubectl("get", "pod", "orders-0", "-o", "jsonpath={.status.podIP}");
  const direct = `host=${address} user=postgres password=${databasePassword} dbname=postgres connect_timeout=3`;
  expect((await psql("SELECT 1", "third", direct)).stderr).toContain("timeout expired");
});

test("a changed policy reaches a session that is open", async () => {
  const session = live();
  expect(await session.ask("SELECT item FROM orders")).toBe("tea");
  expect(await session.ask("INSERT INTO orders VALUES (2, 'milk')")).toContain("42501");
  await scenario.apply(readers("ReadWrite"));
  await scenario.eventually("the new policy", async () => {
    const answer = await session.ask("INSERT INTO orders VALUES (2, 'milk')");
    return answer === "" || undefined;
  });
  await scenario.apply(readers("ReadOnly"));
  await scenario.eventually("the old policy", async () => {
    const answer = await session.ask("INSERT INTO orders VALUES (3, 'salt')");
    return answer.includes("42501") || undefined;
  });
  expect(await session.ask("SELECT count(*) > 1 FROM orders")).toBe("t");
});

test("a statement is cancelled, whichever of the two gateways the request reaches", async () => {
  // psql asks over a connection of its own, which the Service could lead to the gateway that does not hold the session.
  const script =
    'for at in 1 2 3 4 5 6; do ( psql "$1" -X -At -c "SELECT pg_sleep(15)" & ' +
    "sleep 3; kill -INT $!; wait $! ) 2>&1 & done; wait";
  const { stdout } = await scenario.exec("client", "sh", "-c", script, "sh", through("ana"));
  expect(stdout.match(/canceling statement due to user request/g)).toHaveLength(6);
}, 60_000);

test("a gateway's pod is deleted: clients connect again at once, and another takes its place", async () => {
  const [first = ""] = await gateways();
  await scenario.kubectl("delete", "pod", first, "--wait=false");
  for (let at = 0; at < 8; at += 1) {
    // Clients try again, as poolers do: the Service may lead to the old pod for a moment.
    await scenario.eventually(
      "a connection",
      async () => (await psql("SELECT item FROM orders WHERE id = 1")).stdout === "tea\n" || undefined,
      { ms: 10_000 },
    );
  }
  await scenario.ready("deployment/orders-gateway");
  // The old pod goes once its sessions are over.
  const gone = async () => !(await gateways()).includes(first) || undefined;
  expect(await scenario.eventually("the old pod is gone", gone, { ms: 60_000 })).toBe(true);
});

describe("a Deny policy that an edit breaks", () => {
  test("keeps denying in gateways that run, in new ones, and after the operator was restarted", async () => {
    const deniedByBoth = async () => {
      const addresses = await gatewayAddresses(scenario, "orders");
      expect(addresses).toHaveLength(2);
      for (const address of addresses) {
        const target = `${through("ana")} hostaddr=${address}`;
        expect((await psql("SELECT word FROM secrets", "client", target)).stderr).toContain("42501");
      }
    };
    await deniedByBoth();
    await scenario.apply(noSecrets("command.("));
    await condition(scenario, "accesspolicy/no-secrets", "Accepted", "False", "InvalidCel");
    await deniedByBoth();

    const old = await gateways();
    await scenario.kubectl("delete", "pod", ...old);
    await scenario.ready("deployment/orders-gateway");
    await scenario.reachable("client", service, 5432);
    await deniedByBoth();

    await operators(0);
    await scenario.cluster.kubectl(
      ...["-n", systemNamespace, "wait", "--for=delete", "pod", "--timeout=60s"],
      ...["-l", "app.kubernetes.io/component=operator"],
    );
    await operators(2);
    await rolledOut("deployment/sallyport-operator");
    await scenario.kubectl("delete", "pod", ...(await gateways()));
    await scenario.ready("deployment/orders-gateway");
    await scenario.reachable("client", service, 5432);
    await deniedByBoth();
    expect((await psql("SELECT item FROM orders WHERE id = 1")).stdout).toBe("tea\n");
    await scenario.apply(noSecrets());
    await condition(scenario, "accesspolicy/no-secrets", "Accepted", "True");
  });
});
