/** A Shared resource with an autoscaler follows its load: gateways come and go, and no session is the worse for it. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { condition, gatewayAddresses } from "./installed.ts";
import { metricsApi, startMetricsServer, stopMetricsServer } from "./metrics-server.ts";
import { openOrders } from "./orders.ts";

const [fewest, most] = [2, 3];
const autoscaling = { minReplicas: fewest, maxReplicas: most };
const { scenario, readers, psql, through, live } = openOrders("operator-autoscaling", {
  spec: { placement: { mode: "Shared", autoscaling } },
});
const { kubectl, eventually } = scenario;
/** A cluster that is not the tests' own looks less often, and waits five minutes before it takes a gateway away. */
const patience = { ms: 480_000, pauseMs: 500 };
const orders = "protectedresource/orders";
/** What the kind takes for meant where the resource says no other, in percent of what a gateway's container asks for. */
const targetUse = 70;
const rendered = "sallyport.dev/rendered";

interface Autoscaler {
  readonly status: {
    readonly currentReplicas?: number;
    readonly desiredReplicas: number;
    readonly currentMetrics?: readonly {
      readonly resource?: { readonly current: { readonly averageUtilization?: number } };
    }[];
  };
}
interface Placed {
  readonly metadata: {
    readonly annotations?: Readonly<Record<string, string>>;
    readonly managedFields: readonly {
      readonly manager: string;
      readonly fieldsV1: Readonly<Record<string, object>>;
    }[];
  };
  readonly spec: { readonly replicas: number };
}
interface Budget {
  readonly status: Readonly<Record<"currentHealthy" | "desiredHealthy" | "expectedPods", number>>;
}

const autoscaler = () => kubectl.json<Autoscaler>("hpa", "orders-gateway");
const placed = () => kubectl.json<Placed>("deployment", "orders-gateway", "--show-managed-fields");
const budget = async () => (await kubectl.json<Budget>("pdb", "orders-gateway")).status;
const gateways = async () =>
  JSON.parse(await kubectl("get", "protectedresource", "orders", "-o", "jsonpath={.status.gateways}"));

/** The processor use that the autoscaler steers by, in percent; undefined where it has none. */
const useIn = ({ status }: Autoscaler) => status.currentMetrics?.[0]?.resource?.current.averageUtilization;

/** Waits until the autoscaler has made it so many gateways, and all of them serve. */
async function settled(count: number): Promise<void> {
  let last = "";
  await eventually(
    `${count} gateways`,
    async () => {
      const { status } = await autoscaler();
      const now = JSON.stringify({ ...status, conditions: undefined });
      if (now !== last) console.log(now);
      last = now;
      const { desired, ready, current } = await gateways();
      return (
        (status.desiredReplicas === count && [desired, ready, current].every((n) => n === count)) || undefined
      );
    },
    patience,
  );
}

// A run that was killed left it.
beforeAll(() => stopMetricsServer(scenario.cluster));
afterAll(() => stopMetricsServer(scenario.cluster));

test("without metrics there are as many gateways as there must be, and the resource says why there will be no more", async () => {
  const own = await scenario.cluster.kubectl.try(undefined, "get", "apiservice", metricsApi);
  expect(own.code, "this scenario wants a cluster without a metrics API").not.toBe(0);
  await settled(fewest);
  await condition(scenario, orders, "Autoscaling", "False", "FailedGetResourceMetric", patience.ms);
  await condition(scenario, orders, "Ready", "True");
}, 600_000);

test("with metrics it scales up under load and down after it, by itself", async () => {
  await startMetricsServer(scenario.cluster);
  await condition(scenario, orders, "Autoscaling", "True", "Active", patience.ms);
  // What starting took is no load.
  await eventually(
    "gateways at rest",
    async () => (useIn(await autoscaler()) ?? targetUse) < targetUse || undefined,
    patience,
  );
  await settled(fewest);
  const before = await gatewayAddresses(scenario, "orders");
  expect(before).toHaveLength(fewest);

  const load = loaded();
  await settled(most);
  expect(useIn(await autoscaler())).toBeGreaterThan(targetUse);
  // The operator tells of them, lets a node drain take one at a time, and the new one knows what the others know.
  await condition(scenario, orders, "Ready", "True");
  await eventually("the budget to count them", async () => {
    const { currentHealthy, desiredHealthy, expectedPods } = await budget();
    return (currentHealthy === most && desiredHealthy === most - 1 && expectedPods === most) || undefined;
  });
  const addresses = await gatewayAddresses(scenario, "orders");
  const [added = ""] = addresses.filter((address) => !before.includes(address));
  expect(addresses).toHaveLength(most);
  const atAdded = through("ana", added);
  expect(await psql("SELECT item FROM orders", atAdded)).toEqual({ code: 0, stdout: "tea\n", stderr: "" });
  expect((await psql("DELETE FROM orders", atAdded)).stderr).toContain("42501");
  await scenario.apply(readers("ReadWrite"));
  await eventually("the policy at the new gateway", async () => {
    const { code } = await psql("UPDATE orders SET item = 'milk'", atAdded);
    return code === 0 || undefined;
  });

  // Whoever writes the Deployment again leaves the number alone, and has never claimed it.
  await kubectl("annotate", "deployment", "orders-gateway", `${rendered}-`);
  const written = await eventually("the operator to write the Deployment", async () => {
    const found = await placed();
    return found.metadata.annotations?.[rendered] === undefined ? undefined : found;
  });
  expect(written.spec.replicas).toBe(most);
  const claims = written.metadata.managedFields.filter(
    ({ fieldsV1 }) => "f:replicas" in (fieldsV1["f:spec"] ?? {}),
  );
  expect(claims.filter(({ manager }) => manager.includes("sallyport"))).toEqual([]);

  // Each gateway has a session when the load ends. Those of the one that goes are told, the others notice nothing.
  const sessions = addresses.map((address) => ({ address, session: live(through("ana", address)) }));
  for (const { session } of sessions) expect(await session.ask("SELECT item FROM orders")).toBe("milk");
  await load.end();
  await settled(fewest);
  const left = await eventually("a gateway to be gone", async () => {
    const now = await gatewayAddresses(scenario, "orders");
    return now.length === fewest ? now : undefined;
  });
  for (const { address, session } of sessions) {
    const answer = session.ask("SELECT item FROM orders");
    if (left.includes(address)) expect(await answer).toBe("milk");
    else await expect(answer).rejects.toThrow(/psql ended with.*57P01/s);
  }
  await condition(scenario, orders, "Ready", "True");
  await condition(scenario, orders, "Autoscaling", "True", "Active");
  expect((await budget()).expectedPods).toBe(fewest);
}, 1_500_000);

/** Statements without a pause through the Service, which leads all of them to one gateway; they end by themselves in the end. */
function loaded(): { readonly end: () => Promise<void> } {
  const statements = 'while [ -e /tmp/load ]; do echo "SELECT item FROM orders;"; done';
  const script = `: > /tmp/load; ${statements} | psql "$1" -X -q -At -v ON_ERROR_STOP=1 >/dev/null`;
  const running = scenario.exec(
    "client",
    "/bin/busybox",
    "timeout",
    "900",
    "sh",
    "-c",
    script,
    "sh",
    through(),
  );
  return {
    end: async () => {
      await scenario.exec("client", "/bin/busybox", "rm", "/tmp/load");
      // More gateways were nothing that it noticed.
      expect(await running).toEqual({ code: 0, stdout: "", stderr: "" });
    },
  };
}
