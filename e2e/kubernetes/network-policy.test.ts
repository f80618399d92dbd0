/** That the cluster enforces NetworkPolicy at all: a scenario that proves a closed port proves nothing without it. */
import { beforeAll, expect, test } from "vitest";
import { clientPod, database } from "./objects.ts";
import { openScenario } from "./scenario.ts";

const scenario = openScenario("network-policy", { team: "shop" });

beforeAll(async () => {
  await scenario.apply(...database("db", ""), clientPod("near"), clientPod("far"));
  await scenario.ready("statefulset/db", "pod/near", "pod/far");
  for (const pod of ["near", "far"]) await scenario.reachable(pod, "db", 5432);
});

const policy = (name: string, spec: object) =>
  scenario.apply({ apiVersion: "networking.k8s.io/v1", kind: "NetworkPolicy", metadata: { name }, spec });
const remove = (...names: readonly string[]) => scenario.kubectl("delete", "networkpolicy", ...names);
const answers = async (from: string, host: string, port = 5432) =>
  (await scenario.exec(from, "nc", "-w", "1", host, String(port))).code === 0;

/** Policies are in force some moments after they are applied. */
const becomes = (wanted: boolean, from: string, host: string) =>
  scenario.eventually(`${host} to be ${wanted ? "open" : "closed"} for ${from}`, async () =>
    (await answers(from, host)) === wanted ? true : undefined,
  );

test("a policy without rules closes its pods, and a second one opens them to whom it names", async () => {
  await policy("closed", { podSelector: { matchLabels: { app: "db" } } });
  await becomes(false, "near", "db");
  await policy("near", {
    podSelector: { matchLabels: { app: "db" } },
    ingress: [{ from: [{ podSelector: { matchLabels: { app: "near" } } }], ports: [{ port: "postgres" }] }],
  });
  await becomes(true, "near", "db");
  expect(await answers("far", "db")).toBe(false);
  await remove("closed", "near");
  await becomes(true, "far", "db");
});

test("a closed way out leaves names resolvable where DNS is allowed, and nothing else", async () => {
  await policy("out", {
    podSelector: { matchLabels: { app: "far" } },
    policyTypes: ["Egress"],
    egress: [
      {
        to: [{ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "kube-system" } } }],
        ports: [
          { protocol: "UDP", port: 53 },
          { protocol: "UDP", port: 1053 },
        ],
      },
    ],
  });
  await becomes(false, "far", "db");
  const refused = await scenario.exec("far", "psql", "host=db user=postgres connect_timeout=2");
  expect(refused.stderr).toContain("timeout expired");
  expect(refused.stderr).not.toContain("could not translate host name");
  // The API server is the node's own: closed like everything else.
  expect(await answers("far", "kubernetes.default", 443)).toBe(false);
  expect(await answers("near", "kubernetes.default", 443)).toBe(true);
  expect(await answers("near", "db")).toBe(true);
  await remove("out");
  await becomes(true, "far", "db");
});

test("a new pod is closed by a policy that was there before it", async () => {
  await policy("late", { podSelector: { matchLabels: { app: "late" } }, policyTypes: ["Egress"] });
  await scenario.apply(clientPod("late"));
  await scenario.ready("pod/late");
  const address = await scenario.kubectl("get", "service", "db", "-o", "jsonpath={.spec.clusterIP}");
  await becomes(false, "late", address);
});
