import { generateKeyPairSync, type KeyObject } from "node:crypto";
import type { Bundle, GatewayProblem, SessionReport } from "@sallyport/control";
import { durationMs, type Manifest } from "@sallyport/crds";
import type { Logger } from "pino";
import {
  type BundleOutcome,
  ControlClient,
  createRemoteRecorder,
  type RecorderCredentials,
  RecorderLink,
  type SignedCertificate,
} from "../control/index.ts";
import type { Recorder } from "../recording/model.ts";
import { renewalOf } from "./certificate-life.ts";
import { ClusterApprovals } from "./cluster-approvals.ts";
import type { ControlConfiguration } from "./configuration.ts";
import type { LiveSession } from "./live-session.ts";
import { type ManifestSet, manifestSetOf } from "./manifest-set.ts";
import { PlacedPeers, type PlacedPeersOptions } from "./placed-peers.ts";
import type { ServingCertificate } from "./serving-certificate.ts";
import type { CancelOrder, DenialOrder } from "./shared-state.ts";

/** What a gateway that the operator placed gives its control plane. */
export interface ControlPlaneOptions {
  readonly configuration: ControlConfiguration;
  readonly version: string;
  readonly log: Logger;
  /** The Ed25519 key that recordings are signed with. */
  readonly recordingKey: KeyObject;
  /** Puts a set in force. */
  readonly adopt: (set: ManifestSet) => Promise<void>;
  /** Takes a certificate that the operator signed into use. */
  readonly serve: (certificate: Omit<ServingCertificate, "caPath">) => void;
  readonly sessions: () => Iterable<LiveSession>;
  /** The host key that clients meet, where the protocol has one. */
  readonly knownHosts: () => string | undefined;
  /** What other gateways of the resource ask of this one; absent where they have nothing to ask. */
  readonly peers: Pick<PlacedPeersOptions, "listen" | "take" | "give" | "onHandOver"> | undefined;
}

const dueMs = 10_000;
const refreshMs = 60_000;
const certificateTryMs = 5_000;

/** The control plane as the gateway's server uses it: policy in, reports and recordings out. */
export class ControlPlane {
  readonly #options: ControlPlaneOptions;
  readonly #client: ControlClient;
  readonly #link: RecorderLink | undefined;
  readonly #peers: PlacedPeers | undefined;
  readonly #servingKey: KeyObject = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  /** What sessions hold by. */
  readonly approvals: ClusterApprovals;
  #set: ManifestSet | undefined;
  #problems: readonly GatewayProblem[] = [];
  #loginProblem: GatewayProblem | undefined;
  #loopbackProblem: GatewayProblem | undefined;
  #recording: (SignedCertificate & { readonly renewAt: number }) | undefined;
  #servingRenewAt = 0;
  #isAsking = false;
  #triedAt = Number.NEGATIVE_INFINITY;
  /** Sessions that the operator knows: one of them that has no object later was deleted. */
  readonly #noted = new WeakSet<LiveSession>();
  #connectedAt: number | undefined;
  /** When each session was last reported. */
  readonly #reported = new WeakMap<LiveSession, Reported>();

  constructor(options: ControlPlaneOptions) {
    this.#options = options;
    const { configuration, log, version } = options;
    const { address, caFile, tokenFile, resource, recorder } = configuration;
    const peers =
      options.peers &&
      new PlacedPeers({
        ...options.peers,
        ...{ resource, log, certificate: (key) => this.#client.certificate("peer", key) },
      });
    this.#peers = peers;
    this.#client = new ControlClient({
      address,
      caFile,
      tokenFile,
      version,
      resource,
      log,
      handlers: {
        bundle: (bundle) => this.#adopt(bundle),
        endSession: (id, reason) => this.#endSession(id, reason),
        noted: (id) => {
          for (const session of this.#options.sessions()) if (session.id === id) this.#noted.add(session);
        },
        decision: ({ id, decision }) => this.approvals.decided(id, decision),
        windows: (windows) => this.approvals.opened(windows),
        welcome: () => this.approvals.reconnected(),
        ...(peers && {
          peers: (told) => peers.adopt(this.#client.podUid ?? "", told.authorities, told.peers),
        }),
      },
    });
    this.approvals = new ClusterApprovals(this.#client, configuration.resource);
    if (recorder !== "") {
      this.#link = new RecorderLink({
        address: () => this.#client.recorder ?? recorder,
        credentials: () => this.#credentials(),
        retentionMs: () => this.#retentionMs(),
        log,
      });
    }
  }

