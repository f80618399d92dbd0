/** Many holds at once, on two gateways that are connected to two operators; one operator ends in the middle. */
import { type KubeClient, kubeClient, kubeconfigConnection, resourceType } from "@sallyport/operator/kube";
import { afterAll, beforeAll, expect, test } from "vitest";
import { waitFor } from "../cluster/processes.ts";
import { ApprovalCluster, approvalNamespace, approvalPolicy, asking } from "../targets/approval-cluster.ts";

const holds = process.env.SALLYPORT_E2E_FULL === undefined ? 40 : 200;
const approvals = resourceType("sallyport.dev/v1alpha1", "Approval", "approvals");

let cluster: ApprovalCluster;
let bob: KubeClient;

beforeAll(async () => {
  cluster = await ApprovalCluster.start({
    initSql: "CREATE TABLE many (n int)",
    settings: { max_connections: 500 },
    replicas: 2,
    operators: 2,
    objects: [
      approvalPolicy("prod", [asking("writes", ["write"], ["public.many"], { required: 1, timeout: "5m" })], {
        limits: { concurrentSessions: 400 },
      }),
    ],
  });
  const { kubeconfig } = await cluster.person("bob@example.com");
  bob = kubeClient({ connection: await kubeconfigConnection({ file: kubeconfig }) });
}, 240_000);
afterAll(async () => {
  bob?.close();
  await cluster?.close();
}, 60_000);

const decide = (name: string, decision: string) =>
  bob.patch(
    approvals,
    { namespace: approvalNamespace, name },
    {
      kind: "json",
      operations: [
        { op: "add", path: "/spec/decisions/-", value: { approver: "bob@example.com", decision } },
      ],
    },
  );

test("G1 G2 G7 each of them gets its own outcome, once, though an operator ends meanwhile", async () => {
  const held = await Promise.all(
    Array.from({ length: holds }, async (_, n) => {
      const one = await cluster.connect("alice", cluster.gateways[n % 2]);
      const outcome = one.client.query("INSERT INTO many VALUES ($1)", [n]).then(
        ({ rowCount }) => rowCount ?? 0,
        (error: { readonly code?: string }) => error.code ?? "",
      );
      return { n, outcome, name: await cluster.heldName(one) };
    }),
  );
  expect(new Set(held.map(({ name }) => name)).size).toBe(holds);
  await waitFor("all to be validated", async () => {
    const { items } = await bob.list(approvals, { namespace: approvalNamespace });
    const ready = items.filter((item) => JSON.stringify(item).includes('"Validated"'));
    return ready.length >= holds || undefined;
  });
  expect((await cluster.server.query("SELECT count(*)::int AS n FROM many"))[0]?.n).toBe(0);
  const half = holds / 2;
  for (const { n, name } of held.slice(0, half)) await decide(name, n % 4 === 0 ? "Denied" : "Approved");
  // Another takes its place; what its gateways hold is asked about again, and found.
  const [first] = cluster.operators;
  if (first === undefined) throw new Error("there is no operator");
  await cluster.stopOperator(first);
  await cluster.startOperator(first);
  for (const { n, name } of held.slice(half)) await decide(name, n % 4 === 0 ? "Denied" : "Approved");
  for (const { n, outcome } of held) expect(await outcome).toBe(n % 4 === 0 ? "42501" : 1);
  const rows = await cluster.server.query("SELECT n FROM many ORDER BY n");
  const wanted = held.map(({ n }) => n).filter((n) => n % 4 !== 0);
  expect(rows.map(({ n }) => n)).toEqual(wanted);
}, 180_000);
