/**
 * What a protocol is to the gateway, and what the gateway is to a protocol. A new protocol is one folder that exports
 * a `Protocol`, and one line in `index.ts`.
 */
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { Identity, ResourceFacts, SessionFacts } from "@sallyport/policy";
import type { SessionGuard } from "../guard/index.ts";
import type { RelayEnd } from "../relay/relay.ts";
import type { SocketChannel } from "../wire/channel.ts";
import type { UpstreamTarget } from "../wire/dial.ts";
import type { Limits } from "../wire/limits.ts";

/** An account on the protected server; never leaves the gateway. */
export interface UpstreamAccount {
  readonly name: string;
  readonly username: string;
  /** What sessions run as upstream; the account's own rights where absent. */
  readonly role?: string;
  readonly password?: string;
  readonly certificate?: string;
  readonly key?: string;
  /** A private key for protocols that log in with one. */
  readonly sshKey?: string;
  /** What the server's certificate is checked against, where the resource names nothing. */
  readonly authorities?: string;
}

/** What carries a session's bytes, as whoever must end it sees it; a relay is one. */
export interface SessionLink {
  /** When the client last sent something, on the monotonic clock. */
  readonly lastClientMs: number;
  stop(end: RelayEnd): void;
}

/** A session that policy has let in. Everything of it ends with `close`. */
export interface AdmittedSession {
  readonly id: string;
  readonly identity: Identity;
  readonly guard: SessionGuard;
  /** Changes whenever what policy says may change; caches of decisions are kept by it. */
  policyKey(): object;
  /** Called when what was judged may be judged otherwise now. */
  onPolicyChange(listener: (what: PolicyChange) => void): void;
  /** Hands over what carries it, so that expiry, revocation, idleness and drain can end it. */
  attach(link: SessionLink, say: (kind: "notice" | "fatal", code: EndCode) => void): void;
  close(reason: string): Promise<void>;
}

/** What has changed: the session's policy, by a reload; or only the time, where rules read it. */
export type PolicyChange = "policy" | "time";

/** Why the gateway itself ends a session. */
export type EndCode = "sessionExpired" | "sessionRevoked" | "idle" | "draining";

/** Who tries to log in, before anything is proven. */
export interface LoginClaim {
  /** The account that the client names. */
  readonly user: string;
  readonly address: string;
}

/** Cancel requests reach the process that holds the session, whichever process or replica they arrive at. */
export interface CancelRoutes {
  /** Where this process stands; keys carry it. */
  readonly replica: number;
  readonly process: number;
  /** True where another replica may have the same number: what is not here may be there. */
  readonly mayShareNumber?: boolean;
  /** Known to all who issue keys for the resource, and to nobody else: a long key that it has not sealed leads nowhere. */
  readonly sealingSecret?: Buffer;
  /** Takes the requests of this resource that arrived elsewhere. */
  receive(take: (processId: number, key: Buffer) => Promise<boolean>): void;
  /** Resolves when the request has done what it can; false where no session took it. */
  forward(to: {
    readonly replica: number;
    readonly process: number;
    readonly processId: number;
    readonly key: Buffer;
  }): Promise<boolean>;
  /** False where the address has sent too many keys that led nowhere. */
  mayTry(address: string): Promise<boolean>;
  missed(address: string): void;
}

/** Denials that a client was given by one process or replica, and whose other half reaches another. */
export interface DenialRoutes {
  /** Gives away, once, the id of what was denied here. */
  receive(give: (digest: string) => string | undefined): void;
  /** Has another give it away; undefined where none has it, or says so within a second. */
  takeElsewhere(digest: string): Promise<string | undefined>;
}

/** A login that waits for somebody to confirm it elsewhere. */
export interface DeviceLogin {
  /** Where to confirm it, and what to compare there; printable. */
  readonly url: string;
  readonly code: string;
  readonly expiresMs: number;
  /** The token once it is confirmed; undefined where it was refused, or nobody did so in time. */
  token(signal: AbortSignal): Promise<string | undefined>;
}

