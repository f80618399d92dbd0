import { generateKeyPairSync, randomBytes } from "node:crypto";
import {
  type KubeClient,
  type KubeObject,
  type Log,
  pause,
  Reflector,
  type ResourceType,
  resourceType,
} from "../kube/index.ts";
import { bundleOf, isIssuedFor, lifetimes, signLeaf } from "./authority.ts";
import {
  type Authorities,
  currentAuthorities,
  currentServing,
  nextRotation,
  readAuthorities,
  type SecretData,
  type ServingCertificate,
  storeAuthorities,
} from "./state.ts";

/** The names that the control plane's servers are reached by. */
export interface CertificateNames {
  readonly operator: readonly string[];
  readonly recorder: readonly string[];
}

/** What the store is made of. */
export interface CertificateStoreParts {
  readonly client: KubeClient;
  readonly namespace: string;
  /** Stands before the names of the Secrets. */
  readonly prefix: string;
  readonly names: CertificateNames;
  readonly log: Log;
  readonly clock: () => number;
}

/** What this replica serves and signs with. */
export interface HeldCertificates {
  /** What clients of operator and recorder trust, as PEM. */
  readonly serverCa: string;
  readonly gatewayCa: string;
  readonly userCa: string;
  readonly serving: ServingCertificate;
}

interface Secret extends KubeObject {
  readonly type?: string;
  readonly data?: Readonly<Record<string, string>>;
  readonly immutable?: boolean;
}

const secrets: ResourceType<Secret> = resourceType<Secret>("v1", "Secret", "secrets");
const secretLabels = {
  "app.kubernetes.io/part-of": "sallyport",
  "app.kubernetes.io/managed-by": "sallyport-operator",
  "app.kubernetes.io/component": "certificates",
};
const lookAgainMs = 3_600_000;
const retryMs = 5_000;

/** Keeps the Secrets as they should be, and what they hold at hand. */
export class CertificateStore {
  readonly #parts: CertificateStoreParts;
  readonly #reflectors: readonly Reflector<Secret>[];
  readonly #listeners = new Set<() => void>();
  #held: (HeldCertificates & { readonly authorities: Authorities }) | undefined;

