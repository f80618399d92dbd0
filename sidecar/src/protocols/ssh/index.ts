/**
 * SSH: a server toward clients and a client toward the target, with each channel and each request in it judged.
 *
 *     client                       gateway                                target
 *       │ key exchange (host key of │                                        │
 *       │  all replicas)            │                                        │
 *       │ account%resource, token   │                                        │
 *       │  or certificate ─────────▶│ identity, policy, recording            │
 *       │                           │ key exchange (pinned key), own key ───▶│
 *       │◀─ success                 │                                        │
 *       │ channel requests ────────▶│ judge, record, permit ────────────────▶│
 *
 * `transport` is one encrypted connection, `accept` and `log-in` are the two logins, `session` carries channels,
 * `commands` and `sftp-gate` say what a request does.
 */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { countBuffersWithTheHeap } from "../../wire/bulk-memory.ts";
import { dial } from "../../wire/dial.ts";
import { errorTable, GatewayError } from "../../wire/gateway-error.ts";
import type { Protocol, ProtocolHost, UpstreamAccount } from "../protocol.ts";
import { type AcceptedClient, acceptClient } from "./accept.ts";
import { certifyAccount } from "./certificates.ts";
import { certify } from "./certify.ts";
import { forwardingOf } from "./forwarding.ts";
import { hostKeysFrom } from "./host-keys.ts";
import { derivedKey, fingerprint, hostKeysOf, type SigningKey, signingKeyOf } from "./keys.ts";
import { logIn } from "./log-in.ts";
import { made, message } from "./messages.ts";
import { SshSession } from "./session.ts";
import { Transport, violation } from "./transport.ts";

export const ssh: Protocol = { name: "ssh", defaultPort: 22, serve, announce };

/** SSH_DISCONNECT codes (RFC 4253, section 11.1). */
const disconnect = { protocolError: 2, byApplication: 11, noMoreAuthMethods: 14 } as const;

/** What clients put into known_hosts. */
function announce(host: ProtocolHost): Readonly<Record<string, string>> {
  try {
    const key = hostKey(host);
    return {
      knownHosts: `${key.type} ${key.blob.toString("base64")}`,
      fingerprint: fingerprint(key.blob),
    };
  } catch {
    // Its secret may come later; until then each connection is refused and says why.
    return {};
  }
}

/** The gateway's host key: of a secret that the resource names, or derived from what all replicas share. */
function hostKey(host: ProtocolHost): SigningKey {
  const { hostKeyRef } = host.options;
  // A gateway that was placed listens before it is told what its resource says.
  return host.shared(`hostKey ${JSON.stringify(hostKeyRef)}`, () => {
    if (hostKeyRef === undefined) return derivedKey(host.masking.key, "host key v1");
    const { name, key = "ssh-privatekey" } = (hostKeyRef ?? {}) as { name?: unknown; key?: unknown };
    const text = host.secret(String(name), String(key));
    const found = text === undefined ? undefined : signingKeyOf(text);
    if (found === undefined) {
      throw new GatewayError("credentialMissing", { detail: "the gateway's host key is missing" });
    }
    return found;
  });
}

/** What signs certificates of users: derived from the host key's secret where there is one, as replicas share that. */
const authorityOf = (host: ProtocolHost) =>
  host.shared(`userAuthority ${JSON.stringify(host.options.hostKeyRef)}`, () => {
    const secret =
      host.options.hostKeyRef === undefined
        ? host.masking.key
        : hostKey(host).key.export({ format: "der", type: "pkcs8" });
    return derivedKey(secret, "user authority v1");
  });

async function serve(socket: Socket, host: ProtocolHost, onLoggedIn: () => void): Promise<void> {
  countBuffersWithTheHeap();
  const id = randomBytes(6).toString("hex");
  const deadline = new Deadline(host.limits.loginMs);
  const { signal } = deadline;
  const address = socket.remoteAddress ?? "local";
  let client: Transport | undefined;
  try {
    client = new Transport({
      socket,
      role: { kind: "server", hostKeys: hostKeysOf(hostKey(host)) },
      receiver: { message: () => undefined, ended: () => undefined },
    });
    const authority = authorityOf(host);
    const accepted = await acceptClient({
      ...{ transport: client, host, authority, address, signal },
      extend: (ms) => deadline.extend(ms),
    });
    if (accepted.account === certifyAccount) {
      client.send(made(message.userauthSuccess));
      await certify(client, accepted, authority, signal);
      client.disconnect(disconnect.byApplication, "done");
    } else await serveClient(client, accepted, { address, onLoggedIn });
  } catch (error) {
    const shown = violation(error);
    host.report(shown, id);
    const hint = shown.hint === undefined ? "" : ` ${shown.hint}`;
    client?.disconnect(disconnect.byApplication, `sallyport: ${shown.message}${hint} (${id})`);
  } finally {
    deadline.end();
    end(socket);
  }
}

