import { randomUUID } from "node:crypto";
import { createSecureContext, type TLSSocket } from "node:tls";
import {
  forSession,
  type Identity,
  type SessionFacts,
  type SessionPolicy,
  type Verdict,
} from "@sallyport/policy";
import type { ApprovalService } from "../approval/index.ts";
import { type ReachedLimit, type SessionApprovals, SessionGuard } from "../guard/index.ts";
import { beginDeviceLogin, deviceLoginOf } from "../identity/device-code.ts";
import type { Authenticator, Credential } from "../identity/model.ts";
import type {
  AdmittedSession,
  CancelRoutes,
  DenialRoutes,
  LoginClaim,
  ProtocolHost,
  UpstreamAccount,
} from "../protocols/protocol.ts";
import type { Recorder } from "../recording/model.ts";
import type { SocketChannel, TlsServerOptions } from "../wire/channel.ts";
import type { UpstreamTarget } from "../wire/dial.ts";
import { GatewayError } from "../wire/gateway-error.ts";
import type { Limits } from "../wire/limits.ts";
import { hasVerifiedPeer } from "../wire/peer-certificate.ts";
import { noReach } from "../wire/reach.ts";
import type { Identified } from "./approval-server.ts";
import { BreakGlassTally } from "./break-glass-tally.ts";
import { LiveSession } from "./live-session.ts";
import type { ManifestSet, ServedResource } from "./manifest-set.ts";
import { type Secrets, serverOf } from "./secrets.ts";
import type { SharedState } from "./shared-state.ts";

/** What all resources of the process share. */
export interface HostServices {
  readonly authenticator: Authenticator;
  readonly recorder: Recorder;
  /** Takes everything and keeps nothing: for resources whose recording is Off. */
  readonly nullRecorder: Recorder;
  readonly secrets: Secrets;
  readonly shared: SharedState;
  readonly place: { readonly replica: number; readonly process: number };
  readonly limits: Limits;
  /** Where servers of the protocol listen. */
  readonly defaultPort: number;
  readonly clock: { monotonicMs(): number; nowMs(): number };
  readonly servingTls: (
    resource: ServedResource,
    clientCa: readonly string[],
  ) => TlsServerOptions["secureContext"];
  readonly onDecision: (resource: string, verdict: Verdict) => void;
  /** What masks are keyed with; the same in every process and replica. */
  readonly maskingKey: Buffer;
  readonly onMasked: (resource: string, values: number) => void;
  readonly onPattern: (resource: string, pattern: string) => void;
  readonly onLimit: (resource: string, limit: ReachedLimit) => void;
  readonly onLogin: (resource: string, error: unknown, id: string) => void;
  readonly onSession: (resource: string, change: 1 | -1, reason: string) => void;
  readonly onLockOut: (resource: string, by: "user" | "address") => void;
  readonly onProblem: (
    resource: string,
    problem: string,
    facts: Readonly<Record<string, string | number>>,
  ) => void;
  /** Where policy comes from elsewhere: whether there is none, or none that is new enough, to let anybody in. */
  readonly isPolicyUnavailable?: () => boolean;
  /** Another resource that this process serves, by its key. */
  readonly sibling?: (key: string) => ProtocolHost | undefined;
  /** Resolves when what the manifests say now is in force here; absent where this process alone serves. */
  readonly newestPolicy?: () => Promise<void>;
  /** A session's recording is closed, or could not be. */
  readonly onRecorded?: (session: LiveSession, reason: string) => void;
  /** Who is asked where a rule wants approval. */
  readonly approvals?: ApprovalService;
  readonly onApproval?: (resource: string, event: ApprovalEvent) => void;
  /** Where the server is reached when it is beside the gateway. */
  readonly nearby?: { readonly host: string; readonly port: number };
  /** True where the operator says which addresses may be dialled, and who the other gateways are. */
  readonly isPlaced?: boolean;
  /** What all gateways of the resource seal cancel keys with, where they share a secret. */
  readonly sealingSecret?: Buffer;
}

