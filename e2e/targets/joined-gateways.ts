/** Two gateways of one resource, each a process of its own that only the operator's control stream joins. */
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { OperatorMessage } from "@sallyport/control";
import type { ControlServerOptions, Told } from "@sallyport/operator/control";
import { startControlPlane, type TestControlPlane } from "./control-plane.ts";
import { type GatewayProcess, spawnGateway } from "./gateway.ts";
import { bundleOf } from "./manifests.ts";
import { freePort } from "./postgres.ts";
import { until } from "./until.ts";

/** What the gateways are of. */
export interface JoinedGatewaysOptions {
  /** `namespace/name`. */
  readonly resource: string;
  readonly protocol: "postgres" | "kubernetes";
  /** Writes the credentials below a folder of secrets and says what is in the bundle. */
  readonly manifests: (secrets: string) => Promise<readonly object[]>;
  readonly events?: Omit<NonNullable<ControlServerOptions["events"]>, "joined">;
}

/** They know each other, and have their certificates. */
export interface JoinedGateways {
  readonly gateways: readonly GatewayProcess[];
  /** PEM and file of who signed what clients are shown. */
  readonly caPem: string;
  readonly caFile: string;
  stop(): Promise<void>;
}

/** Starts both. */
export async function startJoinedGateways(options: JoinedGatewaysOptions): Promise<JoinedGateways> {
  const peers: { readonly podUid: string; readonly host: string; readonly port: number }[] = [];
  for (const podUid of ["uid-a", "uid-b"]) peers.push({ podUid, host: "127.0.0.1", port: await freePort() });
  const told = (): OperatorMessage & { kind: "peers" } => ({
    ...{ kind: "peers", authorities: plane.gatewayCaPem },
    peers,
  });
  const plane: TestControlPlane = await startControlPlane({
    events: { ...options.events, joined: (_, stream: Told) => stream.tell(told()) },
  });
  const folder = await mkdtemp(join(tmpdir(), "sallyport-joined-"));
  const gateways: GatewayProcess[] = [];
  const stop = async () => {
    for (const gateway of gateways) await gateway.stop();
    await plane.stop();
    await rm(folder, { recursive: true, force: true });
  };
  const start = async ({ podUid, port: peerPort }: (typeof peers)[number]): Promise<GatewayProcess> => {
    const port = await freePort();
    return spawnGateway({
      ...{ configDir: folder, stateDir: join(folder, podUid), port, readyMs: 60_000 },
      environment: { SALLYPORT_POD_UID: podUid },
      args: [
        ...["--secrets", join(folder, "secrets"), "--masking-key", join(folder, "shared.key")],
        ...["--control", plane.address, "--control-ca", plane.caFile, "--resource", options.resource],
        ...["--protocol", options.protocol],
        ...["--control-token", await plane.gatewayPod(options.resource, podUid), "--drain", "1"],
        ...["--listen-port", String(port), "--peer-listen", `127.0.0.1:${peerPort}`],
      ],
    });
  };
  try {
    await writeFile(join(folder, "shared.key"), randomBytes(32).toString("hex"));
    plane.bundles.set(options.resource, await bundleOf(await options.manifests(join(folder, "secrets"))));
    plane.bundles.markComplete();
    gateways.push(...(await Promise.all(peers.map(start))));
    const isJoined = ({ logs }: GatewayProcess) =>
      logs().includes("the gateways of the resource can ask each other") &&
      logs().includes("the operator signed the serving certificate");
    await until(() => gateways.every(isJoined));
    const caFile = join(plane.folder, "serving-ca.crt");
    return { gateways, caFile, caPem: await readFile(caFile, "utf8"), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
