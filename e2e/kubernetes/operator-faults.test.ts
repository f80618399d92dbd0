/** What holds while parts fail or are replaced: two gateways, live sessions, and the parts ended one after the other. */
import { describe, expect, test } from "vitest";
import { accessPolicy, condition, gatewayAddresses, withoutOperators } from "./installed.ts";
import { clientPod, databasePassword } from "./objects.ts";
import { openOrders } from "./orders.ts";

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

const { scenario, service, psql, readers, resource, through, live } = openOrders("operator-faults", {
  sql: "CREATE TABLE secrets (word text); INSERT INTO secrets VALUES ('hidden');",
  objects: [noSecrets(), clientPod("third")],
});
const { namespace } = scenario;
const gateways = async () => {
  const flags = ["get", "pods", "-l", "sallyport.dev/gateway=orders", "-o"];
  const names = await scenario.kubectl(...flags, "jsonpath={.items[*].metadata.name}");
  return names.split(" ").filter(Boolean);
};

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
  await scenario.ready("pod/third");
  const { stderr } = await scenario.exec("third", "psql", direct, "-X", "-c", "SELECT 1");
  expect(stderr).toContain("timeout expired");
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
  const { stdout } = await scenario.exec("client", "sh", "-c", script, "sh", through());
  expect(stdout.match(/canceling statement due to user request/g)).toHaveLength(6);
}, 60_000);

test("limits hold at each of the two gateways", async () => {
  await scenario.apply(
    accessPolicy("counted", {
      resources: { names: ["orders"] },
      subjects: [{ user: "operator-faults:cleo" }],
      profile: "ReadOnly",
      limits: { rows: 1, concurrentSessions: 1 },
    }),
  );
  const addresses = await gatewayAddresses(scenario, "orders");
  expect(addresses).toHaveLength(2);
  for (const address of addresses) {
    const target = through("cleo", address);
    const lets = async () => (await psql("SELECT 1", target)).code === 0 || undefined;
    await scenario.eventually("the policy", lets);
    expect((await psql("SELECT n FROM generate_series(1, 2) AS n", target)).stderr).toContain("54G01");
    const session = live(target);
    expect(await session.ask("SELECT item FROM orders WHERE id = 1")).toBe("tea");
    expect((await psql("SELECT 1", target)).stderr).toContain("too many connections");
    await session.close();
    await scenario.eventually("room for another session", lets);
  }
});

test("a rolling update takes new pods first, ends sessions by drain, and clients come in all the while", async () => {
  const before = await gateways();
  const place = () =>
    scenario.kubectl(
      ...["get", "service", "orders-gateway", "-o"],
      "jsonpath={.metadata.uid} {.spec.clusterIP} {.spec.ports[*].port}",
    );
  const placed = await place();
  const session = live();
  expect(await session.ask("SELECT item FROM orders WHERE id = 1")).toBe("tea");
  const podTemplate = { annotations: { "example.com/rolled": "yes" } };
  await scenario.apply(resource({ placement: { mode: "Shared", replicas: 2, podTemplate } }));
  await scenario.eventually(
    "other pods",
    async () => {
      await scenario.eventually(
        "a connection",
        async () => (await psql("SELECT item FROM orders WHERE id = 1")).stdout === "tea\n" || undefined,
        { ms: 10_000 },
      );
      const now = await gateways();
      return (now.length === 2 && !now.some((name) => before.includes(name))) || undefined;
    },
    { ms: 90_000 },
  );
  await expect(session.ask("SELECT item FROM orders WHERE id = 1")).rejects.toThrow("57P01");
  // Whoever has resolved the name, or was given the address, goes on with it.
  expect(await place()).toBe(placed);
});

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
        const { stderr } = await psql("SELECT word FROM secrets", through("ana", address));
        expect(stderr).toContain("42501");
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

    await withoutOperators(scenario.cluster, async () => undefined);
    await scenario.kubectl("delete", "pod", ...(await gateways()));
    await scenario.ready("deployment/orders-gateway");
    await scenario.reachable("client", service, 5432);
    await deniedByBoth();
    expect((await psql("SELECT item FROM orders WHERE id = 1")).stdout).toBe("tea\n");
    await scenario.apply(noSecrets());
    await condition(scenario, "accesspolicy/no-secrets", "Accepted", "True");
  });
});
