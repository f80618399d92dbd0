/** Two gateways of one resource, each a process of its own that only the operator joins: what kubectl asks for twice is one record. */
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { OperatorMessage } from "@sallyport/control";
import type { Told } from "@sallyport/operator/control";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { waitFor } from "../cluster/processes.ts";
import { startControlPlane, type TestControlPlane } from "../targets/control-plane.ts";
import { type GatewayProcess, spawnGateway } from "../targets/gateway.ts";
import { clusterResource, writeGatewayAccount } from "../targets/kubernetes-gateway.ts";
import { bundleOf, localProvider } from "../targets/manifests.ts";
import { freePort } from "../targets/postgres.ts";
import { LocalIssuer } from "../targets/tokens.ts";
import { tryExec } from "./raw-client.ts";
import { refusalsOf } from "./shell-pod.ts";

const issuer = new LocalIssuer("sallyport-test", "sallyport:default/cluster");
const gateways: GatewayProcess[] = [];
const peers: { readonly podUid: string; readonly host: string; readonly port: number }[] = [];
let api: ApiServer;
let plane: TestControlPlane;
let folder: string;
let caPem: string;

beforeAll(async () => {
  const told = (): OperatorMessage & { kind: "peers" } => ({
    ...{ kind: "peers", authorities: plane.gatewayCaPem },
    peers,
  });
  [api, plane] = await Promise.all([
    startApiServer(),
    startControlPlane({ events: { joined: (_, stream: Told) => stream.tell(told()) } }),
  ]);
  await api.kubectl.apply([
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default" } },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "p" },
      spec: { automountServiceAccountToken: false, containers: [{ name: "c", image: "i" }] },
    },
  ]);
  folder = await mkdtemp(join(tmpdir(), "sallyport-placed-denials-"));
  await writeGatewayAccount(api, join(folder, "secrets/cluster"));
  await writeFile(join(folder, "shared.key"), randomBytes(32).toString("hex"));
  const policy = {
    ...{ apiVersion: "sallyport.dev/v1alpha1", kind: "AccessPolicy" },
    metadata: { name: "readers", namespace: "default" },
    spec: { resources: { names: ["cluster"] }, subjects: [{ user: "local:bob" }], profile: "ReadOnly" },
  };
  const provider = localProvider(issuer, { kubernetesUsername: "claims.sub" });
  plane.bundles.set("default/cluster", await bundleOf([clusterResource(api), provider, policy]));
  plane.bundles.markComplete();
  for (const podUid of ["uid-a", "uid-b"]) peers.push({ podUid, host: "127.0.0.1", port: await freePort() });
  gateways.push(...(await Promise.all(peers.map(start))));
  const isJoined = ({ logs }: GatewayProcess) =>
    logs().includes("the gateways of the resource can ask each other") &&
    logs().includes("the operator signed the serving certificate");
  await waitFor("the gateways to know each other", () => gateways.every(isJoined) || undefined);
  caPem = await readFile(join(plane.folder, "serving-ca.crt"), "utf8");
});
afterAll(async () => {
  for (const gateway of gateways) await gateway.stop();
  await plane?.stop();
  await api?.close();
  await rm(folder, { recursive: true, force: true });
});

async function start({ podUid, port: peerPort }: (typeof peers)[number]): Promise<GatewayProcess> {
  const port = await freePort();
  return spawnGateway({
    ...{ configDir: folder, stateDir: join(folder, podUid), port, readyMs: 60_000 },
    environment: { SALLYPORT_POD_UID: podUid },
    args: [
      ...["--secrets", join(folder, "secrets"), "--masking-key", join(folder, "shared.key")],
      ...["--control", plane.address, "--control-ca", plane.caFile, "--resource", "default/cluster"],
      ...["--protocol", "kubernetes"],
      ...["--control-token", await plane.gatewayPod("default/cluster", podUid), "--drain", "1"],
      ...["--listen-port", String(port), "--peer-listen", `127.0.0.1:${peerPort}`],
    ],
  });
}

const ask = (at: number, method: "GET" | "POST", command: string, run = "") => {
  const token = issuer.token({ user: "bob" });
  return tryExec({ port: gateways[at]?.port ?? 0, caPem }, { method, token, command, run });
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
