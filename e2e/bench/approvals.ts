/** Approvals on an API server without a node: from a decision to its command's first answer, and what open ones cost the operator. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import {
  type KubeClient,
  kubeClient,
  kubeconfigConnection,
  resourceType,
  type UntypedObject,
} from "@sallyport/operator/kube";
import { waitFor } from "../cluster/processes.ts";
import { ApprovalCluster, approvalNamespace, approvalPolicy, asking } from "../targets/approval-cluster.ts";
import type { Row } from "./report.ts";

const latencyMsMax = 300;
const memoryMbMax = 50;
const approvals = resourceType<UntypedObject>("sallyport.dev/v1alpha1", "Approval", "approvals");

/** Measures both; `decisions` and `open` are how many of each. */
export async function heldCommands(decisions = 100, open = 1_000): Promise<Row[]> {
  const cluster = await ApprovalCluster.start({
    initSql: "CREATE TABLE held (n int)",
    objects: [
      approvalPolicy("prod", [asking("writes", ["write"], ["public.held"], { required: 1, timeout: "5m" })]),
    ],
  });
  const { kubeconfig } = await cluster.person("bob@example.com");
  const bob = kubeClient({ connection: await kubeconfigConnection({ file: kubeconfig }) });
  try {
    const latencies = await latenciesOf(cluster, bob, decisions);
    const bytes = await memoryOf(cluster, open);
    const sorted = latencies.toSorted((a, b) => a - b);
    const p95 = sorted[Math.ceil(sorted.length * 0.95) - 1] ?? Number.POSITIVE_INFINITY;
    const median = sorted[Math.ceil(sorted.length / 2) - 1] ?? Number.POSITIVE_INFINITY;
    const megabytes = bytes / 1024 / 1024;
    return [
      {
        work: "decision to the command's answer, p95",
        against: "limit",
        ratio: latencyMsMax / p95,
        atLeast: 1,
        detail: `${p95.toFixed(0)} ms; median ${median.toFixed(0)} ms; ${decisions} decisions, API server without a node`,
      },
      {
        work: `operator's heap for ${open} open Approvals`,
        against: "limit",
        ratio: memoryMbMax / Math.max(megabytes, 0.1),
        atLeast: 1,
        detail: `${megabytes.toFixed(1)} MB, after collection`,
      },
    ];
  } finally {
    bob.close();
    await cluster.close();
  }
}

/** From the patch that is sent to the answer in the client's hands: the server's own time is in it. */
async function latenciesOf(cluster: ApprovalCluster, bob: KubeClient, count: number): Promise<number[]> {
  const one = await cluster.connect();
  const known: string[] = [];
  const took: number[] = [];
  for (let n = 0; n < count; n++) {
    const outcome = one.client.query("INSERT INTO held VALUES (1)").then(() => performance.now());
    const name = await cluster.heldName(one, ...known);
    known.push(name);
    await waitFor("a request that can be decided", async () => {
      const found = await bob.find(approvals, { namespace: approvalNamespace, name });
      return JSON.stringify(found ?? {}).includes('"Validated"') || undefined;
    });
    const value = { approver: "bob@example.com", decision: "Approved" };
    const begun = performance.now();
    await bob.patch(
      approvals,
      { namespace: approvalNamespace, name },
      { kind: "json", operations: [{ op: "add", path: "/spec/decisions/-", value }] },
    );
    took.push((await outcome) - begun);
  }
  await one.client.end();
  return took;
}

/** What the heap of the operator's process grows by; everything else in it stands still meanwhile. */
async function memoryOf(cluster: ApprovalCluster, count: number): Promise<number> {
  const [operator] = cluster.operators;
  const [gateway] = cluster.gateways;
  if (operator === undefined || gateway === undefined) throw new Error("there is no operator");
  const pod = await cluster.api.kubectl(
    ...["-n", approvalNamespace, "get", gateway.pod, "-o", "jsonpath={.metadata.uid}"],
  );
  const before = heapUsed();
  for (let at = 0; at < count; at += 20) {
    const some = Array.from({ length: Math.min(20, count - at) }, (_, n) =>
      operator.client.create(approvals, openRequest(`open-${at + n}`, pod.trim())),
    );
    await Promise.all(some);
  }
  await waitFor(
    "all to be Pending",
    async () => {
      const selection = { namespace: approvalNamespace, fieldSelector: "status.phase=Pending" };
      return (await operator.client.list(approvals, selection)).items.length >= count || undefined;
    },
    { ms: 120_000, pauseMs: 500 },
  );
  return heapUsed() - before;
}

function heapUsed(): number {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  collect();
  collect();
  return process.memoryUsage().heapUsed;
}

/** A request as a gateway's: a command of some hundred characters. */
function openRequest(name: string, podUid: string): UntypedObject {
  return {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "Approval",
    metadata: { name, namespace: approvalNamespace, labels: { "sallyport.dev/gateway-pod": podUid } },
    spec: {
      request: {
        type: "Statement",
        requester: "alice@example.com",
        subject: "local:alice",
        subjectKind: "Human",
        resource: "orders",
        policies: [
          {
            kind: "AccessPolicy",
            policy: "prod",
            rule: "writes",
            ruleHash: `sha256:${"0".repeat(64)}`,
            required: 1,
          },
        ],
        command: `INSERT INTO held SELECT n FROM held WHERE n IN (${"1234567, ".repeat(60)}0)`,
        digest: `hmac-sha256:${"0".repeat(64)}`,
        sessionId: "s1",
        expiresAt: new Date(Date.now() + 3_600_000).toISOString(),
      },
      decisions: [],
    },
  };
}
