/** A recorder's API in the test's own process, over an empty volume, asking whatever API server it is given. */
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  kubeReviews,
  NamespaceKeys,
  RecordingVolume,
  type ReviewsOptions,
  serveReplay,
} from "@sallyport/sidecar/recorder";
import { createAuthority } from "./certificates.ts";

/** A replay API that listens. */
export interface ReplayServer {
  readonly port: number;
  readonly caPem: string;
  stop(): Promise<void>;
}

/** Starts one. */
export async function startReplayServer(api: ReviewsOptions): Promise<ReplayServer> {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-replay-"));
  const authority = await createAuthority("recorder authority");
  const { certPem, keyPem } = await authority.issue({
    commonName: "recorder",
    ipAddresses: ["127.0.0.1"],
    usage: "server",
  });
  const volume = await RecordingVolume.open({
    folder,
    key: generateKeyPairSync("ed25519").privateKey,
    keys: new NamespaceKeys(join(folder, "keys"), [randomBytes(32)]),
    quotaBytes: 1024 ** 2,
    reserveBytes: 0,
  });
  const server = await serveReplay({
    host: "127.0.0.1",
    port: 0,
    certificate: certPem,
    key: keyPem,
    volume,
    reviews: kubeReviews(api),
    acceptsApiTokens: false,
    log: { info: () => undefined, warn: () => undefined },
  });
  return {
    port: (server.address() as AddressInfo).port,
    caPem: authority.caPem,
    async stop() {
      server.close();
      server.closeAllConnections();
      await volume.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