/** What the metrics count of approvals. */
export type ApprovalEvent = Parameters<SessionApprovals["onEvent"]>[0];

const cachedPoliciesMax = 1000;

/** One protected resource as its protocol sees it; follows the manifests. */
export class ResourceHost implements ProtocolHost {
  readonly key: string;
  readonly sessions = new Set<LiveSession>();
  private served: ServedResource;
  private set: ManifestSet;
  private isGone = false;
  private isDraining = false;
  private readonly services: HostServices;
  private readonly state = new Map<string, unknown>();
  private policies = new Map<string, SessionPolicy>();
  private tls: TlsServerOptions | undefined;
  private takeCancel: ((processId: number, key: Buffer) => Promise<boolean>) | undefined;
  private giveDenialHere: ((digest: string) => string | undefined) | undefined;
  readonly cancels: CancelRoutes;
  readonly denials: DenialRoutes;

  constructor(key: string, served: ServedResource, set: ManifestSet, services: HostServices) {
    this.key = key;
    this.served = served;
    this.set = set;
    this.services = services;
    this.cancels = {
      ...services.place,
      ...(services.isPlaced === true && { mayShareNumber: true }),
      ...(services.sealingSecret && { sealingSecret: services.sealingSecret }),
      receive: (take) => {
        this.takeCancel = take;
      },
      forward: ({ key: cancelKey, ...to }) =>
        services.shared
          .forwardCancel({ ...to, resource: key, keyHex: cancelKey.toString("hex") })
          .catch(() => false),
      mayTry: (address) => services.shared.mayCancel(address).catch(() => false),
      missed: (address) => services.shared.cancelMissed(address),
    };
    this.denials = {
      receive: (give) => {
        this.giveDenialHere = give;
      },
      // Who cannot be asked has none: then there are two records, and never none.
      takeElsewhere: (digest) => services.shared.takeDenial({ resource: key, digest }).catch(() => undefined),
    };
  }

  get resource() {
    return this.served.facts;
  }
  get options() {
    return this.served.spec.options ?? {};
  }
  get limits() {
    return this.services.limits;
  }
  get clock() {
    return this.services.clock;
  }
  get masking() {
    const { maskingKey, onMasked, onPattern } = this.services;
    return {
      key: maskingKey,
      onMasked: (values: number) => onMasked(this.key, values),
      onPattern: (pattern: string) => onPattern(this.key, pattern),
    };
  }
  get tokenIssuer() {
    const { providers } = this.served.spec.identity;
    const issuer = providers
      .map((name) => this.set.providers.find(({ metadata }) => metadata.name === name)?.spec.oidc?.issuer)
      .find((found) => found !== undefined);
    return issuer === undefined ? {} : { issuer };
  }
  get beginDeviceLogin() {
    const { providers } = this.served.spec.identity;
    const given = deviceLoginOf(this.options.deviceLogin);
    const oidc = providers
      .map((name) => this.set.providers.find(({ metadata }) => metadata.name === name)?.spec.oidc)
      .find((found) => found !== undefined);
    if (given === undefined || oidc === undefined) return undefined;
    const { issuer, caBundle } = oidc;
    const options = { ...given, issuer, ...(caBundle === undefined ? {} : { caBundle }) };
    return (signal: AbortSignal) => beginDeviceLogin(options, signal);
  }
  get acceptsCertificates() {
    return this.clientCas().length > 0;
  }

  /** Takes a reload. Live sessions are judged by the new policy at once; `undefined`: the resource is gone. */
  adopt(served: ServedResource | undefined, set: ManifestSet): void {
    this.set = set;
    this.policies = new Map();
    this.tls = undefined;
    if (served === undefined) {
      this.isGone = true;
      for (const session of this.sessions) session.end("sessionRevoked");
      return;
    }
    this.isGone = false;
    this.served = served;
    for (const session of this.sessions) {
      if (!this.mayStay(session)) session.end("sessionRevoked");
      else session.adopt(this.policyFor(session.identity, session.facts));
    }
  }