  /** The recorder elsewhere; undefined where recordings stay with the gateway. */
  async recorder(): Promise<Recorder | undefined> {
    return this.#link && createRemoteRecorder(this.#link, this.#options.recordingKey);
  }

  start(): void {
    this.#client.start();
    this.#link?.start();
  }

  /** Delivers what is recorded and reported, for at most so long. */
  async stop(deadlineMs: number): Promise<void> {
    this.approvals.close();
    this.#peers?.close();
    await this.#link?.stop(deadlineMs);
    await this.#client.stop();
  }

  /** Hands a cancel request to the gateway that has its session; false where none took it. */
  async handOver(order: CancelOrder): Promise<boolean> {
    return (await this.#peers?.handOver(order)) ?? false;
  }

  /** The id of a denial that another gateway gave; undefined where none has it, or says so in time. */
  async takeDenial(order: DenialOrder): Promise<string | undefined> {
    return this.#peers?.takeDenial(order);
  }

  /** True while nobody new may be let in: there is no policy, or no news of it for too long. */
  get isPolicyUnavailable(): boolean {
    const age = this.#client.newsAgeMs;
    return this.#set === undefined || age === undefined || age > this.#options.configuration.policyMaxAgeMs;
  }

  /** What a person should mend, of all that the server knows. */
  setProblems(problems: readonly GatewayProblem[]): void {
    this.#problems = problems;
  }

  /** A login failed behind the gateway: said until one succeeds. */
  upstreamFailed(reason: string | undefined, message = ""): void {
    this.#loginProblem = reason === undefined ? undefined : { reason, message };
  }

  /** Beside the server: whether it lets in without a credential whoever shares its loopback. */
  setLoopbackProblem(problem: GatewayProblem | undefined): void {
    this.#loopbackProblem = problem;
  }

  /** Called twice a second: reports sessions that are due, problems, and asks for certificates. */
  tick(): void {
    this.approvals.heard(this.#client.isConnected);
    // Whoever was away is told at once who is here: it may have missed that a session was to end.
    if (!this.#client.isConnected) this.#connectedAt = undefined;
    else this.#connectedAt ??= performance.now();
    for (const session of this.#options.sessions()) this.#reportLive(session);
    const failure = this.#link?.failure;
    const refusal = this.#link?.refusal;
    const unrecorded =
      (failure && { reason: "RecorderUnavailable", message: failure.message }) ??
      (refusal === undefined ? undefined : { reason: "RecorderFull", message: refusal });
    const all = [...this.#problems, this.#loginProblem, this.#loopbackProblem, unrecorded];
    this.#client.setProblems(all.filter((problem) => problem !== undefined));
    if (!this.#isAsking && this.#client.isConnected) void this.#renewServing();
    if (this.#client.isConnected) this.#peers?.tick();
  }

  /** A session's recording is closed: one that has an object, or should have, is reported as ended. */
  ended(session: LiveSession, endReason: string): void {
    const cause = causeOf(session);
    if (cause === undefined && !this.#reported.has(session)) return;
    const { finalHash } = session;
    this.#client.report({
      ...describe(session, cause ?? "age", this.#client.recorder, this.#options.configuration.protocol),
      state: "Ended",
      endedAt: Date.now(),
      endReason,
      ...(finalHash !== undefined && { finalHash }),
    });
  }

  #reportLive(session: LiveSession): void {
    const cause = causeOf(session);
    if (cause === undefined) return;
    const last = this.#reported.get(session);
    const now = performance.now();
    const { refused, held } = session.counts;
    const rules = session.brokeGlass?.rules.length ?? 0;
    const hasMissed = last !== undefined && last.at < (this.#connectedAt ?? 0);
    const isNews =
      last === undefined ||
      hasMissed ||
      (last.refused === 0 && refused > 0) ||
      (last.held === 0 && held > 0) ||
      rules > last.rules;
    if (!isNews && now - last.at < refreshMs) return;
    this.#reported.set(session, { at: now, refused, held, rules });
    this.#client.report({
      ...describe(session, cause, this.#client.recorder, this.#options.configuration.protocol),
      state: "Live",
      noted: this.#noted.has(session),
    });
  }

  async #adopt(bundle: Bundle): Promise<BundleOutcome> {
    const objects = bundle.documents.map(({ json }) => JSON.parse(json) as Manifest);
    const { resource } = this.#options.configuration;
    const { set, problems } = manifestSetOf(objects, this.#set, { approvals: true });
    const served = set.resources.get(resource);
    // Whatever else were in it: this process serves one resource.
    const own = { ...set, resources: new Map(served === undefined ? [] : [[resource, served] as const]) };
    for (const problem of problems) this.#options.log.warn({ problem }, "a policy has a problem");
    await this.#options.adopt(own);
    this.#set = own;
    const knownHosts = this.#options.knownHosts();
    return { accepted: problems.length === 0, problems, ...(knownHosts && { knownHosts }) };
  }

  #endSession(id: string, reason: string): void {
    for (const session of this.#options.sessions()) {
      if (session.id !== id) continue;
      this.#options.log.info({ session: id, reason }, "a session is ended by the operator");
      session.end("sessionRevoked");
    }
  }

  #retentionMs(): number {
    const [served] = this.#set?.resources.values() ?? [];
    const retention = served?.spec.recording.retention;
    return (retention === undefined ? undefined : durationMs(retention)) ?? forEverMs;
  }

  async #credentials(): Promise<RecorderCredentials> {
    const { recordingKey } = this.#options;
    const now = Date.now();
    if (this.#recording === undefined || now >= this.#recording.renewAt) {
      const signed = await this.#client.certificate("recording", recordingKey);
      this.#recording = { ...signed, renewAt: renewalOf(signed.certificate) };
    }
    const { certificate, authorities } = this.#recording;
    return { certificate, authorities, key: pemOf(recordingKey) };
  }

  async #renewServing(): Promise<void> {
    const now = performance.now();
    if (Date.now() < this.#servingRenewAt || now - this.#triedAt < certificateTryMs) return;
    this.#isAsking = true;
    this.#triedAt = now;
    try {
      const { certificate } = await this.#client.certificate("serving", this.#servingKey);
      this.#servingRenewAt = renewalOf(certificate);
      this.#options.serve({ certificate, key: pemOf(this.#servingKey) });
      this.#options.log.info({}, "the operator signed the serving certificate");
    } catch (error) {
      const cause = error instanceof Error ? error.message : "failed";
      this.#options.log.warn({ cause }, "there is no serving certificate of the operator's yet");
    } finally {
      this.#isAsking = false;
    }
  }
}

interface Reported {
  readonly at: number;
  readonly refused: number;
  readonly held: number;
  /** By how many rules' break-glass it had gone past approval. */
  readonly rules: number;
}

const forEverMs = 100 * 365 * 86_400_000;

function causeOf(session: LiveSession): SessionReport["cause"] | undefined {
  if (session.counts.refused > 0) return "denied";
  // What would have been held, and was let through: that, too, is told at once.
  if (session.counts.held > 0 || session.brokeGlass !== undefined) return "held";
  return session.ageMs >= dueMs ? "age" : undefined;
}

function describe(
  session: LiveSession,
  cause: SessionReport["cause"],
  recorder: string | undefined,
  protocol: string,
): Omit<SessionReport, "state"> {
  const { id, identity, facts, counts, ageMs, brokeGlass } = session;
  return {
    id,
    cause,
    user: identity.user.slice(0, 1024),
    subjectKind: identity.kind,
    protocol,
    account: facts.account.slice(0, 256),
    database: facts.database.slice(0, 256),
    clientAddress: facts.clientAddress.slice(0, 256),
    startedAt: Math.round(Date.now() - ageMs),
    commands: counts.commands,
    refused: counts.refused,
    held: counts.held,
    ...(brokeGlass !== undefined && { brokeGlass }),
    ...(recorder !== undefined && { recorder }),
  };
}

function pemOf(key: KeyObject): string {
  return key.export({ type: "pkcs8", format: "pem" }).toString();
}
