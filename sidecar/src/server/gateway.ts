/**
 * The gateway process: reads manifests, opens a listener for each protected resource, hands connections to their
 * protocols, follows changes, and drains at the end. Only this folder and `wire` open sockets.
 */
import type { KeyObject } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { asksPeers, serveAdmin } from "@sallyport/control";
import { durationMs } from "@sallyport/crds";
import { loadSqlParser, warmSqlAnalysis } from "@sallyport/policy";
import type { Logger } from "pino";
import type { ApprovalService } from "../approval/index.ts";
import { createAuthenticator, type ReloadableAuthenticator } from "../identity/authenticator.ts";
import { loadProtocol } from "../protocols/index.ts";
import { chainFolder } from "../recording/chains.ts";
import type { PublishedHead, Recorder } from "../recording/model.ts";
import { openNull } from "../recording/null-recorder.ts";
import { createRecorder, type FirstRecorder } from "../recording/recorder.ts";
import { loadSigningKey } from "../recording/signing-key.ts";
import { NewestWhole, replaceWhole } from "../recording/whole-file.ts";
import { type ErrorCode, errorTable, GatewayError } from "../wire/gateway-error.ts";
import { defaultLimits, type Limits } from "../wire/limits.ts";
import { network } from "../wire/network.ts";
import { ApprovalHost } from "./approval-host.ts";
import type { Identified } from "./approval-server.ts";
import type { ControlConfiguration, GatewayConfiguration } from "./configuration.ts";
import type { ControlPlane } from "./control-plane.ts";
import type { LiveSession } from "./live-session.ts";
import { LoopbackWatch } from "./loopback-watch.ts";
import {
  type LoadedSet,
  loadManifestSet,
  type ManifestSet,
  manifestSetOf,
  type ServedResource,
} from "./manifest-set.ts";
import { loadMaskingKey, sealingSecretOf } from "./masking-key.ts";
import { Metrics } from "./metrics.ts";
import { keepParserAsCompiled } from "./parser-memory.ts";
import { type Peers, peersOf } from "./peers.ts";
import type { HandOver } from "./placed-peers.ts";
import { type ApprovalEvent, ResourceHost, serverContext } from "./resource-host.ts";
import { Secrets } from "./secrets.ts";
import { issueServingCertificate, type ServingCertificate } from "./serving-certificate.ts";
import {
  folderFingerprint,
  type Look,
  lookAt,
  manifestsFingerprint,
  readEarly,
  readSettled,
} from "./settled-folder.ts";
import { type CancelOrder, type DenialOrder, LocalState, type SharedState } from "./shared-state.ts";
import { giveBackStartupMemory, LoginGarbage, optimiseLess } from "./startup-memory.ts";
import { upstreamProblem } from "./upstream-problem.ts";

/** Where a resource can be reached. */
export interface Listening {
  readonly resource: string;
  readonly host: string;
  readonly port: number;
  /** What an SSH client puts into known_hosts, behind the name that it uses. */
  readonly knownHosts?: string;
  readonly fingerprint?: string;
}

/** One of several processes that serve the same listeners; see processes.ts. */
export interface ProcessPart {
  readonly process: number;
  readonly shared: SharedState;
  readonly certificate: ServingCertificate;
  /** True where no other process of this gateway listens yet. */
  readonly isFirst: boolean;
  /** Has the first process vouch for this one's recordings. */
  readonly announceChain: (chain: number) => Promise<void>;
  readonly publishHead: (head: PublishedHead) => Promise<void>;
  /** What sessions hold by; absent where nobody can be asked. */
  readonly approvals?: ApprovalService;
}

/** How long what is recorded may take to reach the recorder when the gateway stops. */
const lastWordsMs = 5_000;
const gatewayVersion = "0.1.0";
const tickMs = 500;
const headEveryMs = 60_000;
const pruneEveryMs = 600_000;