  /** The serving certificate is another one: connections from here on get it. */
  renewTls(): void {
    this.tls = undefined;
  }

  /** Lets nobody in from here on, and tells those inside. */
  drain(): void {
    this.isDraining = true;
    for (const session of this.sessions) session.notice("draining");
  }

  async mayLogIn(claim: LoginClaim): Promise<void> {
    // Said before anybody shows a credential that nothing could judge.
    if (this.services.isPolicyUnavailable?.() === true) throw new GatewayError("policyUnavailable");
    const { shared } = this.services;
    const found = await shared.lockOut({ ...claim, resource: this.key }).catch((cause: unknown) => {
      throw new GatewayError("identityRefused", { detail: "the login cannot be checked now", cause });
    });
    if (found === undefined) return;
    const seconds = Math.max(1, Math.ceil(found.leftMs / 1000));
    const from = found.by === "user" ? "as this user from this address" : "from this address";
    throw new GatewayError("lockedOut", {
      detail: `too many failed logins ${from}; try again in ${seconds} seconds`,
      hint: "Get a valid token for this resource first (see `sallyport token`).",
    });
  }

  async authenticate(
    shown: { token: string } | { certificate: TLSSocket },
    claim: LoginClaim,
  ): Promise<Identity> {
    await this.services.newestPolicy?.();
    const { providers } = this.served.spec.identity;
    const request = { audience: this.served.audience, providers };
    const attempt = { ...claim, resource: this.key };
    const { authenticator, shared } = this.services;
    const found = await authenticator.authenticate(credentialOf(shown), request);
    if (found.kind === "authenticated") {
      shared.loginSucceeded(attempt);
      return found.identity;
    }
    // A provider that cannot be reached says nothing about the client.
    const reached = found.isUndecided === true ? undefined : await shared.loginFailed(attempt);
    if (reached !== undefined) this.services.onLockOut(this.key, reached);
    throw new GatewayError("identityRefused", {
      detail: found.publicReason,
      hint: "Use a token of this resource's identity provider as the password (see `sallyport token`).",
      cause: found.cause,
    });
  }

  /** Who a token speaks for, outside of a login: for approvals. */
  async identify(token: string): Promise<Identified> {
    const { providers } = this.served.spec.identity;
    const request = { audience: this.served.audience, providers };
    const found = await this.services.authenticator.authenticate({ kind: "token", token }, request);
    if (found.kind !== "authenticated") return { kind: "refused", message: found.publicReason };
    const { identity } = found;
    const facts = { database: "", account: "", applicationName: "", clientAddress: "" };
    return { kind: "identified", identity, terms: this.policyFor(identity, facts).approvalTerms };
  }

  account(identity: Identity, asked: string): UpstreamAccount {
    const serving = this.served.spec.credentials.filter(
      ({ subjects }) => subjects === undefined || subjects.some((subject) => isNamedBy(identity, subject)),
    );
    const named = serving.filter(({ name }) => name === asked);
    // The identity's own name (with or without prefix) will do where there is but one account for it.
    const isOwnName = asked === identity.user || identity.user.endsWith(`:${asked}`);
    const chosen = named[0] ?? (isOwnName && serving.length === 1 ? serving[0] : undefined);
    if (chosen === undefined) {
      const names = serving.map(({ name }) => name).join(", ");
      throw new GatewayError("unknownUser", {
        hint:
          names === ""
            ? "No credential of this resource serves you."
            : `Connect with user set to one of: ${names}.`,
      });
    }
    const account = this.services.secrets.account(this.resource.namespace, chosen, this.served.spec.endpoint);
    return chosen.role === undefined ? account : { ...account, role: this.roleFor(identity, chosen.role) };
  }

