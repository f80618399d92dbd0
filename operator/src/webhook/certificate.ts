import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  type BundleChange,
  type CertificateStore,
  changeCaBundle,
  isTrustedByWebhooks,
} from "../certificates/index.ts";
import { type KubeClient, type Log, pause } from "../kube/index.ts";
import type { WebhookServer } from "./server.ts";

/** What shows a certificate to the API server, and what makes the API server trust it. */
export interface WebhookCertificateParts {
  readonly client: KubeClient;
  readonly server: WebhookServer;
  readonly certificates: CertificateStore;
  /** Whose certificate it is: of our own authority, or of cert-manager, as files in a folder. */
  readonly from: { readonly kind: "own" } | { readonly kind: "cert-manager"; readonly folder: string };
  /** Name of the webhook configurations. */
  readonly name: string;
  readonly log: Log;
}

/** The certificate of the webhook server, and the bundles of the webhooks that must hold its authority. */
export class WebhookCertificate {
  readonly #parts: WebhookCertificateParts;
  /** What the server shows, in PEM. */
  #shown: string | undefined;
  #isTrusted = false;

  constructor(parts: WebhookCertificateParts) {
    this.#parts = parts;
  }

  /** Whether the API server trusts what is shown; looked at until it does, since what follows overlaps with it. */
  get isTrusted(): boolean {
    return this.#isTrusted;
  }

  /** Shows what the operator's own authority gave last. */
  async take(): Promise<void> {
    const { certificates, from } = this.#parts;
    if (from.kind === "own" && certificates.held !== undefined) await this.#show(certificates.held.serving);
  }

  /** What each replica does: follows the files, and waits until what they show is trusted. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#followFolder(signal), this.#becomeTrusted(signal)]);
  }

  /** What the leader does: keeps the webhooks' bundles as they should be. */
  async keepBundles(signal: AbortSignal): Promise<void> {
    const { certificates, log } = this.#parts;
    const alone = performance.now() + overlapMs;
    while (!signal.aborted) {
      const held = certificates.held;
      try {
        if (held !== undefined) await this.#changeBundles(performance.now() < alone, held.serverCa, signal);
      } catch (error) {
        if (!signal.aborted) log.warn({ err: error }, "the webhooks' authorities could not be written");
      }
      // Whoever applies the chart anew takes the field away; soon it is there again.
      await pause(held === undefined ? 200 : bundleEveryMs, signal);
    }
  }

  async #show(pair: { readonly certificate: string; readonly key: string }): Promise<void> {
    await this.#parts.server.use(pair);
    this.#shown = pair.certificate;
  }

  /**
   * The API server is told whom to trust before it asks here, so that nobody is refused while an installation changes
   * to cert-manager or from it: replicas of both kinds serve until the rollout is over.
   */
  async #becomeTrusted(signal: AbortSignal): Promise<void> {
    const { client, certificates, from, name, log } = this.#parts;
    while (!signal.aborted && !this.#isTrusted) {
      const held = certificates.held;
      try {
        if (held !== undefined && from.kind === "own") await this.#changeBundles(true, held.serverCa, signal);
        this.#isTrusted =
          this.#shown !== undefined && (await isTrustedByWebhooks(client, name, this.#shown, signal));
      } catch (error) {
        if (!signal.aborted) log.warn({ err: error }, "the webhooks' authorities could not be looked at");
      }
      if (!this.#isTrusted) await pause(trustEveryMs, signal);
    }
  }

  async #changeBundles(isOverlap: boolean, authorities: string, signal: AbortSignal): Promise<void> {
    const { client, from, name } = this.#parts;
    if (from.kind !== "own" && isOverlap) return;
    const kind: BundleChange = from.kind !== "own" ? "leave" : isOverlap ? "join" : "own";
    await changeCaBundle(client, name, { kind, authorities }, signal);
  }

  /** With cert-manager the certificate comes as files, which the kubelet renews. */
  async #followFolder(signal: AbortSignal): Promise<void> {
    const { from, log } = this.#parts;
    while (from.kind === "cert-manager" && !signal.aborted) {
      try {
        const [certificate, key] = await Promise.all(
          ["tls.crt", "tls.key"].map((file) => readFile(join(from.folder, file), "utf8")),
        );
        if (certificate !== undefined && key !== undefined && certificate !== this.#shown)
          await this.#show({ certificate, key });
      } catch (error) {
        log.warn({ err: error }, "the webhook's certificate could not be read");
      }
      await pause(folderEveryMs, signal);
    }
  }
}

const bundleEveryMs = 30_000;
const trustEveryMs = 500;
/** Rollouts of the operator are over by then, and one authority's certificates alone are shown. */
const overlapMs = 600_000;
const folderEveryMs = 10_000;
