/** One client connection: who speaks on it, and the session that policy lets it have. */
import { createHash, createHmac, randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { TLSSocket } from "node:tls";
import type { Identity } from "@sallyport/policy";
import { HoldTurns } from "../../guard/index.ts";
import { errorTable, GatewayError } from "../../wire/gateway-error.ts";
import type { HttpHead } from "../../wire/http-server.ts";
import type { AdmittedSession, EndCode, ProtocolHost, UpstreamAccount } from "../protocol.ts";
import { runOf } from "./denials.ts";
import { reasonIn } from "./headers.ts";
import type { ApiServers } from "./upstream.ts";

/** What of a session goes on: a watch, a log, a terminal, a tunnel. */
export interface RunningRequest {
  end(why: string): void;
  /** Whether policy, as it is now, would have let it begin, and hide from it what it hides. */
  mayGoOn(): boolean;
}

/** A session as requests use it. */
export interface OpenSession {
  readonly identity: Identity;
  readonly account: UpstreamAccount;
  readonly admitted: AdmittedSession;
  /** What of it waits for approval. */
  readonly holds: HoldTurns;
  /** What runs in it now: told to end, with the reason, when the session is, or policy denies it from now on. */
  readonly running: Set<RunningRequest>;
  /** Notes that the client has sent something. */
  touch(): void;
  readonly isOver: boolean;
}

const sessionsMax = 8;
/** Longer than a pod is looked up, and other gateways are asked. */
const judgedMs = 15_000;

/** The sessions of one connection: one for each credential that is shown on it. */
export class ClientConnection {
  readonly #tls: TLSSocket;
  readonly #host: ProtocolHost;
  readonly #servers: ApiServers;
  readonly #onLoggedIn: () => void;
  readonly #sessions = new Map<string, Promise<OpenSession>>();
  readonly #judging = new Set<Promise<void>>();
  readonly address: string;

  constructor(tls: TLSSocket, host: ProtocolHost, servers: ApiServers, onLoggedIn: () => void) {
    this.#tls = tls;
    this.#host = host;
    this.#servers = servers;
    this.#onLoggedIn = onLoggedIn;
    this.address = tls.remoteAddress ?? "local";
  }

  /** The session of whoever sent a request, told why they do; throws `identityRefused`, `denied` and others. */
  async session(head: HttpHead): Promise<OpenSession> {
    const session = await this.#sessionOf(head);
    const reason = reasonIn(head.headers);
    if (reason !== undefined) session.admitted.guard.giveReason(reason);
    return session;
  }

  async #sessionOf(head: HttpHead): Promise<OpenSession> {
    const token = bearerOf(head);
    const key = token === undefined ? "" : createHash("sha256").update(token).digest("hex");
    const known = this.#sessions.get(key);
    if (known !== undefined) {
      const session = await known;
      if (session.isOver) throw new GatewayError("sessionExpired");
      return session;
    }
    if (this.#sessions.size >= sessionsMax) throw new GatewayError("tooManySessions");
    const opening = this.#open(head, token);
    this.#sessions.set(key, opening);
    opening.catch(() => this.#sessions.delete(key));
    return opening;
  }

  /** Begins to judge a request; what it gives back is to be called when that is done, and may be again. */
  judging(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#judging.add(promise);
    return () => {
      this.#judging.delete(promise);
      resolve();
    };
  }

  /** Ends everything of a connection that is over. */
  async close(): Promise<void> {
    // Whoever leaves before the answer has asked all the same, and is recorded.
    await Promise.race([Promise.all(this.#judging), delay(judgedMs, undefined, { ref: false })]);
    const sessions = await Promise.allSettled(this.#sessions.values());
    for (const session of sessions) {
      if (session.status === "rejected") continue;
      for (const one of session.value.running) one.end("the connection is closed");
      await session.value.admitted.close("clientClosed").catch(() => undefined);
    }
  }

  async #open(head: HttpHead, token: string | undefined): Promise<OpenSession> {
    const host = this.#host;
    const claim = { user: "", address: this.address };
    await host.mayLogIn(claim);
    const hasCertificate = host.acceptsCertificates && this.#tls.getPeerX509Certificate() !== undefined;
    if (token === undefined && !hasCertificate)
      throw new GatewayError("identityRefused", { detail: "no token and no client certificate was given" });
    const shown = token === undefined ? { certificate: this.#tls } : { token };
    const identity = await host.authenticate(shown, claim);
    const names = [identity.user, ...identity.groups];
    if (names.some((name) => /^\s*system:/i.test(name)))
      throw new GatewayError("identityRefused", {
        detail: "names that begin with system: are not impersonated",
      });
    // Blanks at the ends of a header are none to whoever reads it: it would be another's name.
    if (names.some((name) => name !== name.trim()))
      throw new GatewayError("identityRefused", {
        detail: "names with blanks at their ends are not impersonated",
      });
    const account = this.#servers.account(identity);
    const agent = head.headers["user-agent"] ?? "";
    const admitted = await host.admit(identity, {
      database: "",
      account: account.username,
      applicationName: printableText(agent),
      clientAddress: this.address,
    });
    this.#onLoggedIn();
    return this.#started(identity, account, admitted);
  }

  #started(identity: Identity, account: UpstreamAccount, admitted: AdmittedSession): OpenSession {
    const running = new Set<RunningRequest>();
    let lastMs = performance.now();
    let isOver = false;
    let why: EndCode = "sessionRevoked";
    const tls = this.#tls;
    const { clock } = this.#host;
    // An approval that was taken back, or is over, ends what it let run.
    admitted.guard.onCancelRunning = () => {
      for (const one of running) one.end("what it was approved by holds no more");
    };
    admitted.onPolicyChange((what) => {
      const said = what === "time" ? notAtThisTime : policyHasChanged;
      // A policy that no longer lets the whole session be ends it right after this, with another reason.
      queueMicrotask(() => {
        for (const one of running) if (!one.mayGoOn()) one.end(said);
      });
    });
    const link = {
      // What runs is not idle; sessions of streams say themselves when something was typed.
      get lastClientMs() {
        return lastMs;
      },
      stop: () => {
        if (isOver) return;
        isOver = true;
        for (const one of running) one.end(errorTable[why].text);
        // Streams get a moment to tell their client why; then nothing of the connection is left.
        setTimeout(() => tls.destroy(), lastWordsMs).unref();
      },
    };
    admitted.attach(link, (kind, code) => {
      if (kind === "fatal") why = code;
    });
    return {
      identity,
      account,
      admitted,
      holds: new HoldTurns(),
      running,
      touch: () => {
        lastMs = performance.now();
      },
      get isOver() {
        const { expiresAt } = identity;
        // Deadlines are looked at every now and then; nothing must slip through in between.
        return isOver || (expiresAt !== undefined && clock.nowMs() >= expiresAt * 1000);
      },
    };
  }
}

const lastWordsMs = 2_000;
/** What the client of something that runs, or is about to, is told. */
export const policyHasChanged = "the access policy has changed";
const notAtThisTime = "the access policy does not allow this at this time";

/** A short name for one decision, in messages and recordings alike. */
export function correlationId(): string {
  return randomBytes(6).toString("hex");
}

/**
 * The same of what one run of kubectl asks for twice (over WebSocket, then over SPDY), whichever process or replica each
 * reaches: kubectl names its runs from 1.22 on. Who names two runs alike has two records under one id, no fewer.
 */
export function idOfRun(key: Buffer, { user }: Identity, head: HttpHead, target: string): string | undefined {
  const run = runOf(head);
  if (run === "") return undefined;
  // What masks hash with the same key, and what this does, must not say anything of each other.
  const own = createHmac("sha256", key).update("sallyport refusal").digest();
  return createHmac("sha256", own)
    .update(JSON.stringify([user, target, run]))
    .digest("hex")
    .slice(0, 12);
}

/** The token that a request shows; throws where what it shows is none. */
export function bearerOf({ headers }: HttpHead): string | undefined {
  const match = /^Bearer +([^\s]+)$/i.exec(headers.authorization ?? "");
  if (match?.[1] !== undefined) return match[1];
  // A credential of another kind is refused, not passed over: whoever shows it means to be known by it.
  if (headers.authorization !== undefined)
    throw new GatewayError("identityRefused", { detail: "send a bearer token" });
  return tokenOfProtocol(headers);
}

/** True for the name of a WebSocket protocol that is a token. */
export function isTokenProtocol(name: string): boolean {
  return tokenProtocol.test(name);
}

const tokenProtocol = /^base64url\.bearer\.authorization\.k8s\.io\.(.*)$/;

/**
 * Browsers have no header for a token: they name it as a WebSocket protocol, beside one that is meant. It goes no further
 * (`upstreamHeaders`), and is never the one that is chosen.
 * https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/authentication/request/websocket/protocol.go
 */
function tokenOfProtocol(headers: HttpHead["headers"]): string | undefined {
  if (headers.upgrade?.toLowerCase() !== "websocket") return undefined;
  const names = (headers["sec-websocket-protocol"] ?? "").split(/\s*,\s*/);
  const tokens = names.flatMap((name) => tokenProtocol.exec(name.trim())?.[1] ?? []);
  const [encoded] = tokens;
  if (encoded === undefined) return undefined;
  const token = Buffer.from(encoded, "base64url");
  // Not padded, and nothing that one decoder would overlook: as API servers take it.
  const isWhole = token.length > 0 && token.toString("base64url") === encoded;
  if (tokens.length > 1 || !isWhole || !/^[\x21-\x7e]+$/.test(token.toString("latin1")))
    throw new GatewayError("identityRefused", { detail: "name one token among the protocols, in base64url" });
  return token.toString("latin1");
}

function printableText(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, 200);
}