  private roleFor(identity: Identity, template: string): string {
    const prefix = this.set.providers.find(({ metadata }) => metadata.name === identity.provider)?.spec
      .prefix;
    const own =
      prefix !== undefined && identity.user.startsWith(prefix) ? identity.user.slice(prefix.length) : "";
    const role = template.replaceAll("{user}", () => own);
    // The server cuts longer names: two people could then share a role. `none` would be the account itself.
    const isUsable = Buffer.byteLength(role) <= 63 && role !== "none" && !(own === "" && template !== role);
    if (!isUsable)
      throw new GatewayError("unknownUser", { detail: "no role upstream can be named after you" });
    return role;
  }

  currentAccount(name: string): UpstreamAccount {
    const found = this.served.spec.credentials.find((credential) => credential.name === name);
    if (found === undefined) throw new GatewayError("credentialMissing");
    return this.services.secrets.account(this.resource.namespace, found, this.served.spec.endpoint);
  }

  async admit(identity: Identity, facts: SessionFacts): Promise<AdmittedSession> {
    await this.services.newestPolicy?.();
    // A login may take its time: what it rests on may have been withdrawn since.
    if (!this.mayStay({ identity })) {
      throw new GatewayError("identityRefused", { detail: "the identity is no longer accepted" });
    }
    if (this.isDraining) throw new GatewayError("draining");
    if (this.isGone || this.services.isPolicyUnavailable?.() === true) {
      throw new GatewayError("policyUnavailable");
    }
    const policy = this.policyFor(identity, facts);
    const { mayConnect, limits } = policy;
    if (mayConnect.action !== "Allow" && this.served.spec.enforcement !== "Audit") {
      throw new GatewayError("denied", {
        detail: mayConnect.message,
        ...(mayConnect.hint === undefined ? {} : { hint: mayConnect.hint }),
      });
    }
    const { shared } = this.services;
    const user = `${this.key}\n${identity.user}`;
    const hasPlace = await shared.enter(user, limits.concurrentSessions).catch((cause: unknown) => {
      throw new GatewayError("tooManySessions", { detail: "the sessions cannot be counted now", cause });
    });
    if (!hasPlace) {
      throw new GatewayError("tooManySessions", { hint: "Close another session of yours first." });
    }
    try {
      // What came while the other process answered counts for this session as well.
      if (this.isDraining) throw new GatewayError("draining");
      if (this.isGone) throw new GatewayError("policyUnavailable");
      return this.open(identity, facts, this.policyFor(identity, facts), () => shared.leave(user));
    } catch (error) {
      shared.leave(user);
      throw error;
    }
  }

  /** A cancel request that another process has handed over. */
  async receiveCancel(processId: number, key: Buffer): Promise<boolean> {
    return (await this.takeCancel?.(processId, key)) ?? false;
  }

  /** A denial that another process or replica asks for: it is given away. */
  giveDenial(digest: string): string | undefined {
    return this.giveDenialHere?.(digest);
  }

  target(account: UpstreamAccount): UpstreamTarget {
    const { endpoint, tls } = this.served.spec;
    const { namespace } = this.resource;
    const { mode, caRef } = tls.upstream;
    const ca =
      caRef === undefined
        ? account.authorities
        : this.services.secrets.read(namespace, caRef.name, caRef.key);
    if (caRef !== undefined && ca === undefined) {
      throw new GatewayError("credentialMissing", { detail: `the CA in secret ${caRef.name} is missing` });
    }
    const { host, port = this.services.defaultPort } = serverOf(namespace, endpoint);
    return {
      host,
      port,
      ...(this.services.nearby && { nearby: this.services.nearby }),
      // What the operator has not said, or not so that it is understood, opens nothing.
      ...(this.services.isPlaced === true && { reach: this.served.reach ?? noReach }),
      tls: {
        mode,
        ...(ca === undefined ? {} : { ca }),
        ...(account.certificate === undefined ? {} : { certificate: account.certificate }),
        ...(account.key === undefined ? {} : { key: account.key }),
      },
    };
  }

