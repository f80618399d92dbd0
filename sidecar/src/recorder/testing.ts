/** Certificates, volumes and recorders for tests. */
import "reflect-metadata";
import { createPrivateKey, generateKeyPairSync, type KeyObject, randomBytes, webcrypto } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  BasicConstraintsExtension,
  SubjectAlternativeNameExtension,
  type X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { type GatewayName, gatewayUri } from "@sallyport/control";
import type { RecorderCredentials } from "../control/recorder-link.ts";
import { failingStorage } from "../recording/testing.ts";
import { NamespaceKeys } from "./namespace-keys.ts";
import { type RecordingServer, type RecordingServerOptions, serveRecordings } from "./recording-server.ts";
import { RecordingVolume, type VolumeOptions } from "./recording-volume.ts";
import { type VolumeStorage, volumeStorage } from "./volume-storage.ts";

/** A certificate and its key, as PEM. */
export interface Pem {
  readonly certificate: string;
  readonly key: string;
}

/** An authority that issues whatever a test asks for. */
export interface TestAuthority {
  readonly pem: string;
  /** A server's certificate for 127.0.0.1 and localhost. */
  server(): Promise<Pem>;
  /** A gateway's, with the key that it signs journals with. */
  gateway(name: GatewayName, uri?: string): Promise<Pem & { readonly signingKey: KeyObject }>;
}

const algorithm = { name: "Ed25519" } as const;
const window = { notBefore: new Date(Date.now() - 60_000), notAfter: new Date(Date.now() + 3_600_000) };

/** Makes an authority. */
export async function testAuthority(): Promise<TestAuthority> {
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, [
    "sign",
    "verify",
  ])) as webcrypto.CryptoKeyPair;
  const ca = await X509CertificateGenerator.createSelfSigned({
    name: "CN=test authority",
    keys,
    ...window,
    extensions: [new BasicConstraintsExtension(true, 0, true)],
  });
  const issue = async (names: ConstructorParameters<typeof SubjectAlternativeNameExtension>[0]) => {
    const own = (await webcrypto.subtle.generateKey(algorithm, true, [
      "sign",
      "verify",
    ])) as webcrypto.CryptoKeyPair;
    const certificate: X509Certificate = await X509CertificateGenerator.create({
      subject: "CN=test",
      issuer: ca.subject,
      publicKey: own.publicKey,
      signingKey: keys.privateKey,
      serialNumber: randomBytes(16).toString("hex"),
      ...window,
      extensions: [new SubjectAlternativeNameExtension(names)],
    });
    const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", own.privateKey));
    const signingKey = createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" });
    const key = signingKey.export({ format: "pem", type: "pkcs8" }).toString();
    return { certificate: certificate.toString("pem"), key, signingKey };
  };
  return {
    pem: ca.toString("pem"),
    server: () =>
      issue([
        { type: "dns", value: "localhost" },
        { type: "ip", value: "127.0.0.1" },
      ]),
    gateway: (name, uri = gatewayUri(name)) => issue([{ type: "url", value: uri }]),
  };
}

/** The gateway that tests are about. */
export const testGateway: GatewayName = { namespace: "shop", resource: "orders-db", podUid: "pod-1" };

/** A folder for a volume with all that makes one, kept over restarts. */
export interface TestVolume {
  readonly folder: string;
  readonly options: VolumeOptions;
  readonly storage: VolumeStorage & ReturnType<typeof failingStorage>;
  readonly keys: () => NamespaceKeys;
  remove(): Promise<void>;
}

/** Makes a place for a volume whose disk fails on request. */
export async function testVolume(change: Partial<VolumeOptions> = {}): Promise<TestVolume> {
  const root = await mkdtemp(join(tmpdir(), "recorder-"));
  const folder = join(root, "volume");
  const wrapping = randomBytes(32);
  const failing = failingStorage();
  const storage = Object.assign(failing, {
    open: volumeStorage.open,
    truncate: volumeStorage.truncate,
    free: async () => Number.POSITIVE_INFINITY,
  });
  const keys = () => new NamespaceKeys(join(folder, "keys"), [wrapping]);
  const options: VolumeOptions = {
    folder,
    key: generateKeyPairSync("ed25519").privateKey,
    keys: keys(),
    quotaBytes: 1024 ** 3,
    reserveBytes: 0,
    storage,
    limits: { syncMs: 50, headMs: 100, abandonMs: 60_000 },
    ...change,
  };
  return { folder, options, storage, keys, remove: () => rm(root, { recursive: true, force: true }) };
}

/** A recorder that listens for gateways. */
export interface TestRecorder {
  readonly volume: RecordingVolume;
  readonly port: number;
  readonly server: RecordingServer;
  /** Ends the streams and closes the volume; what was written stays. */
  stop(): Promise<void>;
}

/** Starts a recorder over a volume; port 0 takes a free one. */
export async function startTestRecorder(
  options: VolumeOptions,
  authority: TestAuthority,
  port = 0,
  beats: Pick<RecordingServerOptions, "heartbeatMs" | "silenceMs"> = { heartbeatMs: 200, silenceMs: 8_000 },
): Promise<TestRecorder> {
  const volume = await RecordingVolume.open(options);
  const { certificate, key } = await authority.server();
  const log = { info: () => undefined, warn: () => undefined };
  const gatewayAuthorities = authority.pem;
  const listen = { host: "127.0.0.1", port, ...beats };
  const server = await serveRecordings({ ...listen, certificate, key, gatewayAuthorities, volume, log });
  return {
    volume,
    server,
    port: (server.server.address() as AddressInfo).port,
    async stop() {
      server.end();
      await volume.close();
    },
  };
}

/** What a link needs to show itself as a gateway. */
export async function credentialsOf(
  authority: TestAuthority,
  name: GatewayName = testGateway,
): Promise<RecorderCredentials & { readonly signingKey: KeyObject }> {
  const { certificate, key, signingKey } = await authority.gateway(name);
  return { certificate, key, authorities: authority.pem, signingKey };
}