/** A running gateway. */
export class Gateway {
  private readonly configuration: GatewayConfiguration;
  private readonly log: Logger;
  private readonly limits: Limits;
  readonly metrics: Metrics;
  private readonly part: ProcessPart | undefined;
  private readonly shared: SharedState;
  private readonly peers: Peers | undefined;
  /** Connections that have not logged in, by address. */
  private readonly pending = new Map<string, number>();
  private pendingCount = 0;
  private readonly secrets: Secrets;
  private readonly hosts = new Map<
    string,
    {
      readonly host: ResourceHost;
      readonly servers: readonly Server[];
      readonly announced: () => Readonly<Record<string, string>>;
    }
  >();
  /** Resources of the set in force whose port could not be had. */
  private readonly unopened = new Set<string>();
  private readonly sockets = new Set<Socket>();
  private connections = 0;
  private readonly loginGarbage = new LoginGarbage();
  private set: ManifestSet | undefined;
  private fingerprint = "";
  private certificate: ServingCertificate | undefined;
  private maskingKey: Buffer = Buffer.alloc(0);
  private readonly headFile: NewestWhole;
  private authenticator: ReloadableAuthenticator | undefined;
  private recorder: (Recorder & Partial<FirstRecorder>) | undefined;
  private plane: ControlPlane | undefined;
  private loopback: LoopbackWatch | undefined;
  private approvalHost: ApprovalHost | undefined;
  private admin: import("node:http").Server | undefined;
  private timer: NodeJS.Timeout | undefined;
  /** The look at the manifests that is under way, and the one that whoever asks meanwhile waits for. */
  private looking: Promise<void> | undefined;
  private lookingNext: Promise<void> | undefined;
  private headPublishedMs = performance.now();
  private headPublished = "";
  private prunedMs = Number.NEGATIVE_INFINITY;
  private isDraining = false;
  private readonly stopping = new AbortController();
  private notReady: string | undefined = "starting";
  readonly listening: Listening[] = [];

  constructor(configuration: GatewayConfiguration, log: Logger, part?: ProcessPart) {
    this.configuration = configuration;
    this.log = log;
    this.part = part;
    this.metrics = new Metrics(part?.process);
    this.limits = {
      ...defaultLimits,
      drainMs: configuration.drainMs,
      pendingLoginsMax: configuration.pendingLoginsMax,
      pendingLoginsByAddressMax: configuration.pendingLoginsByAddressMax,
      loginMs: configuration.loginMs,
    };
    this.shared =
      part?.shared ??
      new LocalState(configuration, () => performance.now(), {
        forwardCancel: (order) => this.forwardCancel(order),
        takeDenial: async (order) => this.plane?.takeDenial(order),
      });
    this.peers =
      part === undefined ? peersOf(configuration, (order) => this.receiveCancel(order)) : undefined;
    this.secrets = new Secrets(configuration.secrets);
    this.headFile = new NewestWhole(join(configuration.state, "recording-head.json"), 0o644);
  }

  /** Opens everything; throws with a clear message where the gateway cannot start. */
  async start(): Promise<void> {
    const optimiseAgain = optimiseLess();
    try {
      await this.startUp();
    } finally {
      optimiseAgain();
    }
  }