  async startTls(
    channel: SocketChannel,
    alpn: "required" | "optional",
    names?: readonly string[],
  ): Promise<void> {
    const cas = this.clientCas();
    this.tls ??= {
      secureContext: this.services.servingTls(this.served, cas),
      requestCert: cas.length > 0,
      fragmentBytes: this.limits.tlsFragmentBytes,
    };
    await channel.upgrade(this.tls, alpn, names);
  }

  secret(name: string, key: string): string | undefined {
    return this.services.secrets.read(this.resource.namespace, name, key);
  }

  sibling(resource: string): ProtocolHost | undefined {
    const key = resource.includes("/") ? resource : `${this.resource.namespace}/${resource}`;
    if (key === this.key) return this;
    const found = this.services.sibling?.(key);
    return found?.resource.protocol === this.resource.protocol ? found : undefined;
  }

  stillAccepts(identity: Identity): boolean {
    const isKnown = this.served.spec.identity.providers.includes(identity.provider);
    const nowSeconds = this.clock.nowMs() / 1000;
    const isCurrent = identity.expiresAt === undefined || identity.expiresAt > nowSeconds;
    return isKnown && isCurrent && !this.services.authenticator.isRevoked(identity);
  }

  shared<T>(key: string, make: () => T): T {
    if (!this.state.has(key)) this.state.set(key, make());
    return this.state.get(key) as T;
  }

  report(error: unknown, id: string): void {
    this.services.onLogin(this.key, error, id);
  }

  warn(problem: string, facts: Readonly<Record<string, string | number>>): void {
    this.services.onProblem(this.key, problem, facts);
  }

  private open(
    identity: Identity,
    facts: SessionFacts,
    policy: SessionPolicy,
    onLeft: () => void,
  ): AdmittedSession {
    const { spec } = this.served;
    const id = randomUUID();
    const recorder = spec.recording.mode === "Off" ? this.services.nullRecorder : this.services.recorder;
    if (spec.recording.mode === "Required" && recorder.failure !== undefined) {
      throw new GatewayError("recordingUnavailable", { cause: recorder.failure });
    }
    const recording = recorder.open({
      sessionId: id,
      namespace: this.resource.namespace,
      resource: this.resource.name,
      protocol: this.resource.protocol,
      identity,
      account: facts.account,
      database: facts.database,
      clientAddress: facts.clientAddress,
      startedAt: new Date(this.clock.nowMs()).toISOString(),
      mode: spec.recording.mode,
    });
    const counts = { commands: 0, refused: 0, held: 0 };
    const breakGlass = new BreakGlassTally();
    const guard = new SessionGuard({
      policy,
      recording,
      recordingMode: spec.recording.mode,
      durability: spec.recording.durability,
      enforcement: spec.enforcement,
      recordsRows: spec.recording.content.includes("responses"),
      recordsInput: spec.recording.content.includes("input"),
      now: () => this.clock.nowMs(),
      ...this.approvalsOf(identity, id, (event, use) => {
        if (use !== undefined) breakGlass.take(use);
        // It was counted as refused when policy asked for approval; now it is held, and what becomes of it counts.
        else if (event === "asked") {
          counts.held += 1;
          counts.refused -= 1;
        } else if (event !== "approved") counts.refused += 1;
      }),
      onLimit: (limit) => this.services.onLimit(this.key, limit),
      onDecision: (verdict) => {
        counts.commands += 1;
        if (verdict.action !== "Allow") counts.refused += 1;
        this.services.onDecision(this.key, verdict);
      },
    });
    const session: LiveSession = new LiveSession({
      id,
      resourceKey: this.key,
      identity,
      facts,
      guard,
      recording,
      policy,
      nowMs: () => this.clock.nowMs(),
      counts,
      breakGlass,
      onRecorded: (reason) => this.services.onRecorded?.(session, reason),
      onClosed: (reason) => {
        this.sessions.delete(session);
        onLeft();
        this.services.onSession(this.key, -1, reason);
      },
    });
    this.sessions.add(session);
    this.services.onSession(this.key, 1, "");
    return session;
  }

