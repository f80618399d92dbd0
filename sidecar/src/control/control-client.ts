/**
 * The gateway's side of the control plane: the stream to the operator, and the way to the recorder. Nothing here
 * decides anything; the last good set of manifests stays in force while nobody answers.
 */
import { createPublicKey, type KeyObject, sign } from "node:crypto";
import { readFile } from "node:fs/promises";
import { connect, type TLSSocket } from "node:tls";
import {
  type ApprovalAsk,
  applyUpdate,
  Backoff,
  type Bundle,
  type BundleUpdate,
  type CertificatePurpose,
  controlLimits,
  controlProtocol,
  digestOf,
  FramedConnection,
  type GatewayMessage,
  type GatewayProblem,
  type OperatorMessage,
  parseOperatorMessage,
  type SessionReport,
  signingProof,
} from "@sallyport/control";
import { isIp, secured, splitAddress } from "./recorder-link.ts";

/** What became of a bundle that was taken over. */
export interface BundleOutcome {
  readonly accepted: boolean;
  /** Public texts: what of it is not in force. */
  readonly problems: readonly string[];
  /** The host key that clients meet from now on, where the protocol has one. */
  readonly knownHosts?: string;
}

/** What the stream brings. */
export interface ControlHandlers {
  /** A whole, checked set of documents, to be put in force at once. */
  readonly bundle: (bundle: Bundle) => Promise<BundleOutcome>;
  readonly endSession: (session: string, reason: string) => void;
  /** The operator has made an object of the session. */
  readonly noted?: (session: string) => void;
  readonly welcome?: (welcome: Extract<OperatorMessage, { kind: "welcome" }>) => void;
  readonly revoke?: (revocation: Extract<OperatorMessage, { kind: "revoke" }>) => void;
  readonly decision?: (decision: Extract<OperatorMessage, { kind: "decision" }>) => void;
  readonly windows?: (windows: Extract<OperatorMessage, { kind: "windows" }>["windows"]) => void;
  readonly peers?: (peers: Extract<OperatorMessage, { kind: "peers" }>) => void;
}

/** What the client is made of. */
export interface ControlClientOptions {
  /** `host:port` of the operator's Service. */
  readonly address: string;
  /** Files that the kubelet renews: the authorities of the control plane, and the projected token. */
  readonly caFile: string;
  readonly tokenFile: string;
  readonly version: string;
  /** `namespace/name` that this gateway was placed for; another one is refused. */
  readonly resource: string | undefined;
  readonly handlers: ControlHandlers;
  readonly log: {
    info(fields: object, message: string): void;
    warn(fields: object, message: string): void;
    error(fields: object, message: string): void;
  };
  readonly limits?: Partial<ControlClientLimits>;
}

/** Bounds of the client. */
export interface ControlClientLimits {
  readonly retryMs: number;
  readonly retryMsMax: number;
  readonly dialMs: number;
  readonly heartbeatMs: number;
  readonly silenceMs: number;
  /** How long an answer to a question may take. */
  readonly answerMs: number;
  /** Session reports a second, and how many may wait. */
  readonly reportsPerSecond: number;
  readonly reportsMax: number;
}

const defaultControlClientLimits: ControlClientLimits = {
  retryMs: 200,
  retryMsMax: 10_000,
  dialMs: 5_000,
  heartbeatMs: 5_000,
  silenceMs: 15_000,
  answerMs: 10_000,
  reportsPerSecond: 20,
  reportsMax: 1_000,
};

/** What a certificate request was answered with. */
export interface SignedCertificate {
  readonly certificate: string;
  readonly authorities: string;
}

const mismatchesMax = 3;

/** Keeps one stream to the operator, opened again with jittered waits whenever it ends. */
export class ControlClient {
  readonly #options: ControlClientOptions;
  readonly #limits: ControlClientLimits;
  readonly #backoff: Backoff;
  #connection: FramedConnection | undefined;
  #welcome: Extract<OperatorMessage, { kind: "welcome" }> | undefined;
  #held: Bundle | undefined;
  #newsAt: number | undefined;
  #inForce: Extract<GatewayMessage, { kind: "inForce" }> | undefined;
  #problems: readonly GatewayProblem[] = [];
  readonly #reports = new Map<string, SessionReport>();
  #reportsTimer: NodeJS.Timeout | undefined;
  readonly #questions = new Map<number, (answer: Extract<OperatorMessage, { kind: "signed" }>) => void>();
  #nextQuestion = 1;
  readonly #stopping = new AbortController();
  #isStale = false;
  #mismatches = 0;
  #running: Promise<void> | undefined;
  /** Bundles are put in force one after the other, whatever comes meanwhile. */
  #adopting: Promise<void> = Promise.resolve();