  private async startUp(): Promise<void> {
    const { state, recordings } = this.configuration;
    const names = [this.configuration.listen, ...this.configuration.tlsNames];
    // Another process makes it meanwhile; what goes wrong there is told where it is awaited.
    const { part } = this;
    const issued =
      part === undefined ? issueServingCertificate(state, names) : Promise.resolve(part.certificate);
    issued.catch(() => undefined);
    keepParserAsCompiled();
    // Whoever is writing there has the time until everything else is loaded to be found out.
    const first = await lookAt(() => this.currentFingerprint());
    const early = readEarly(() => this.readManifests());
    await loadSqlParser();
    warmSqlAnalysis();
    await loadLikelyProtocols(early);
    giveBackStartupMemory();
    const { value: loaded, fingerprint } = await this.readSettled(first, early);
    this.fingerprint = fingerprint;
    const { control } = this.configuration;
    if (loaded.kind === "broken")
      throw new Error(`the manifests are not accepted:\n  ${loaded.problems.join("\n  ")}`);
    for (const problem of loaded.problems) this.log.warn({ problem }, "a manifest has a problem");
    this.set = loaded.set;
    this.secrets.replace(loaded.set.secrets);
    await mkdir(state, { recursive: true, mode: 0o700 });
    const key = await loadSigningKey(join(state, "recording.key.pem"), { create: true });
    this.maskingKey = await loadMaskingKey(this.configuration.maskingKey, state);
    const chain = part === undefined || part.process === 0 ? {} : { chain: part.process };
    if (control !== undefined) this.plane = await this.controlPlane(control, key);
    const folder = chainFolder(recordings, chain.chain ?? 0);
    this.recorder = (await this.plane?.recorder()) ?? (await createRecorder({ folder, key, ...chain }));
    // Nobody is served before the first process has noted that there are recordings here, too.
    if (chain.chain !== undefined) await part?.announceChain(chain.chain);
    this.certificate = await issued;
    this.authenticator = createAuthenticator({
      providers: loaded.set.providers,
      clock: Date.now,
      allowHttpLoopback: true,
    });
    for (const problem of this.authenticator.problems)
      this.log.warn({ problem }, "an identity provider has a problem");
    if (part === undefined && this.abilities.approvals)
      this.approvalHost = await ApprovalHost.open(this.configuration, (token, resource) =>
        this.identify(token, resource),
      );
    for (const [name, served] of loaded.set.resources) await this.open(name, served, loaded.set);
    // The port answers before there is policy, so that nobody waits for the operator.
    if (control !== undefined && control.listenPort > 0) {
      await this.open(control.resource, unplaced(control), loaded.set);
    }
    this.plane?.start();
    this.loopback = this.loopbackWatch();
    this.reportMissingSecrets(loaded.set);
    this.metrics.manifestsAccepted.set(1);
    this.timer = setInterval(() => void this.tick(), tickMs);
    await this.peers?.listenAsConfigured(this.configuration);
    if (part === undefined) await this.openAdmin();
    // Whoever waits for this finds listening.json, too.
    if (!this.isDraining) this.notReady = undefined;
  }

  private async openAdmin(): Promise<void> {
    const { adminHost, adminPort, state } = this.configuration;
    const registry = this.metrics.registry;
    this.admin = await serveAdmin({
      host: adminHost,
      port: adminPort,
      metrics: async () => ({ text: await registry.metrics(), type: registry.contentType }),
      notReady: () => this.readiness(),
    });
    const address = this.admin.address();
    const admin = typeof address === "object" && address !== null ? address.port : adminPort;
    const ca = this.certificate?.caPath;
    const described = { listeners: this.listening, admin, ca, pid: process.pid };
    await replaceWhole(join(state, "listening.json"), JSON.stringify(described), 0o644);
    this.log.info({ listeners: this.listening, admin }, "the gateway is ready");
  }

  private get abilities() {
    return { approvals: this.configuration.approvers.length > 0 };
  }

  /** Who a token speaks for on one resource of this gateway. */
  async identify(token: string, resource: string): Promise<Identified> {
    const found = this.hosts.get(resource);
    if (found === undefined) return { kind: "refused", message: "there is no such resource" };
    return found.host.identify(token);
  }

