/** What gateway and operator say to each other on the control stream. */
import { type BundleDocument, type BundleUpdate, bundleKinds, kindOf } from "./bundle.ts";
import {
  type Fields,
  fieldsOf,
  list,
  MessageError,
  oneOf,
  optionalText,
  optionalWhole,
  text,
  textMap,
  truth,
  whole,
  word,
} from "./shape.ts";

/** Why a gateway wants a session to have an object of its own. */
export type SessionCause = "age" | "held" | "denied";

/** What one rule would have held, and a member of its break-glass group ran without approval. */
export interface BrokenRule {
  /** `cluster/` stands before a ClusterAccessPolicy's name. */
  readonly policy: string;
  readonly rule: string;
  readonly count: number;
  /** Why, the last time, in the words of whoever did it. */
  readonly reason: string;
}

/** How often a session went past approval by break-glass. */
export interface BrokenGlass {
  readonly count: number;
  /** By rule, the one of the last time first; of many only the newest. */
  readonly rules: readonly BrokenRule[];
}

/** A session as a gateway reports it: older than 10 s, or held, or with something denied. */
export interface SessionReport {
  readonly id: string;
  readonly cause: SessionCause;
  readonly state: "Live" | "Ended";
  readonly user: string;
  readonly subjectKind: string;
  readonly protocol: string;
  readonly account: string;
  readonly database: string;
  readonly clientAddress: string;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly endedAt?: number;
  readonly endReason?: string;
  readonly commands: number;
  readonly refused: number;
  /** Commands that were held for approval; absent from gateways that count them as refused. */
  readonly held?: number;
  /** Where the recording is kept, and its final hash once it is closed. */
  readonly recorder?: string;
  readonly finalHash?: string;
  /** Whether the operator has said that the session has an object; absent from gateways that cannot be told. */
  readonly noted?: boolean;
  readonly brokeGlass?: BrokenGlass;
}

/** Something a person should mend; a gateway sends the whole list whenever it changes. */
export interface GatewayProblem {
  /** From a list: SecretMissing, UpstreamUnreachable, UpstreamCertificate, RecorderUnavailable, PolicyRefused, … */
  readonly reason: string;
  /** Public text: no secret, no value, no statement. */
  readonly message: string;
  /** What it is about, where that has a name: a Secret, a policy. */
  readonly subject?: string;
}

/** What a certificate is for; the names in it are the operator's choice alone. */
export type CertificatePurpose = "serving" | "recording" | "peer";

/** Another gateway of the same resource, to which cancel requests for its sessions are handed. */
export interface GatewayPeer {
  readonly podUid: string;
  /** The pod's address. */
  readonly host: string;
  readonly port: number;
}

/** A hold that asks for a decision; the approvals step fills its meaning. */
export interface ApprovalAsk {
  readonly id: string;
  readonly session: string;
  readonly request: unknown;
}

/** Leave to do for a while what a rule asks approval for, from an Approval. */
export interface ApprovedWindow {
  readonly approval: string;
  /** The requester's Kubernetes username. */
  readonly requester: string;
  /** The requester as the identity provider names them, where a session has asked. */
  readonly subject?: string;
  /** The Kubernetes usernames of who approved it; it opens nothing for an agent of one of them. */
  readonly approvedBy?: readonly string[];
  /** The rule as it was approved: another text is another rule. */
  readonly ruleText: string;
  /** Milliseconds since the epoch. */
  readonly until: number;
}