  constructor(options: ControlClientOptions) {
    this.#options = options;
    this.#limits = { ...defaultControlClientLimits, ...options.limits };
    this.#backoff = new Backoff(this.#limits.retryMs, this.#limits.retryMsMax);
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    // What ended last should still be told.
    for (
      let left = this.#reports.size;
      left > 0 && this.#connection !== undefined;
      left = this.#reports.size
    ) {
      this.#sendReports();
      if (this.#reports.size === left) break;
    }
    await this.#connection?.drained();
    this.#stopping.abort();
    clearTimeout(this.#reportsTimer);
    this.#connection?.finish();
    await this.#running;
  }

  /** Milliseconds since the operator last said that what is held is current; undefined before it first did. */
  get newsAgeMs(): number | undefined {
    return this.#newsAt === undefined ? undefined : performance.now() - this.#newsAt;
  }

  get isConnected(): boolean {
    return this.#welcome !== undefined && this.#connection !== undefined;
  }

  /** Where the recorder of this namespace is, as the operator last said. */
  get recorder(): string | undefined {
    return this.#welcome?.recorder;
  }

  /** The pod that the operator took this gateway for. */
  get podUid(): string | undefined {
    return this.#welcome?.podUid;
  }

  /** Reports a session; of one that waits only the latest word is sent. */
  report(session: SessionReport): void {
    const { reportsMax } = this.#limits;
    if (!this.#reports.has(session.id) && this.#reports.size >= reportsMax) {
      // The oldest gives way: the recorder has it all. Of what went past approval people are told: it is the last to go.
      let [oldest] = this.#reports.keys();
      for (const [id, { brokeGlass }] of this.#reports) {
        if (brokeGlass !== undefined) continue;
        oldest = id;
        break;
      }
      if (oldest !== undefined) this.#reports.delete(oldest);
    }
    this.#reports.set(session.id, session);
    this.#reportsTimer ??= setTimeout(() => this.#sendReports(), 0);
  }

  /** Asks for a decision about a command that is held. Lost where nobody is connected: it is asked again then. */
  ask(ask: ApprovalAsk): void {
    this.#send({ kind: "ask", ask });
  }

  /** The command is not held any longer. */
  withdraw(id: string): void {
    this.#send({ kind: "withdraw", id });
  }

  /** What was approved has run. */
  used(id: string): void {
    this.#send({ kind: "used", id });
  }

  /** Replaces the list of what a person should mend. */
  setProblems(problems: readonly GatewayProblem[]): void {
    const next = problems.slice(0, controlLimits.problemsMax);
    if (JSON.stringify(next) === JSON.stringify(this.#problems)) return;
    this.#problems = next;
    this.#send({ kind: "problems", problems: next });
  }

  /** Asks for a certificate of a key; its names are the operator's choice. Rejects where none comes in time. */
  async certificate(purpose: CertificatePurpose, key: KeyObject): Promise<SignedCertificate> {
    const podUid = this.podUid;
    if (podUid === undefined || this.#connection === undefined)
      throw new Error("the operator is not connected");
    const publicKey = createPublicKey(key).export({ type: "spki", format: "pem" }).toString();
    const digest = key.asymmetricKeyType === "ed25519" ? null : "sha256";
    const proof = sign(digest, signingProof(podUid, purpose, publicKey), key).toString("base64");
    const id = this.#nextQuestion++;
    const answer = await new Promise<Extract<OperatorMessage, { kind: "signed" }>>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#questions.delete(id);
        reject(new Error("the operator did not sign a certificate in time"));
      }, this.#limits.answerMs);
      this.#questions.set(id, (given) => {
        clearTimeout(timer);
        resolve(given);
      });
      this.#send({ kind: "sign", id, purpose, publicKey, proof });
    });
    const { certificate, authorities, failure } = answer;
    if (certificate === undefined || authorities === undefined) {
      throw new Error(`the operator signs no certificate: ${failure ?? "no reason given"}`);
    }
    return { certificate, authorities };
  }

  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      try {
        await this.#session();
        this.#options.log.info({}, "the control stream ended");
      } catch (error) {
        const cause = error instanceof Error ? error.message : "failed";
        this.#options.log.warn(
          { operator: this.#options.address, cause },
          "the control stream is not available",
        );
      }
      this.#connection?.end();
      this.#connection = undefined;
      await this.#backoff.pause(this.#stopping.signal);
    }
  }

  async #session(): Promise<void> {
    const { address, caFile, tokenFile, version } = this.#options;
    // Both are renewed while the process runs.
    const [ca, token] = await Promise.all([readFile(caFile, "utf8"), readFile(tokenFile, "utf8")]);
    const socket = await this.#dial(address, ca);
    const { heartbeatMs, silenceMs } = this.#limits;
    const frameBytesMax = controlLimits.bundleBytesMax;
    const connection = new FramedConnection(socket, { frameBytesMax, heartbeatMs, silenceMs });
    if (this.#stopping.signal.aborted) {
      connection.end();
      return;
    }
    this.#connection = connection;
    this.#isStale = false;
    const holds = this.#held && digestOf(this.#held.documents);
    const hello: GatewayMessage = {
      kind: "hello",
      token: token.trim(),
      version,
      ...(holds !== undefined && { holds }),
      ...(this.#options.handlers.peers !== undefined && { takesPeers: true }),
    };
    this.#mismatches = 0;
    connection.send(hello);
    let isWelcome = false;
    for await (const { header } of connection.messages()) {
      const message = parseOperatorMessage(header);
      if (message.kind === "welcome") {
        this.#welcomed(message);
        isWelcome = true;
      } else if (message.kind === "refused") throw new Error(`refused: ${message.message} (${message.code})`);
      else if (isWelcome) this.#receive(message);
      else throw new Error("the operator sent policy before it said for which resource");
      if (this.#isStale) throw new Error("this operator knows less than the one before");
    }
  }

  async #dial(address: string, ca: string): Promise<TLSSocket> {
    const { host, port } = splitAddress(address);
    const socket = connect({
      host,
      port,
      ca,
      ...(isIp(host) ? {} : { servername: host }),
      minVersion: "TLSv1.3",
      ALPNProtocols: [controlProtocol],
      timeout: this.#limits.dialMs,
    });
    await secured(socket);
    return socket;
  }

  #welcomed(message: Extract<OperatorMessage, { kind: "welcome" }>): void {
    const { resource } = this.#options;
    if (resource !== undefined && message.resource !== resource) {
      throw new Error(`the operator takes this gateway for one of ${message.resource}`);
    }
    this.#welcome = message;
    this.#options.handlers.welcome?.(message);
    if (this.#inForce) this.#send(this.#inForce);
    if (this.#problems.length > 0) this.#send({ kind: "problems", problems: this.#problems });
    if (this.#reports.size > 0) this.#reportsTimer ??= setTimeout(() => this.#sendReports(), 0);
    this.#options.log.info({ resource: message.resource }, "the control stream is open");
  }

  #receive(message: Exclude<OperatorMessage, { kind: "welcome" | "refused" }>): void {
    const { handlers } = this.#options;
    switch (message.kind) {
      case "bundle":
        this.#update(message);
        break;
      case "current":
        if (this.#held !== undefined && digestOf(this.#held.documents) === message.digest) this.#isCurrent();
        else this.#send({ kind: "resend" });
        break;
      case "endSession":
        handlers.endSession(message.session, message.reason);
        break;
      case "noted":
        handlers.noted?.(message.session);
        break;
      case "revoke":
        handlers.revoke?.(message);
        break;
      case "decision":
        handlers.decision?.(message);
        break;
      case "windows":
        handlers.windows?.(message.windows);
        break;
      case "peers":
        handlers.peers?.(message);
        break;
      case "signed": {
        const answered = this.#questions.get(message.id);
        this.#questions.delete(message.id);
        answered?.(message);
        break;
      }
      default:
        message satisfies never;
    }
  }

  #isCurrent(): void {
    this.#newsAt = performance.now();
    this.#backoff.reset();
  }

  #update(update: BundleUpdate): void {
    const applied = applyUpdate(this.#held, update);
    if (applied.kind === "mismatch") {
      if (++this.#mismatches > mismatchesMax) throw new Error("the operator's bundles do not fit together");
      this.#send({ kind: "resend" });
      return;
    }
    if (applied.kind === "stale") {
      // Another replica is ahead of this one: what it said stays in force, and the stream is opened elsewhere.
      this.#options.log.warn(
        { revision: update.revision },
        "an older state of the policy was offered and refused",
      );
      this.#isStale = true;
      return;
    }
    const { bundle, digest } = applied;
    this.#held = bundle;
    this.#isCurrent();
    this.#adopting = this.#adopting.then(() => this.#adopt(bundle, digest));
  }

  async #adopt(bundle: Bundle, digest: string): Promise<void> {
    // A newer one waits behind this one: only the newest is worth compiling.
    if (this.#held !== bundle) return;
    let outcome: BundleOutcome;
    try {
      outcome = await this.#options.handlers.bundle(bundle);
    } catch (error) {
      this.#options.log.error({ err: error }, "the policy could not be put in force; the last one stays");
      outcome = { accepted: false, problems: ["the policy could not be put in force"] };
    }
    const problems = outcome.problems.slice(0, controlLimits.problemsMax).map((text) => text.slice(0, 1000));
    const { accepted, knownHosts } = outcome;
    this.#inForce = { kind: "inForce", digest, accepted, problems, ...(knownHosts && { knownHosts }) };
    this.#send(this.#inForce);
  }

  #sendReports(): void {
    this.#reportsTimer = undefined;
    if (this.#connection === undefined || this.#welcome === undefined || this.#reports.size === 0) return;
    const { reportsPerSecond } = this.#limits;
    const some = [...this.#reports.values()].slice(0, reportsPerSecond);
    for (const { id } of some) this.#reports.delete(id);
    this.#send({ kind: "sessions", sessions: some });
    this.#reportsTimer = setTimeout(() => this.#sendReports(), (1000 * some.length) / reportsPerSecond);
    this.#reportsTimer.unref();
  }

  #send(message: GatewayMessage): void {
    this.#connection?.send(message);
  }
}
