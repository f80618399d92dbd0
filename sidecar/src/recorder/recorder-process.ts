/**
 * The recorder: keeps what gateways record. It checks and countersigns their journals, seals them at rest, and shows
 * them to who may see them. It is the same image as the gateway with another command, and the only writer of its
 * volume.
 */
import { readFile, writeFile } from "node:fs/promises";
import type { Server } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { Logger } from "pino";
import type { PublishedHead } from "../recording/model.ts";
import { loadSigningKey } from "../recording/signing-key.ts";
import type { RecorderConfiguration } from "./configuration.ts";
import { loadWrappingKey, NamespaceKeys, wrappingKeyName } from "./namespace-keys.ts";
import { type RecordingServer, serveRecordings } from "./recording-server.ts";
import { RecordingVolume } from "./recording-volume.ts";
import { serveReplay } from "./replay-api.ts";
import type { Reviews } from "./reviews.ts";

const headEveryMs = 60_000;
const pruneEveryMs = 600_000;
const certificateEveryMs = 10_000;

/** Told the head of the log every minute: outside the volume it makes the removal of the newest sessions show. */
export type HeadPublisher = (head: PublishedHead) => Promise<void>;

/** What a recorder runs with beside its settings. */
export interface RecorderServices {
  readonly log: Logger;
  readonly reviews: Reviews;
  readonly publishers?: readonly HeadPublisher[];
}

/** A running recorder. */
export class RecorderProcess {
  readonly #configuration: RecorderConfiguration;
  readonly #services: RecorderServices;
  #volume: RecordingVolume | undefined;
  #streams: RecordingServer | undefined;
  #replay: Server | undefined;
  #timers: NodeJS.Timeout[] = [];
  #published = "";
  #shown = "";

  constructor(configuration: RecorderConfiguration, services: RecorderServices) {
    this.#configuration = configuration;
    this.#services = services;
  }

  /** The ports that were bound: for gateways, for the API. */
  get ports(): readonly number[] {
    const servers = [this.#streams?.server, this.#replay];
    return servers.flatMap((server) =>
      server === undefined ? [] : [(server.address() as AddressInfo).port],
    );
  }

  async start(): Promise<void> {
    const { volume: folder, quotaBytes, reserveBytes, retentionMsMin, wrappingKeys } = this.#configuration;
    const { log } = this.#services;
    const keys = await Promise.all(wrappingKeys.map(loadWrappingKey));
    const key = await loadSigningKey(this.#configuration.signingKey, { create: true });
    const volume = await RecordingVolume.open({
      folder,
      key,
      keys: new NamespaceKeys(join(folder, "keys"), keys),
      quotaBytes,
      reserveBytes,
      limits: { retentionMsMin },
    });
    this.#volume = volume;
    const { certificate, key: tlsKey } = await this.#certificate();
    const gatewayAuthorities = await readFile(this.#configuration.gatewayCa, "utf8");
    const shared = { certificate, key: tlsKey, volume, log };
    const { listen, api, acceptsApiTokens } = this.#configuration;
    const { reviews } = this.#services;
    this.#streams = await serveRecordings({ ...shared, ...listen, gatewayAuthorities });
    this.#replay = await serveReplay({ ...shared, ...api, reviews, acceptsApiTokens });
    this.#timers = [
      setInterval(() => void this.#publish(), headEveryMs),
      setInterval(() => void this.#prune(), pruneEveryMs),
      setInterval(() => void this.#reloadCertificate(), certificateEveryMs),
    ];
    await this.#publish();
    const wrapping = keys[0] && wrappingKeyName(keys[0]);
    log.info({ ports: this.ports, volume: folder, wrapping }, "the recorder is ready");
  }

  async stop(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    this.#streams?.end();
    this.#replay?.close();
    this.#replay?.closeAllConnections();
    await this.#publish();
    await this.#volume?.close();
    this.#services.log.info("the recorder has stopped");
  }

  async #certificate(): Promise<{ readonly certificate: string; readonly key: string }> {
    const { tls } = this.#configuration;
    const [certificate, key] = await Promise.all([
      readFile(join(tls, "tls.crt"), "utf8"),
      readFile(join(tls, "tls.key"), "utf8"),
    ]);
    return { certificate, key };
  }

  /** Certificates are rotated while the process runs; connections that there are keep theirs. */
  async #reloadCertificate(): Promise<void> {
    try {
      const { certificate, key } = await this.#certificate();
      const ca = await readFile(this.#configuration.gatewayCa, "utf8");
      const shown = `${certificate}${ca}`;
      if (shown === this.#shown) return;
      this.#shown = shown;
      this.#streams?.server.setSecureContext({ cert: certificate, key, ca, minVersion: "TLSv1.3" });
      this.#replay?.setSecureContext({ cert: certificate, key, minVersion: "TLSv1.2" });
    } catch (error) {
      this.#services.log.warn({ err: error }, "the recorder's certificate could not be read again");
    }
  }

  async #publish(): Promise<void> {
    const head = this.#volume?.head;
    if (head === undefined || head.hash === this.#published) return;
    this.#services.log.info({ head }, "the head of the recordings");
    const { headFile } = this.#configuration;
    const toFile: HeadPublisher = (each) => writeFile(headFile, `${JSON.stringify(each)}\n`);
    const publishers = [...(this.#services.publishers ?? []), ...(headFile === "" ? [] : [toFile])];
    const told = await Promise.allSettled(publishers.map((publish) => publish(head)));
    if (told.every(({ status }) => status === "fulfilled")) this.#published = head.hash;
    else this.#services.log.warn({ head }, "the head of the recordings could not be published everywhere");
  }

  async #prune(): Promise<void> {
    try {
      const removed = await this.#volume?.prune();
      if (removed)
        this.#services.log.info({ removed }, "recordings were removed at the end of their retention");
    } catch (error) {
      this.#services.log.warn({ err: error }, "old recordings could not be removed");
    }
  }
}