  private approvalsOf(
    identity: Identity,
    sessionId: string,
    onSessionEvent: SessionApprovals["onEvent"],
  ): { readonly approvals?: SessionApprovals } {
    const { approvals: service, limits, onApproval } = this.services;
    if (service === undefined) return {};
    return {
      approvals: {
        service,
        identity,
        resource: this.key,
        sessionId,
        holdInTransactionMs: limits.holdInTransactionMs,
        noticeMs: limits.holdNoticeMs,
        onEvent: (event, use) => {
          onSessionEvent(event, use);
          onApproval?.(this.key, event);
        },
      },
    };
  }

  private mayStay({ identity }: Pick<LiveSession, "identity">): boolean {
    const isKnown = this.served.spec.identity.providers.includes(identity.provider);
    return isKnown && !this.services.authenticator.isRevoked(identity);
  }

  /** Sessions of the same subject share one compiled policy, and with it the decisions made under it. */
  private policyFor(identity: Identity, session: SessionFacts): SessionPolicy {
    const key = JSON.stringify([identity, session]);
    let policy = this.policies.get(key);
    if (policy === undefined) {
      if (this.policies.size >= cachedPoliciesMax) this.policies.clear();
      policy = forSession(this.set.policies, { resource: this.resource, identity, session });
      this.policies.set(key, policy);
    }
    return policy;
  }

  private clientCas(): readonly string[] {
    return this.set.providers
      .filter(({ metadata }) => this.served.spec.identity.providers.includes(metadata.name))
      .flatMap(({ spec }) =>
        spec.clientCertificates === undefined ? [] : [spec.clientCertificates.caBundle],
      );
  }
}

interface SubjectEntry {
  readonly group?: string;
  readonly user?: string;
  readonly kind?: string;
  readonly serviceAccount?: { readonly namespace: string; readonly name: string };
}

/** The keys of one entry are ANDed. */
function isNamedBy(identity: Identity, { group, user, kind, serviceAccount }: SubjectEntry): boolean {
  if (group === undefined && user === undefined && kind === undefined && serviceAccount === undefined)
    return false;
  const account = identity.serviceAccount;
  return (
    (group === undefined || identity.groups.includes(group)) &&
    (user === undefined || identity.user === user) &&
    (kind === undefined || identity.kind === kind) &&
    (serviceAccount === undefined ||
      (account?.name === serviceAccount.name && account.namespace === serviceAccount.namespace))
  );
}

function credentialOf(shown: { token: string } | { certificate: TLSSocket }): Credential {
  if ("token" in shown) return { kind: "token", token: shown.token };
  const certificate = shown.certificate.getPeerX509Certificate();
  return {
    kind: "certificate",
    subject: certificate?.subject ?? "",
    raw: certificate?.raw ?? new Uint8Array(),
    isVerified: hasVerifiedPeer(shown.certificate),
  };
}

/** A TLS server context; TLS 1.2 or newer. */
export function serverContext(certificate: string, key: string, clientCa: readonly string[]) {
  return createSecureContext({
    cert: certificate,
    key,
    minVersion: "TLSv1.2",
    // A bundle may hold the authority alone that signs, without those above it.
    ...(clientCa.length === 0 ? {} : { ca: [...clientCa], allowPartialTrustChain: true }),
    // OpenSSL ends whoever resumes a session with a server that asks for certificates and gives its sessions no name.
    sessionIdContext: "sallyport",
  });
}
