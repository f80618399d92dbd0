/** Two gateways of one resource, each a process of its own that only the operator joins: what kubectl asks for twice is one record. */
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { waitFor } from "../cluster/processes.ts";
import { type JoinedGateways, startJoinedGateways } from "../targets/joined-gateways.ts";
import { clusterResource, writeGatewayAccount } from "../targets/kubernetes-gateway.ts";
import { localProvider } from "../targets/manifests.ts";
import { LocalIssuer } from "../targets/tokens.ts";
import { tryExec } from "./raw-client.ts";
import { refusalsOf } from "./shell-pod.ts";

const issuer = new LocalIssuer("sallyport-test", "sallyport:default/cluster");
let api: ApiServer;
let joined: JoinedGateways;
let gateways: JoinedGateways["gateways"];

beforeAll(async () => {
  api = await startApiServer();
  await api.kubectl.apply([
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default" } },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "p" },
      spec: { automountServiceAccountToken: false, containers: [{ name: "c", image: "i" }] },
    },
  ]);
  joined = await startJoinedGateways({ resource: "default/cluster", protocol: "kubernetes", manifests });
  ({ gateways } = joined);
});
afterAll(async () => {
  await joined?.stop();
  await api?.close();
});

async function manifests(secrets: string): Promise<readonly object[]> {
  await writeGatewayAccount(api, join(secrets, "cluster"));
  const policy = {
    ...{ apiVersion: "sallyport.dev/v1alpha1", kind: "AccessPolicy" },
    metadata: { name: "readers", namespace: "default" },
    spec: { resources: { names: ["cluster"] }, subjects: [{ user: "local:bob" }], profile: "ReadOnly" },
  };
  return [clusterResource(api), localProvider(issuer, { kubernetesUsername: "claims.sub" }), policy];
}

const ask = (at: number, method: "GET" | "POST", command: string, run = "") => {
  const token = issuer.token({ user: "bob" });
  return tryExec({ port: gateways[at]?.port ?? 0, caPem: joined.caPem }, { method, token, command, run });
};

/** How often an exec of the command is recorded at each gateway, once there are so many records. */
const records = (command: string, count: number) =>
  waitFor(`${count} records of ${command}`, async () => {
    const found = await Promise.all(gateways.map((gateway) => refusalsOf(gateway, command)));
    return found.flat().length >= count ? found.map(({ length }) => length) : undefined;
  });

const ways = [
  [0, 1],
  [1, 0],
] as const;

test.each(ways)(
  "K3: denied at gateway %i over WebSocket and at gateway %i over SPDY is one record",
  async (first, second) => {
    for (const run of ["", "run"]) {
      const command = `to-${second}-${run}`;
      const id = await ask(first, "GET", command, run);
      expect(id).toMatch(/^[0-9a-f]{12}$/);
      expect(await ask(second, "POST", command, run)).toBe(id);
      // Who goes on asking is recorded again, where they ask; so is who says to be another run.
      await ask(second, "POST", command, run);
      await ask(second, "POST", command, `${run}other`);
      const there = await records(command, 3);
      expect([there[first], there[second]]).toEqual([1, 2]);
    }
  },
);

test("K3: of two that ask two gateways at once for one denial one is recorded", async () => {
  for (let round = 0; round < 5; round += 1) {
    const command = `race-${round}`;
    await ask(0, "GET", command, "run");
    await Promise.all([ask(0, "POST", command, "run"), ask(1, "POST", command, "run")]);
    // Behind where a record of either would be.
    await Promise.all([ask(0, "POST", command, "run"), ask(1, "POST", command, "run")]);
    const [here = 0, there = 0] = await records(command, 4);
    expect(here + there).toBe(4);
  }
});

test("K3: where the other gateway is gone, the second request is refused all the same, and recorded", async () => {
  const id = await ask(1, "GET", "gone", "run");
  await records("gone", 1);
  await gateways[1]?.kill9();
  expect(await ask(0, "POST", "gone", "run")).toBe(id);
  expect(await records("gone", 2)).toEqual([1, 1]);
});