/** From a gateway. */
export type GatewayMessage =
  | {
      readonly kind: "hello";
      readonly token: string;
      readonly holds?: string;
      readonly version: string;
      /** Whether it knows what peers are: earlier gateways end the stream at a message that they do not know. */
      readonly takesPeers?: boolean;
    }
  /** What is in force: the digest of the last update, whether all of it was accepted, and the rest in words. */
  | {
      readonly kind: "inForce";
      readonly digest: string;
      readonly accepted: boolean;
      readonly problems: readonly string[];
      /** The host key that clients meet, as a line of known_hosts without a name; of protocols that have one. */
      readonly knownHosts?: string;
    }
  | { readonly kind: "resend" }
  | { readonly kind: "sessions"; readonly sessions: readonly SessionReport[] }
  | { readonly kind: "problems"; readonly problems: readonly GatewayProblem[] }
  | {
      readonly kind: "sign";
      readonly id: number;
      readonly purpose: CertificatePurpose;
      /** PEM of the public key. */
      readonly publicKey: string;
      /** Signature by its private key over `signingProof`, in base64. */
      readonly proof: string;
    }
  | { readonly kind: "ask"; readonly ask: ApprovalAsk }
  | { readonly kind: "withdraw"; readonly id: string }
  /** What was approved has run. */
  | { readonly kind: "used"; readonly id: string };

/** From the operator. */
export type OperatorMessage =
  | {
      readonly kind: "welcome";
      /** `namespace/name` of the resource that the pod was rendered for. */
      readonly resource: string;
      readonly podUid: string;
      /** `host:port` of the recorder that keeps the namespace. */
      readonly recorder?: string;
    }
  | ({ readonly kind: "bundle" } & BundleUpdate)
  /** Nothing has changed; the policy held is as new as can be. */
  | { readonly kind: "current"; readonly digest: string }
  | { readonly kind: "endSession"; readonly session: string; readonly reason: string }
  /** The session has an object: where it has none later, somebody has deleted it. */
  | { readonly kind: "noted"; readonly session: string }
  | {
      readonly kind: "revoke";
      readonly provider: string;
      readonly subject?: string;
      readonly tokenId?: string;
      readonly notBefore?: number;
    }
  | { readonly kind: "decision"; readonly id: string; readonly decision: unknown }
  /** Every window that is open on the resource: what is not in the list is over. */
  | { readonly kind: "windows"; readonly windows: readonly ApprovedWindow[] }
  /** Every live gateway of the resource, this one included, and what their certificates are checked against. */
  | { readonly kind: "peers"; readonly authorities: string; readonly peers: readonly GatewayPeer[] }
  | {
      readonly kind: "signed";
      readonly id: number;
      readonly certificate?: string;
      /** What the other side's certificate is checked against. */
      readonly authorities?: string;
      readonly failure?: string;
    }
  | { readonly kind: "refused"; readonly code: RefusalCode; readonly message: string };

/** Why a stream is not served. `unready` and `busy` pass; the others need a person. */
export type RefusalCode =
  | "unauthenticated"
  | "notAGateway"
  | "expired"
  | "unready"
  | "busy"
  | "protocol"
  | "tooLarge";

const refusalCodes: readonly RefusalCode[] = [
  "unauthenticated",
  "notAGateway",
  "expired",
  "unready",
  "busy",
  "protocol",
  "tooLarge",
];

/** Bounds of the control stream that both sides hold each other to. */
export const controlLimits = {
  /** Before a gateway is known. */
  helloBytesMax: 64 * 1024,
  /** From a gateway. */
  gatewayFrameBytesMax: 1024 * 1024,
  /** To a gateway: a bundle with all its policies. */
  bundleBytesMax: 32 * 1024 * 1024,
  documentsMax: 20_000,
  sessionsMax: 100,
  /** Rules by whose break-glass one session went past approval. */
  brokenRulesMax: 8,
  /** Characters of the reason for that. */
  breakGlassReasonMax: 200,
  problemsMax: 100,
  windowsMax: 1_000,
  peersMax: 256,
} as const;

/** What a gateway signs to show that it holds the key of the certificate it asks for; bound to its pod. */
export function signingProof(podUid: string, purpose: CertificatePurpose, publicKey: string): Buffer {
  return Buffer.from(`sallyport certificate request v1\n${podUid}\n${purpose}\n${publicKey}`);
}

