/** The chart comes, changes and goes, with objects of every sort there: nothing hangs, nothing is lost, nothing opens. */
import { beforeAll, expect, test } from "vitest";
import { condition, helm, install, systemNamespace } from "./installed.ts";
import type { LivePsql } from "./live-psql.ts";
import { clientPod, databasePassword } from "./objects.ts";
import { openOrders } from "./orders.ts";

const { scenario, psql, resource, live } = openOrders("operator-lifecycle");
const { namespace } = scenario;
let session: LivePsql;
/** A Session that was over before the chart said how long they stay. */
let earlier: Session | undefined;

beforeAll(async () => {
  session = live();
  expect(await session.ask("SELECT item FROM orders")).toBe("tea");
});

const gateways = () =>
  scenario.kubectl(
    "get",
    "pods",
    "-l",
    "sallyport.dev/gateway=orders",
    "-o",
    "jsonpath={.items[*].metadata.uid}",
  );
interface Session {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly ttlAfterFinished?: string };
  readonly status?: { readonly state?: string; readonly endedAt?: string };
}
const sessions = async () =>
  (await scenario.kubectl.json<{ readonly items: readonly Session[] }>("sessions")).items;
/** The object of a session that was refused something, and has ended. */
async function refusedSession(): Promise<Session> {
  const known = new Set((await sessions()).map(({ metadata }) => metadata.name));
  expect((await psql("DELETE FROM orders")).stderr).toContain("42501");
  return scenario.eventually("its Session", async () =>
    (await sessions()).find(({ metadata, status }) => status?.state === "Ended" && !known.has(metadata.name)),
  );
}
/** What the chart has in the whole cluster, but for the kinds, which stay. */
const clusterWide = async () => {
  const kinds =
    "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations," +
    "validatingadmissionpolicies,validatingadmissionpolicybindings";
  const flags = ["-l", "app.kubernetes.io/part-of=sallyport", "-o", "name"];
  return (await scenario.cluster.kubectl("get", kinds, ...flags)).trim().split("\n").filter(Boolean);
};
const uninstall = () => helm(scenario.cluster, "uninstall", "sallyport", "--wait", "--timeout", "90s");
const direct = async () => {
  const target = `host=orders user=postgres password=${databasePassword} dbname=postgres connect_timeout=3`;
  return (await psql("SELECT 1", target)).stderr;
};

test("O67 an upgrade changes the operator, and neither gateways nor sessions", async () => {
  const before = await gateways();
  earlier = await refusedSession();
  await install(scenario.cluster, "--set", "operator.logLevel=debug,sessions.ttlAfterFinished=5s");
  expect(await session.ask("SELECT item FROM orders")).toBe("tea");
  expect(await gateways()).toBe(before);
  await condition(scenario, "protectedresource/orders", "Ready", "True");
});

test("a Session goes once it is over for as long as the chart says; those from before keep their own time", async () => {
  const { metadata, spec } = await refusedSession();
  expect(spec.ttlAfterFinished).toBe("5s");
  let endedAt = Number.NaN;
  await scenario.eventually("it to be removed", async () => {
    const found = (await sessions()).find((one) => one.metadata.name === metadata.name);
    if (found?.status?.endedAt !== undefined) endedAt = Date.parse(found.status.endedAt);
    return found === undefined || undefined;
  });
  expect(Date.now() - endedAt).toBeGreaterThanOrEqual(5_000);
  const kept = (await sessions()).find((one) => one.metadata.name === earlier?.metadata.name);
  expect(kept).toMatchObject({ spec: { ttlAfterFinished: "24h" }, status: { state: "Ended" } });
});

test("uninstalled with resources there, it leaves them guarded: without a recorder nothing is let through", async () => {
  const before = await gateways();
  expect((await clusterWide()).length).toBeGreaterThan(0);
  await uninstall();
  expect(await clusterWide()).toEqual([]);
  // Gateways and what closes the ways around them belong to the resource, and stay with it.
  expect(await gateways()).toBe(before);
  await scenario.eventually("a refusal", async () => {
    return (await session.ask("SELECT item FROM orders")).includes("57P03") || undefined;
  });
  expect(await direct()).toContain("timeout expired");
  // Nobody is kept from starting pods by an operator that is gone.
  await scenario.apply(clientPod("later"));
  await scenario.ready("pod/later");
});

test("installed again, it takes over what is there, and the session goes on", async () => {
  const before = await gateways();
  await install(scenario.cluster);
  expect(await helm(scenario.cluster, "test", "sallyport", "--timeout", "90s")).toMatch(/Phase: +Succeeded/);
  await condition(scenario, "protectedresource/orders", "Ready", "True", undefined, 60_000);
  const goesOn = async () => (await session.ask("SELECT item FROM orders")) === "tea" || undefined;
  await scenario.eventually("the session to go on", goesOn, { ms: 60_000 });
  expect(await gateways()).toBe(before);
});

test("O68 resources that go after the operator, and before it, hang nowhere", async () => {
  await session.close();
  await uninstall();
  await scenario.kubectl("delete", "protectedresource", "orders", "--timeout=30s");
  await nothingLeft();
  await install(scenario.cluster);
  await scenario.apply(resource({ placement: { mode: "Shared", replicas: 1 } }));
  await condition(scenario, "protectedresource/orders", "Programmed", "True");
  await scenario.kubectl("delete", "protectedresource", "orders", "--timeout=30s");
  await uninstall();
  await nothingLeft();
  expect(await clusterWide()).toEqual([]);
  // Helm waits for the Deployment to go; its pods are collected after it.
  await scenario.eventually("no pod of the operator to be left", async () => {
    const left = await scenario.cluster.kubectl("-n", systemNamespace, "get", "pods", "-o", "name");
    return left.trim() === "" || undefined;
  });
  await scenario.cluster.kubectl("delete", "namespace", namespace, "--timeout=90s");
});

/** Garbage collection needs no operator. */
async function nothingLeft(): Promise<void> {
  const kinds = "deploy,svc,pdb,networkpolicy,sa,cm,pods";
  await scenario.eventually(
    "nothing to be left",
    async () => {
      const flags = ["-l", "sallyport.dev/resource=orders", "-o", "name"];
      return (await scenario.kubectl("get", kinds, ...flags)).trim() === "" || undefined;
    },
    { ms: 60_000 },
  );
}