/** The gateway as one protected resource's protocol sees it. */
export interface ProtocolHost {
  readonly resource: ResourceFacts;
  /** The protocol's own options of the ProtectedResource. */
  readonly options: Readonly<Record<string, unknown>>;
  readonly limits: Limits;
  readonly clock: { monotonicMs(): number; nowMs(): number };
  /** Verifies a token, or the certificate that the client's TLS showed. Throws `identityRefused`. */
  authenticate(shown: { token: string } | { certificate: TLSSocket }, claim: LoginClaim): Promise<Identity>;
  /** Throws `lockedOut` where too many logins have failed. */
  mayLogIn(claim: LoginClaim): Promise<void>;
  readonly cancels: CancelRoutes;
  readonly denials: DenialRoutes;
  /** The OpenID Connect issuer that clients of this resource get tokens from, where it has one. */
  readonly tokenIssuer: { readonly issuer?: string };
  /** Begins a login that a person confirms in a browser (RFC 8628); absent where the resource offers none. */
  readonly beginDeviceLogin?: ((signal: AbortSignal) => Promise<DeviceLogin>) | undefined;
  /** True where clients may log in with a certificate. */
  readonly acceptsCertificates: boolean;
  /** Which account serves this identity under the name it asked for. Throws `unknownUser`, `credentialMissing`. */
  account(identity: Identity, asked: string): UpstreamAccount;
  /** The account of that name as its secret says now. */
  currentAccount(name: string): UpstreamAccount;
  /** Asks policy whether the identity may connect, and opens guard and recording. Throws `denied` and others. */
  admit(identity: Identity, facts: SessionFacts): Promise<AdmittedSession>;
  /** The key of the resource's masks, and who counts what they hide. */
  readonly masking: {
    readonly key: Buffer;
    readonly onMasked: (values: number) => void;
    readonly onPattern: (pattern: string) => void;
  };
  target(account: UpstreamAccount): UpstreamTarget;
  /** `names` are the protocols that ALPN may choose, the first that the client speaks wins. */
  startTls(channel: SocketChannel, alpn: "required" | "optional", names?: readonly string[]): Promise<void>;
  /** A value of a secret in the resource's namespace; undefined where there is none. */
  secret(name: string, key: string): string | undefined;
  /** Another resource of the same protocol, by `name` (of the same namespace) or `namespace/name`; also this one. */
  sibling(resource: string): ProtocolHost | undefined;
  /** Whether an identity that was proven before may still be used here: its provider is named, nothing is revoked. */
  stillAccepts(identity: Identity): boolean;
  /** State that all connections of this resource share, made at first use. */
  shared<T>(key: string, make: () => T): T;
  /** A login that failed, or another failure of one connection: counted and logged without secrets. */
  report(error: unknown, id: string): void;
  /** Tells whoever runs the gateway of a problem that is no connection's; bounded by the caller, without users' texts. */
  warn(problem: string, facts: Readonly<Record<string, string | number>>): void;
}

/** What is tried of a server that shares the gateway's loopback with other containers. */
export interface LoopbackTrial {
  readonly port: number;
  /** The accounts that the gateway uses: whoever lets these in without a credential gives everything away. */
  readonly users: readonly string[];
  readonly signal: AbortSignal;
}

/** What came of it; unknown where the server was not heard. */
export type LoopbackFinding =
  | { readonly kind: "trusted"; readonly user: string; readonly host: string }
  | { readonly kind: "closed" | "unknown" };

/** What a protocol gives to the server: its name, its port, and how a connection is served. */
export interface Protocol {
  readonly name: string;
  /** Where its servers listen, and its gateways where the resource does not say. */
  readonly defaultPort: number;
  /** What clients must know before they connect, by name; logged, and written beside the listeners. */
  announce?(host: ProtocolHost): Readonly<Record<string, string>>;
  /** Tries the server beside the gateway without a credential; absent where nobody knows how. */
  trustsLoopback?(trial: LoopbackTrial): Promise<LoopbackFinding>;
  /** Serves one client connection from its first byte to its end; never throws. Says when policy has let it in. */
  serve(socket: Socket, host: ProtocolHost, onLoggedIn: () => void): Promise<void>;
}