/** Reads a gateway's message; throws a MessageError on anything that was not agreed. */
export function parseGatewayMessage(header: unknown): GatewayMessage {
  const fields = fieldsOf(header);
  const kind = oneOf(fields, "kind", [
    "hello",
    "inForce",
    "resend",
    "sessions",
    "problems",
    "sign",
    "ask",
    "withdraw",
    "used",
  ]);
  switch (kind) {
    case "hello": {
      const holds = optionalText(fields, "holds", 64);
      const token = text(fields, "token", 32 * 1024);
      return {
        kind,
        token,
        version: text(fields, "version", 64),
        ...(holds !== undefined && { holds }),
        ...(fields.takesPeers !== undefined && { takesPeers: truth(fields, "takesPeers") }),
      };
    }
    case "inForce": {
      const knownHosts = optionalText(fields, "knownHosts", 4096);
      return {
        kind,
        digest: text(fields, "digest", 64),
        accepted: truth(fields, "accepted"),
        problems: list(fields, "problems", controlLimits.problemsMax, (entry) =>
          text({ entry }, "entry", 2048),
        ),
        ...(knownHosts !== undefined && { knownHosts }),
      };
    }
    case "resend":
      return { kind };
    case "sessions":
      return { kind, sessions: list(fields, "sessions", controlLimits.sessionsMax, readSession) };
    case "problems":
      return { kind, problems: list(fields, "problems", controlLimits.problemsMax, readProblem) };
    case "sign":
      return {
        kind,
        id: whole(fields, "id"),
        purpose: oneOf(fields, "purpose", ["serving", "recording", "peer"]),
        publicKey: text(fields, "publicKey", 4096),
        proof: text(fields, "proof", 4096),
      };
    case "ask": {
      const ask = fieldsOf(fields.ask);
      const request = { id: text(ask, "id", 100), session: text(ask, "session", 100), request: ask.request };
      return { kind, ask: request };
    }
    case "withdraw":
    case "used":
      return { kind, id: text(fields, "id", 100) };
  }
}

/** Reads the operator's message; throws a MessageError on anything that was not agreed. */
export function parseOperatorMessage(header: unknown): OperatorMessage {
  const fields = fieldsOf(header);
  const kind = oneOf(fields, "kind", [
    "welcome",
    "bundle",
    "current",
    "endSession",
    "noted",
    "revoke",
    "decision",
    "windows",
    "peers",
    "signed",
    "refused",
  ]);
  switch (kind) {
    case "welcome": {
      const recorder = optionalText(fields, "recorder", 512);
      const welcome = { kind, resource: text(fields, "resource", 512), podUid: text(fields, "podUid", 64) };
      return { ...welcome, ...(recorder !== undefined && { recorder }) };
    }
    case "bundle":
      return { kind, ...readUpdate(fields) };
    case "current":
      return { kind, digest: text(fields, "digest", 64) };
    case "endSession":
      return { kind, session: text(fields, "session", 100), reason: text(fields, "reason", 256) };
    case "noted":
      return { kind, session: text(fields, "session", 100) };
    case "revoke": {
      const subject = optionalText(fields, "subject");
      const tokenId = optionalText(fields, "tokenId");
      const notBefore = optionalWhole(fields, "notBefore");
      return {
        kind,
        provider: text(fields, "provider", 256),
        ...(subject !== undefined && { subject }),
        ...(tokenId !== undefined && { tokenId }),
        ...(notBefore !== undefined && { notBefore }),
      };
    }
    case "windows":
      return { kind, windows: list(fields, "windows", controlLimits.windowsMax, readWindow) };
    case "decision":
      return { kind, id: text(fields, "id", 100), decision: fields.decision };
    case "peers":
      return {
        kind,
        authorities: text(fields, "authorities", 256 * 1024),
        peers: list(fields, "peers", controlLimits.peersMax, readPeer),
      };
    case "signed": {
      const certificate = optionalText(fields, "certificate", 64 * 1024);
      const authorities = optionalText(fields, "authorities", 256 * 1024);
      const failure = optionalText(fields, "failure");
      return {
        kind,
        id: whole(fields, "id"),
        ...(certificate !== undefined && { certificate }),
        ...(authorities !== undefined && { authorities }),
        ...(failure !== undefined && { failure }),
      };
    }
    case "refused":
      return { kind, code: oneOf(fields, "code", refusalCodes), message: text(fields, "message", 2048) };
  }
}