/** When a login must be done; it may be given more time once. */
class Deadline {
  readonly #over = new AbortController();
  #timer: NodeJS.Timeout;
  #isExtended = false;

  constructor(ms: number) {
    this.#timer = setTimeout(() => this.#over.abort(), ms);
  }

  get signal(): AbortSignal {
    return this.#over.signal;
  }

  extend(ms: number): void {
    if (this.#isExtended || this.#over.signal.aborted) return;
    this.#isExtended = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#over.abort(), ms);
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

/** Ends a socket so that what was written still arrives, but a peer that does not read cannot keep it. */
function end(socket: Socket): void {
  socket.end();
  socket.resume();
  setTimeout(() => socket.destroy(), lingerMs).unref();
}

const lingerMs = 2_000;

async function serveClient(
  client: Transport,
  { identity, host, account: asked }: AcceptedClient,
  { address, onLoggedIn }: { readonly address: string; readonly onLoggedIn: () => void },
): Promise<void> {
  const account = host.account(identity, asked);
  const admitted = await host.admit(identity, {
    database: "",
    account: account.username,
    applicationName: client.peerVersion.replace(/^SSH-2\.0-/, ""),
    clientAddress: address,
  });
  onLoggedIn();
  let closing = "failed";
  try {
    const upstream = await connect(host, account);
    try {
      client.send(made(message.userauthSuccess));
      client.socket.setKeepAlive(true, 60_000);
      const session = new SshSession({
        client,
        upstream,
        guard: admitted.guard,
        forwarding: forwardingOf(host.options),
        environment: namesIn(host.options.environment),
        ownPort: host.target(account).port,
        onPattern: host.masking.onPattern,
        nowMs: () => host.clock.nowMs(),
      });
      admitted.onPolicyChange((what) => session.policyChanged(what));
      const over = session.run();
      let said = "the session has ended";
      admitted.attach(session, (_kind, code) => {
        said = errorTable[code].text;
        session.say(said);
      });
      const how = await over;
      closing = how.kind;
      if (how.kind === "ended") client.disconnect(disconnect.byApplication, `sallyport: ${said}`);
      if (how.kind === "failed") throw how.error;
    } finally {
      upstream.destroy();
    }
  } catch (error) {
    closing = error instanceof GatewayError ? error.code : "failed";
    throw error;
  } finally {
    await admitted.close(closing);
  }
}

/** Logs in to the target with the resource's own account; its key must be one of those that the resource pins. */
async function connect(host: ProtocolHost, account: UpstreamAccount): Promise<Transport> {
  const pinned = hostKeysFrom(namesIn(host.options.hostKeys));
  if (pinned.every(({ means }) => means === "revoked")) {
    throw new GatewayError("unsupported", {
      detail: "the resource pins no host key of the server behind the gateway (options.hostKeys)",
    });
  }
  const signal = AbortSignal.timeout(host.limits.upstreamLoginMs);
  const target = host.target(account);
  const socket = await dial({ ...target, tls: { mode: "disable" } }, signal);
  const { username: user, password, sshKey } = account;
  const key = sshKey === undefined ? undefined : signingKeyOf(sshKey);
  if (sshKey !== undefined && key === undefined) {
    socket.destroy();
    throw new GatewayError("credentialMissing", { detail: "the private key of the account cannot be read" });
  }
  return logIn({
    socket,
    user,
    hostKeys: pinned,
    expected: { host: target.host, port: target.port, nowMs: () => host.clock.nowMs() },
    signal,
    ...(key === undefined ? {} : { key }),
    ...(password === undefined ? {} : { password }),
  });
}

const namesIn = (value: unknown): readonly string[] =>
  Array.isArray(value) ? value.filter((one): one is string => typeof one === "string") : [];