  /** Tells sessions, waits for them up to the deadline, ends the rest, and closes the recordings. */
  async stop(): Promise<void> {
    if (this.isDraining) return;
    this.isDraining = true;
    this.stopping.abort();
    this.notReady = "draining";
    clearInterval(this.timer);
    this.loginGarbage.close();
    for (const { host, servers } of this.hosts.values()) {
      for (const server of servers) server.close();
      host.drain();
    }
    const deadline = performance.now() + this.limits.drainMs;
    while (this.sessionCount() > 0 && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    for (const { host } of this.hosts.values()) for (const session of host.sessions) session.end("draining");
    const last = performance.now() + 5_000;
    while (this.sessionCount() > 0 && performance.now() < last) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    for (const socket of this.sockets) socket.destroy();
    this.authenticator?.close();
    this.peers?.close();
    await this.approvalHost?.close();
    this.admin?.close();
    this.admin?.closeAllConnections();
    await this.recorder?.close();
    this.loopback?.stop();
    await this.plane?.stop(lastWordsMs);
    await this.publishHead();
    this.log.info("the gateway has stopped");
  }

  private sessionCount(): number {
    let count = 0;
    for (const { host } of this.hosts.values()) count += host.sessions.size;
    return count;
  }

  /** Of a gateway of one process: what is not here is with another replica, or nowhere. */
  private forwardCancel(order: CancelOrder): Promise<boolean> {
    if (this.plane !== undefined) return this.plane.handOver(order);
    if (order.replica === this.configuration.replica) return Promise.resolve(false);
    return this.peers?.send(order) ?? Promise.resolve(false);
  }

  /** Takes a cancel request that arrived in another process, or came back to this one. */
  receiveCancel({ resource, processId, keyHex }: CancelOrder): Promise<boolean> {
    const found = this.hosts.get(resource);
    return found?.host.receiveCancel(processId, Buffer.from(keyHex, "hex")) ?? Promise.resolve(false);
  }

  /** A denial that was given here, and whose other half arrived elsewhere. */
  giveDenial({ resource, digest }: DenialOrder): string | undefined {
    return this.hosts.get(resource)?.host.giveDenial(digest);
  }

  /** Notes in this process's log that another one records below its folder. */
  async announceChain(chain: number): Promise<void> {
    if (this.recorder === undefined) throw new Error("the gateway has not started");
    await this.recorder.announceChain?.(chain);
  }

  /** Why no sessions are taken; undefined while they are. */
  readiness(): string | undefined {
    if (this.notReady !== undefined) return this.notReady;
    if (this.plane?.isPolicyUnavailable === true) return "there is no policy, or no news of it";
    return this.recorder?.failure === undefined ? undefined : "the recording cannot be written";
  }

  private async open(name: string, served: ServedResource, set: ManifestSet): Promise<void> {
    const protocol = await loadProtocol(served.spec.protocol);
    if (protocol === undefined) {
      this.log.warn(
        { resource: name, protocol: served.spec.protocol },
        "this build does not speak the protocol",
      );
      return;
    }
    const { recorder, authenticator } = this;
    if (recorder === undefined || authenticator === undefined) throw new Error("the gateway has not started");
    const decisions = this.metrics.decisionsOf(name);
    // A counter that begins at one has not increased, as Prometheus sees it.
    this.metrics.breakGlass.inc({ resource: name }, 0);
    const host = new ResourceHost(name, served, set, {
      authenticator,
      recorder,
      nullRecorder: openNull(),
      secrets: this.secrets,
      shared: this.shared,
      place: { replica: this.configuration.replica, process: this.part?.process ?? 0 },
      limits: this.limits,
      defaultPort: protocol.defaultPort,
      sibling: (key) => this.hosts.get(key)?.host,
      clock: { monotonicMs: () => performance.now(), nowMs: Date.now },
      servingTls: (resource, clientCa) => this.servingTls(resource, clientCa),
      maskingKey: this.maskingKey,
      onMasked: (resource, values) => this.metrics.masked.inc({ resource }, values),
      onPattern: (resource, pattern) => this.metrics.patterns.inc({ resource, pattern }),
      onLimit: (resource, limit) => this.metrics.limits.inc({ resource, limit }),
      onDecision: (_resource, { action }) => {
        decisions[action] += 1;
      },
      ...this.approvals(),
      onLogin: (resource, error, id) => this.loginFailed(resource, error, id),
      ...(this.plane !== undefined && this.controlled(this.plane)),
      // Of several processes each looks for itself: none lets in whom another has already shut out.
      ...(this.part !== undefined && { newestPolicy: () => this.lookAgain() }),
      onSession: (resource, change, reason) => {
        if (change === 1) {
          this.metrics.sessions.inc({ resource });
          this.metrics.logins.inc({ resource, result: "ok" });
          this.plane?.upstreamFailed(undefined);
        } else {
          this.metrics.sessions.dec({ resource });
          this.metrics.ended.inc({ resource, reason });
        }
      },
      onLockOut: (resource, by) => {
        this.metrics.lockOuts.inc({ resource, by });
        this.log.warn({ resource, by }, "logins are locked out");
      },
      onProblem: (resource, problem, facts) => this.log.warn({ ...facts, resource }, problem),
    });
    const onConnection = (socket: Socket) =>
      this.accept(socket, host, (each, hasLoggedIn) => protocol.serve(each, host, hasLoggedIn));
    const servers = [createServer({ noDelay: true }, onConnection)];
    const shares = this.part === undefined ? {} : { reusePort: true };
    const placed = this.configuration.control?.listenPort || undefined;
    const port = placed ?? served.spec.listen.port ?? protocol.defaultPort;
    const [server] = servers;
    if (server === undefined) return;
    const { listen: bindHost } = this.configuration;
    // A port that is shared is shared with any process of the same user: find a stranger before joining it.
    if (this.part?.isFirst === true && this.notReady !== undefined) await probe(bindHost, port);
    await listen(server, { host: bindHost, port, ...shares });
    const address = server.address();
    const bound = typeof address === "object" && address !== null ? address.port : port;
    // A Unix domain socket cannot be shared like a port: the first process serves it.
    if (this.configuration.listenUnix !== "" && (this.part?.process ?? 0) === 0) {
      try {
        await mkdir(this.configuration.listenUnix, { recursive: true });
        const local = createServer(onConnection);
        const path = join(this.configuration.listenUnix, `.s.PGSQL.${bound}`);
        await removeAbandoned(path);
        await listen(local, { path });
        servers.push(local);
      } catch (error) {
        server.close();
        throw error;
      }
    }
    const announce = () => protocol.announce?.(host) ?? {};
    const announced = announce();
    if (Object.keys(announced).length > 0)
      this.log.info({ resource: name, ...announced }, "clients should know this");
    this.listening.push({ resource: name, host: this.configuration.listen, port: bound, ...announced });
    this.hosts.set(name, { host, servers, announced: announce });
    // A reload may have been under way when the end was asked for.
    if (this.isDraining) for (const each of servers) each.close();
  }

  private accept(socket: Socket, host: ResourceHost, serve: Serve): void {
    socket.on("error", () => undefined);
    const { limits } = this;
    const address = network(socket.remoteAddress ?? "local");
    const ofAddress = this.pending.get(address) ?? 0;
    const isCrowded =
      this.pendingCount >= limits.pendingLoginsMax || ofAddress >= limits.pendingLoginsByAddressMax;
    if (this.connections >= limits.sessionsMax || isCrowded) {
      // More than we can serve: the cheapest answer is none.
      socket.destroy();
      host.report(new GatewayError("tooManySessions"), "");
      return;
    }
    this.connections += 1;
    this.sockets.add(socket);
    this.pendingCount += 1;
    this.pending.set(address, ofAddress + 1);
    let isPending = true;
    const hasLoggedIn = () => {
      if (!isPending) return;
      isPending = false;
      this.loginGarbage.loggedIn();
      this.pendingCount -= 1;
      const left = (this.pending.get(address) ?? 1) - 1;
      if (left > 0) this.pending.set(address, left);
      else this.pending.delete(address);
    };
    serve(socket, hasLoggedIn)
      .catch((error: unknown) => this.log.error({ err: error }, "a connection failed unexpectedly"))
      .finally(() => {
        hasLoggedIn();
        this.connections -= 1;
        this.sockets.delete(socket);
      });
  }

  private servingTls(resource: ServedResource, clientCa: readonly string[]) {
    const { certificateRef } = resource.spec.tls;
    if (certificateRef === undefined) {
      if (this.certificate === undefined) throw new GatewayError("credentialMissing");
      return serverContext(this.certificate.certificate, this.certificate.key, clientCa);
    }
    const { namespace } = resource.facts;
    const certificate = this.secrets.read(namespace, certificateRef.name, "tls.crt");
    const key = this.secrets.read(namespace, certificateRef.name, "tls.key");
    if (certificate === undefined || key === undefined) throw new GatewayError("credentialMissing");
    return serverContext(certificate, key, clientCa);
  }

  /** Only beside the server; elsewhere its loopback is out of reach. */
  private loopbackWatch(): LoopbackWatch | undefined {
    const { plane } = this;
    const nearby = this.configuration.control?.upstream;
    if (plane === undefined || nearby === undefined) return undefined;
    return new LoopbackWatch({
      port: nearby.port,
      served: () => this.set?.resources.values().next().value,
      secrets: this.secrets,
      onFound: (problem) => plane.setLoopbackProblem(problem),
    });
  }

  /** Loads what a gateway without an operator never needs. */
  private async controlPlane(control: ControlConfiguration, recordingKey: KeyObject): Promise<ControlPlane> {
    const { ControlPlane } = await import("./control-plane.ts");
    return new ControlPlane({
      configuration: control,
      version: gatewayVersion,
      log: this.log,
      recordingKey,
      adopt: (set) => this.adopt(set),
      serve: (certificate) => {
        this.certificate = { ...certificate, caPath: this.certificate?.caPath ?? "" };
        for (const { host } of this.hosts.values()) host.renewTls();
      },
      sessions: () => this.allSessions(),
      knownHosts: () => this.hosts.get(control.resource)?.announced().knownHosts,
      peers: this.placedPeers(control),
    });
  }

  private placedPeers({ protocol, resource }: ControlConfiguration) {
    const { peerListen: listen } = this.configuration;
    if (!asksPeers(protocol) || listen === undefined) return undefined;
    return {
      listen,
      take: (order: CancelOrder) => this.receiveCancel(order),
      give: (order: DenialOrder) => this.giveDenial(order),
      onHandOver: (result: HandOver) => this.metrics.handOvers.inc({ resource, result }),
    };
  }

  private *allSessions() {
    for (const { host } of this.hosts.values()) yield* host.sessions;
  }

  private approvals() {
    const approvals = this.part?.approvals ?? this.approvalHost?.service ?? this.plane?.approvals.service;
    if (approvals === undefined) return {};
    return {
      approvals,
      onApproval: (resource: string, event: ApprovalEvent) => {
        this.metrics.approvals.inc({ resource, event });
        if (event !== "breakGlass") return;
        this.metrics.breakGlass.inc({ resource });
        this.log.warn({ resource }, "a command went past approval by break-glass");
      },
    };
  }

  private controlled(plane: ControlPlane) {
    const nearby = this.configuration.control?.upstream;
    return {
      isPolicyUnavailable: () => plane.isPolicyUnavailable,
      onRecorded: (session: LiveSession, reason: string) => plane.ended(session, reason),
      ...(nearby && { nearby }),
      isPlaced: true,
      // One that a gateway has made for itself would not let the others' keys through.
      ...(this.configuration.maskingKey !== "" && { sealingSecret: sealingSecretOf(this.maskingKey) }),
    };
  }

  /** A secret may come later, so its absence ends nothing; but whoever reads the log should not wait for a login. */
  private reportMissingSecrets(set: ManifestSet): void {
    const problems: { readonly reason: string; readonly message: string; readonly subject: string }[] = [];
    for (const [resource, { facts, spec }] of set.resources) {
      for (const credential of spec.credentials) {
        try {
          this.secrets.account(facts.namespace, credential, spec.endpoint);
        } catch (error) {
          const hint = error instanceof GatewayError ? error.hint : undefined;
          const fields = { resource, credential: credential.name, secret: credential.secretRef.name, hint };
          this.log.warn(fields, "a credential is missing; logins that need it are refused");
          const subject = credential.secretRef.name;
          problems.push({ reason: "SecretMissing", message: hint ?? "the secret is missing", subject });
        }
      }
    }
    this.plane?.setProblems(problems);
  }

  private loginFailed(resource: string, error: unknown, id: string): void {
    const code = error instanceof GatewayError ? error.code : "failed";
    this.metrics.logins.inc({ resource, result: code });
    const cause = error instanceof GatewayError ? error.cause : error;
    const detail = cause instanceof Error ? cause.message : undefined;
    const reason = upstreamProblem(code, cause);
    if (reason !== undefined) this.plane?.upstreamFailed(reason, errorTable[code as ErrorCode].text);
    this.log.info(
      { resource, code, id, ...(detail === undefined ? {} : { cause: detail }) },
      "a connection ended",
    );
  }

  private async tick(): Promise<void> {
    for (const { host } of this.hosts.values()) {
      for (const session of host.sessions) {
        session.checkDeadlines();
        session.followTime();
      }
    }
    this.plane?.tick();
    this.loopback?.tick();
    this.metrics.recordingUp.set(this.recorder?.failure === undefined ? 1 : 0);
    if (performance.now() - this.headPublishedMs >= headEveryMs) await this.publishHead();
    if (performance.now() - this.prunedMs >= pruneEveryMs) await this.prune();
    if (this.looking === undefined) await this.lookAgain();
  }

  /**
   * Looks at the manifests and puts in force what has changed; never rejects. One look at a time: whoever asks while one
   * runs waits for another, because that one may have read the folder before what made him ask.
   */
  private lookAgain(): Promise<void> {
    if (this.looking === undefined) {
      this.looking = this.look().finally(() => {
        this.looking = undefined;
      });
      return this.looking;
    }
    this.lookingNext ??= this.looking.then(() => {
      this.lookingNext = undefined;
      return this.lookAgain();
    });
    return this.lookingNext;
  }

  private async look(): Promise<void> {
    try {
      const first = await lookAt(() => this.currentFingerprint());
      if (first.fingerprint === this.fingerprint) {
        if (this.unopened.size > 0) await this.openMissing();
        return;
      }
      const { value: loaded, fingerprint } = await this.readSettled(first);
      this.fingerprint = fingerprint;
      await this.reload(loaded);
    } catch (error) {
      if (this.isDraining) return;
      this.log.error(
        { err: error },
        "the manifests could not be read again; the last accepted set stays in force",
      );
      this.metrics.reloads.inc({ result: "failed" });
    }
  }

  /** Tells the head of the recordings' log outside their volume: without it, a cut-off end cannot be told. */
  private async publishHead(): Promise<void> {
    this.headPublishedMs = performance.now();
    const head = this.recorder?.publishedHead();
    if (head === undefined || head.hash === this.headPublished) return;
    this.headPublished = head.hash;
    this.log.info({ head }, "the head of the recordings");
    if (this.part !== undefined) {
      await this.part.publishHead(head).catch(() => undefined);
      return;
    }
    await this.headFile
      .replace(JSON.stringify(head))
      .catch((error: unknown) =>
        this.log.warn({ err: error }, "the head of the recordings could not be written"),
      );
  }

  /** Removes recordings that have outlived their resource's retention; the log keeps that they were removed. */
  private async prune(): Promise<void> {
    this.prunedMs = performance.now();
    for (const { facts, spec } of this.set?.resources.values() ?? []) {
      const olderThanMs =
        spec.recording.retention === undefined ? undefined : durationMs(spec.recording.retention);
      if (olderThanMs === undefined) continue;
      const { namespace, name: resource } = facts;
      try {
        const removed = (await this.recorder?.prune({ olderThanMs, namespace, resource })) ?? 0;
        if (removed > 0)
          this.log.info({ namespace, resource, removed }, "recordings outlived their retention");
      } catch (error) {
        this.log.warn({ err: error, namespace, resource }, "old recordings could not be removed");
      }
    }
  }

  private async currentFingerprint(): Promise<string> {
    const isControlled = this.configuration.control !== undefined;
    const own = isControlled ? "" : await manifestsFingerprint(this.configuration.manifests);
    const secrets = await folderFingerprint(this.configuration.secrets).catch(() => "");
    return `${own}\n${secrets}`;
  }

  private readSettled(first: Look, early?: Promise<LoadedSet>) {
    return readSettled({
      first,
      fingerprint: () => this.currentFingerprint(),
      read: () => this.readManifests(),
      signal: this.stopping.signal,
      ...(early && { early }),
    });
  }

  private async readManifests(): Promise<LoadedSet> {
    const { control, manifests } = this.configuration;
    return control === undefined ? await loadManifestSet(manifests, this.set, this.abilities) : nothingYet;
  }

  private async reload(loaded: LoadedSet): Promise<void> {
    if (this.plane !== undefined) {
      // Only mounted secrets can have changed.
      if (this.set !== undefined) await this.adopt(this.set);
      return;
    }
    for (const problem of loaded.problems) this.log.warn({ problem }, "a manifest has a problem");
    if (loaded.kind === "broken") {
      this.metrics.reloads.inc({ result: "refused" });
      this.metrics.manifestsAccepted.set(0);
      this.log.error("the manifests are not accepted; the last accepted set stays in force");
      return;
    }
    this.metrics.reloads.inc({ result: "accepted" });
    this.metrics.manifestsAccepted.set(loaded.problems.length === 0 ? 1 : 0);
    await this.adopt(loaded.set);
  }

  /**
   * Opens what the set in force has and is not open: new resources, and those whose port was taken. One that cannot be opened keeps
   * no other one from it, and is tried again.
   */
  private async openMissing(): Promise<void> {
    const { set } = this;
    for (const name of this.unopened) if (set?.resources.has(name) !== true) this.unopened.delete(name);
    for (const [name, served] of set?.resources ?? []) {
      if (set === undefined || this.hosts.has(name)) continue;
      try {
        await this.open(name, served, set);
        this.unopened.delete(name);
      } catch (error) {
        if (!this.unopened.has(name))
          this.log.error({ err: error, resource: name }, "the resource cannot be opened; it is tried again");
        this.unopened.add(name);
      }
    }
  }

  /** Puts a set in force, in live sessions too. */
  private async adopt(set: ManifestSet): Promise<void> {
    this.set = set;
    this.secrets.replace(set.secrets);
    this.authenticator?.reload(set.providers);
    for (const [name, { host }] of this.hosts) host.adopt(set.resources.get(name), set);
    await this.openMissing();
    this.reportMissingSecrets(set);
    this.log.info({ resources: set.resources.size }, "the manifests were read again");
  }
}

/** Removes the socket that a killed process has left behind; one that somebody answers on stays. */
async function removeAbandoned(path: string): Promise<void> {
  const answer = await new Promise<string>((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve("answered");
    });
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""));
  });
  if (answer === "ECONNREFUSED") await rm(path, { force: true });
}