function readUpdate(fields: Fields): BundleUpdate {
  const base = optionalText(fields, "base", 64);
  return {
    revision: textMap(fields, "revision", 16),
    ...(fields.heard !== undefined && { heard: textMap(fields, "heard", 16) }),
    ...(base !== undefined && { base }),
    digest: text(fields, "digest", 64),
    put: list(fields, "put", controlLimits.documentsMax, readDocument),
    remove: list(fields, "remove", controlLimits.documentsMax, (key) => text({ key }, "key")),
  };
}

function readDocument(entry: unknown): BundleDocument {
  const fields = fieldsOf(entry);
  const key = text(fields, "key");
  // A Secret on this stream would be a mistake of somebody's: it is refused, not used.
  if (!bundleKinds.has(kindOf(key))) throw new MessageError("a document of a kind that does not travel");
  return { key, json: text(fields, "json", 4 * 1024 * 1024) };
}

function readSession(entry: unknown): SessionReport {
  const fields = fieldsOf(entry);
  const endedAt = optionalWhole(fields, "endedAt");
  const endReason = optionalText(fields, "endReason", 256);
  const recorder = optionalText(fields, "recorder", 512);
  const finalHash = optionalText(fields, "finalHash", 64);
  const held = optionalWhole(fields, "held");
  return {
    id: text(fields, "id", 100),
    cause: oneOf(fields, "cause", ["age", "held", "denied"]),
    state: oneOf(fields, "state", ["Live", "Ended"]),
    user: text(fields, "user"),
    subjectKind: text(fields, "subjectKind", 64),
    protocol: text(fields, "protocol", 64),
    account: text(fields, "account", 256),
    database: text(fields, "database", 256),
    clientAddress: text(fields, "clientAddress", 256),
    startedAt: whole(fields, "startedAt"),
    ...(endedAt !== undefined && { endedAt }),
    ...(endReason !== undefined && { endReason }),
    commands: whole(fields, "commands"),
    refused: whole(fields, "refused"),
    ...(held !== undefined && { held }),
    ...(recorder !== undefined && { recorder }),
    ...(finalHash !== undefined && { finalHash }),
    ...(fields.noted !== undefined && { noted: truth(fields, "noted") }),
    ...(fields.brokeGlass !== undefined && { brokeGlass: readBrokenGlass(fields.brokeGlass) }),
  };
}

function readBrokenGlass(entry: unknown): BrokenGlass {
  const fields = fieldsOf(entry);
  const { brokenRulesMax, breakGlassReasonMax } = controlLimits;
  return {
    count: whole(fields, "count"),
    rules: list(fields, "rules", brokenRulesMax, (each) => {
      const rule = fieldsOf(each);
      return {
        policy: text(rule, "policy", 300),
        rule: text(rule, "rule", 256),
        count: whole(rule, "count"),
        reason: text(rule, "reason", breakGlassReasonMax),
      };
    }),
  };
}

function readWindow(entry: unknown): ApprovedWindow {
  const fields = fieldsOf(entry);
  const subject = optionalText(fields, "subject");
  return {
    approval: text(fields, "approval", 253),
    requester: text(fields, "requester"),
    ...(subject !== undefined && { subject }),
    ...(fields.approvedBy !== undefined && {
      approvedBy: list(fields, "approvedBy", 16, (name) => text({ name }, "name", 512)),
    }),
    ruleText: text(fields, "ruleText", 256 * 1024),
    until: whole(fields, "until"),
  };
}

function readPeer(entry: unknown): GatewayPeer {
  const fields = fieldsOf(entry);
  return { podUid: text(fields, "podUid", 64), host: text(fields, "host", 64), port: whole(fields, "port") };
}

function readProblem(entry: unknown): GatewayProblem {
  const fields = fieldsOf(entry);
  const subject = optionalText(fields, "subject", 512);
  const problem = { reason: word(fields, "reason", 64), message: text(fields, "message", 2048) };
  return { ...problem, ...(subject !== undefined && { subject }) };
}