  constructor(parts: CertificateStoreParts) {
    this.#parts = parts;
    const { client, namespace, log } = parts;
    this.#reflectors = [this.#name("authorities"), this.#name("operator-serving")].map((name) => {
      // By name: the right to read these Secrets is no right to list others.
      const selection = { namespace, fieldSelector: `metadata.name=${name}` };
      const reflector = new Reflector({ client, type: secrets, selection, log });
      reflector.onChange(() => this.#follow());
      return reflector;
    });
  }

  /** Undefined until both Secrets are there and fit together. */
  get held(): HeldCertificates | undefined {
    return this.#held;
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Follows the Secrets until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#reflectors.map((reflector) => reflector.run(signal)));
  }

  /** The leader's part: makes and renews until the signal. */
  async keep(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      let waitMs = retryMs;
      try {
        waitMs = Math.min(lookAgainMs, Math.max(1000, (await this.ensure(signal)) - this.#parts.clock()));
      } catch (error) {
        if (signal.aborted) return;
        this.#parts.log.warn({ err: error }, "the certificates could not be renewed; trying again");
      }
      await pause(waitMs, signal);
    }
  }

  /** One look at the Secrets: answers when the next thing falls due, in milliseconds since the epoch. */
  async ensure(signal: AbortSignal): Promise<number> {
    const { client, namespace, names, clock } = this.#parts;
    const now = clock();
    const read = (suffix: string) =>
      client.find(secrets, { namespace, name: this.#name(suffix) }, { signal });
    const [stored, operatorStored, recorderStored] = await Promise.all([
      read("authorities"),
      read("operator-serving"),
      read("recorder-serving"),
    ]);
    const authorities = await currentAuthorities(readAuthorities(decoded(stored)), now);
    // Authorities first: a leaf whose authority was never written could not be verified by anybody.
    await this.#write("authorities", stored, storeAuthorities(authorities), signal);
    const serving = await currentServing(servingOf(operatorStored), names.operator, authorities, now);
    const recorder = await currentServing(servingOf(recorderStored), names.recorder, authorities, now);
    const common = {
      "ca.crt": bundleOf(authorities.server),
      "gateway-ca.crt": bundleOf(authorities.gateway),
    };
    const secret = (one: ServingCertificate) => ({
      ...common,
      "tls.crt": one.certificate,
      "tls.key": one.key,
    });
    await this.#write("operator-serving", operatorStored, secret(serving), signal);
    await this.#write("recorder-serving", recorderStored, secret(recorder), signal);
    await this.#keepRecorderKeys(signal);
    return nextRotation(authorities, [serving, recorder]);
  }

  /** Keys of the recorders: made once and never changed, for nothing else could read or prove what they have written. */
  async #keepRecorderKeys(signal: AbortSignal): Promise<void> {
    await this.#keepOnce("recorder-wrapping", signal, () => ({ "wrapping.key": randomBytes(32) }));
    await this.#keepOnce("recorder-signing", signal, () => {
      const { privateKey, publicKey } = generateKeyPairSync("ed25519");
      return {
        "recorder.key.pem": Buffer.from(privateKey.export({ type: "pkcs8", format: "pem" })),
        "recorder.pub.pem": Buffer.from(publicKey.export({ type: "spki", format: "pem" })),
      };
    });
  }

  async #keepOnce(
    suffix: string,
    signal: AbortSignal,
    make: () => Readonly<Record<string, Buffer>>,
  ): Promise<void> {
    const { client, namespace } = this.#parts;
    const name = this.#name(suffix);
    if ((await client.find(secrets, { namespace, name }, { signal })) !== undefined) return;
    const data = Object.fromEntries(
      Object.entries(make()).map(([key, value]) => [key, value.toString("base64")]),
    );
    const metadata = { name, namespace, labels: secretLabels };
    const secret = { apiVersion: "v1", kind: "Secret", metadata, type: "Opaque", immutable: true, data };
    await client.create(secrets, secret, { fieldManager: "sallyport-certificates", signal });
  }

  /** A certificate that a gateway shows to its clients; its names are the resource's, whatever was asked for. */
  async signServing(commonName: string, names: readonly string[], publicKey: string): Promise<string> {
    const { authorities } = this.#required();
    const now = this.#parts.clock();
    const request = {
      commonName,
      names,
      publicKey,
      now,
      usage: "server",
      lifeMs: lifetimes.gatewayMs,
    } as const;
    return signLeaf(authorities.server.current, request);
  }

  /** A certificate by which the recorder knows a gateway, or by which gateways of a resource know each other. */
  async signGateway(
    commonName: string,
    uri: string,
    publicKey: string,
    usage: "client" | "peer",
  ): Promise<string> {
    const { authorities } = this.#required();
    const now = this.#parts.clock();
    const request = {
      commonName,
      uri,
      publicKey,
      now,
      usage,
      lifeMs: lifetimes.gatewayMs,
    } as const;
    return signLeaf(authorities.gateway.current, request);
  }

  #required() {
    if (this.#held === undefined) throw new Error("the authorities are not there yet");
    return this.#held;
  }

  #name(suffix: string): string {
    return `${this.#parts.prefix}-${suffix}`;
  }

  #follow(): void {
    const { namespace, names } = this.#parts;
    const [first, second] = this.#reflectors;
    const stored = first?.get({ namespace, name: this.#name("authorities") });
    const serving = servingOf(second?.get({ namespace, name: this.#name("operator-serving") }));
    const { server, gateway, user } = readAuthorities(decoded(stored));
    if (server === undefined || gateway === undefined || user === undefined || serving === undefined) return;
    const authorities = { server, gateway, user };
    // Until the leader has renewed the leaf, the one before goes on being served.
    void isIssuedFor(serving.certificate, names.operator, server.current.certificate).then((fits) => {
      if (!fits && this.#held !== undefined) return;
      const [serverCa, gatewayCa, userCa] = [bundleOf(server), bundleOf(gateway), bundleOf(user)];
      this.#held = { authorities, serverCa, gatewayCa, userCa, serving };
      for (const listener of this.#listeners) listener();
    });
  }

  async #write(
    suffix: string,
    stored: Secret | undefined,
    data: SecretData,
    signal: AbortSignal,
  ): Promise<void> {
    const { client, namespace } = this.#parts;
    const encoded = Object.fromEntries(
      Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString("base64")]),
    );
    if (stored !== undefined && isSame(stored.data ?? {}, encoded)) return;
    const metadata = { name: this.#name(suffix), namespace, labels: secretLabels };
    const options = { fieldManager: "sallyport-certificates", signal };
    if (stored === undefined) {
      await client.create(
        secrets,
        { apiVersion: "v1", kind: "Secret", metadata, type: "Opaque", data: encoded },
        options,
      );
      return;
    }
    // Conditional: of two that renew at once one fails, and looks again.
    const { resourceVersion, uid } = stored.metadata;
    const versioned = {
      ...metadata,
      ...(resourceVersion !== undefined && { resourceVersion }),
      ...(uid !== undefined && { uid }),
    };
    const secret = { apiVersion: "v1", kind: "Secret", metadata: versioned, data: encoded };
    await client.replace(secrets, { ...secret, type: stored.type ?? "Opaque" }, options);
  }
}

function decoded(secret: Secret | undefined): SecretData {
  return Object.fromEntries(
    Object.entries(secret?.data ?? {}).map(([key, value]) => [
      key,
      Buffer.from(value, "base64").toString("utf8"),
    ]),
  );
}

function servingOf(secret: Secret | undefined): ServingCertificate | undefined {
  const data = decoded(secret);
  const [certificate, key] = [data["tls.crt"], data["tls.key"]];
  return certificate === undefined || key === undefined ? undefined : { certificate, key };
}

function isSame(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key]);
}