/** A gateway that the operator placed begins without a set: nobody gets in before it has one. */
const nothingYet = {
  kind: "loaded",
  set: manifestSetOf([], undefined).set,
  problems: [] as readonly string[],
} as const;

/** Loads what the manifests will ask for if they are what they seem now: it is our own code, and opens nothing yet. */
async function loadLikelyProtocols(early: Promise<LoadedSet>): Promise<void> {
  const loaded = await early.catch(() => undefined);
  if (loaded?.kind !== "loaded") return;
  for (const { spec } of loaded.set.resources.values()) await loadProtocol(spec.protocol);
}

/** What stands for the resource until the operator has said what it is: it serves nobody. */
function unplaced({ resource, protocol, listenPort }: ControlConfiguration): ServedResource {
  const [namespace = "", name = ""] = resource.split("/");
  return {
    facts: { namespace, name, labels: {}, namespaceLabels: {}, protocol },
    audience: `sallyport:${resource}`,
    spec: {
      protocol,
      endpoint: { host: "localhost", port: listenPort },
      placement: { mode: "Shared" },
      listen: { port: listenPort },
      tls: { upstream: { mode: "verify-full" } },
      credentials: [],
      identity: { providers: [] },
      enforcement: "Enforce",
      recording: { mode: "Required", durability: "Durable", content: ["commands"] },
      classification: [],
      bypassProtection: { networkPolicy: "Enforce", exec: "Enforce" },
    } as unknown as ServedResource["spec"],
  };
}

type Serve = (socket: Socket, hasLoggedIn: () => void) => Promise<void>;

async function probe(host: string, port: number): Promise<void> {
  const server = createServer();
  await listen(server, { host, port });
  await new Promise((resolve) => server.close(resolve));
}

interface ListenPlace {
  readonly host?: string;
  readonly port?: number;
  readonly path?: string;
  readonly reusePort?: boolean;
}

function listen(server: Server, options: ListenPlace): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ backlog: 4096, ...options }, () => {
      server.off("error", reject);
      server.on("error", () => undefined);
      resolve();
    });
  });
}
