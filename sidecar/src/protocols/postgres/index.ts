/**
 * PostgreSQL: leads a client from its first byte through TLS, identity and policy to a session, and the gateway to
 * the server with an account of its own.
 *
 *     client                    gateway                              server
 *       │ SSLRequest / direct TLS  │                                    │
 *       │ StartupMessage           │                                    │
 *       │◀─ AuthenticationCleartextPassword (or a client certificate)   │
 *       │ token ──────────────────▶│ identity, policy, recording        │
 *       │                          │ SSLRequest, TLS, SCRAM ───────────▶│
 *       │◀─ AuthenticationOk, ParameterStatus, own BackendKeyData, ReadyForQuery
 *       │ statements ─────────────▶│ judge, record, permit ────────────▶│
 */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { analyseSql, type Identity, shapeOf } from "@sallyport/policy";
import { Relay, type RelayEnd } from "../../relay/relay.ts";
import { SocketChannel } from "../../wire/channel.ts";
import { Deadline } from "../../wire/deadline.ts";
import { errorTable, GatewayError } from "../../wire/gateway-error.ts";
import type { AdmittedSession, EndCode, Protocol, ProtocolHost, UpstreamAccount } from "../protocol.ts";
import { acceptClient, askForToken, fatalFrame, type Greeting } from "./accept.ts";
import { ApplicationName, applicationName, tooLongNotice } from "./application-name.ts";
import { CancelKeys } from "./cancel-keys.ts";
import { Catalogs } from "./catalogs.ts";
import { allowedEncodings, encodingNamed, inAscii } from "./client-encodings.ts";
import { cancelUpstream, connectUpstream, type UpstreamSession } from "./connect-upstream.ts";
import {
  authenticationFrame,
  backendKeyDataFrame,
  errorFrame,
  noticeFrame,
  parameterStatusFrame,
  readErrorFields,
  readyFrame,
  terminateFrame,
} from "./frames.ts";
import { trustsLoopback } from "./loopback-trust.ts";
import { SessionMasks } from "./masking/session-masks.ts";
import { askForBearer, refuseBearer } from "./oauth-bearer.ts";
import { withPinnedRole } from "./pinned-role.ts";
import { PreparedStatements } from "./prepared.ts";
import { ProcessIds } from "./process-ids.ts";
import { PostgresSession } from "./session.ts";
import { SessionSettings } from "./session-settings.ts";
import { ImpossibleLength, isUtf8Name, startupSettings } from "./startup.ts";
import { DecisionCache, type LiveNames, StatementJudge } from "./statement-judge.ts";

export const postgres: Protocol = { name: "postgres", defaultPort: 5432, serve, trustsLoopback };

const analyser = { analyse: analyseSql, shapeOf };
const roleAnalyser = withPinnedRole(analyser);
const analyserFor = ({ role }: UpstreamAccount) => (role === undefined ? analyser : roleAnalyser);

async function serve(socket: Socket, host: ProtocolHost, onLoggedIn: () => void): Promise<void> {
  const id = randomBytes(6).toString("hex");
  const login = new Deadline(host.limits.loginMs);
  const channel = new SocketChannel(socket, login.signal);
  try {
    const keys = host.shared("cancelKeys", () => new CancelKeys(host.cancels));
    const startTls = (alpn: "required" | "optional") => host.startTls(channel, alpn);
    const accepted = await acceptClient(channel, { limits: host.limits, startTls });
    if (accepted === undefined) return;
    if (accepted.kind === "cancel") {
      if (!(await keys.cancel(accepted.processId, accepted.key, channel.remoteAddress)))
        host.report(new GatewayError("protocolViolation", { cause: unknownCancelKey }), id);
      return;
    }
    const hasLoggedIn = () => {
      login.met();
      onLoggedIn();
    };
    await serveClient(channel, host, accepted, { keys, onLoggedIn: hasLoggedIn });
  } catch (error) {
    host.report(error, id);
    if (error instanceof ImpossibleLength) return;
    const shown =
      error instanceof GatewayError ? error : new GatewayError("protocolViolation", { cause: error });
    if (channel.socket.writable) channel.socket.write(fatalFrame(shown, id));
  } finally {
    login.met();
    end(channel.socket);
  }
}

/** Ends a socket so that what was written still arrives, but a peer that does not read cannot keep it. */
function end(socket: Socket): void {
  socket.end();
  socket.resume();
  setTimeout(() => socket.destroy(), lingerMs).unref();
}

const lingerMs = 2_000;
/** For the log: who asks is told nothing. */
const unknownCancelKey = new Error("a cancel request names no session");

async function serveClient(
  channel: SocketChannel,
  host: ProtocolHost,
  hello: Greeting,
  { keys, onLoggedIn }: { readonly keys: CancelKeys; readonly onLoggedIn: () => void },
): Promise<void> {
  const identity = await identify(channel, host, hello);
  const account = host.account(identity, hello.user);
  const database = databaseFor(host, hello);
  const session = await host.admit(identity, {
    database,
    account: account.username,
    applicationName: hello.parameters.get("application_name") ?? "",
    clientAddress: channel.remoteAddress,
  });
  onLoggedIn();
  if (account.role !== undefined) session.guard.note("role", { role: account.role });
  let closing = "failed";
  try {
    const dialling = new Deadline(host.limits.upstreamLoginMs);
    const target = host.target(account);
    const catalogs = host.shared("catalogs", () => new Catalogs(host));
    const catalog = await catalogs.open(database, account);
    try {
      const { settings, encoding } = await allowedSettings(
        host,
        session,
        hello,
        account,
        catalog.names(new PreparedStatements(), undefined),
      );
      const upstream = await connectUpstream({
        target,
        account,
        database,
        settings,
        encoding,
        applicationName: applicationName(
          `${identity.user}/${session.id}`,
          hello.parameters.get("application_name"),
        ),
        signal: dialling.signal,
      }).finally(() => dialling.met());
      try {
        const namesOf = catalog.names;
        closing = await converse(channel, host, hello, session, upstream, {
          account,
          keys,
          namesOf,
          encoding,
        });
      } finally {
        upstream.socket.destroy();
      }
    } finally {
      catalog.release();
    }
  } catch (error) {
    closing = error instanceof GatewayError ? error.code : "failed";
    throw error;
  } finally {
    await session.close(closing);
  }
}

async function identify(channel: SocketChannel, host: ProtocolHost, hello: Greeting): Promise<Identity> {
  const claim = { user: hello.user, address: channel.remoteAddress };
  await host.mayLogIn(claim);
  const tls = channel.secured;
  if (host.acceptsCertificates && tls !== undefined && tls.getPeerX509Certificate() !== undefined) {
    return host.authenticate({ certificate: tls }, claim);
  }
  if (tls === undefined || !wantsBearer(host, hello)) {
    const token = await askForToken(channel, host.limits);
    return host.authenticate({ token }, claim);
  }
  const token = await askForBearer(channel, host.limits);
  const { oauthScope } = host.options;
  const scope = typeof oauthScope === "string" ? oauthScope : "openid";
  const discovery = { ...host.tokenIssuer, scope };
  if (token === undefined) {
    // No failure to count: this is how a client finds out where to get its token.
    await refuseBearer(channel, host.limits, discovery);
    throw new GatewayError("identityRefused", { detail: "no OAuth bearer token was given" });
  }
  try {
    return await host.authenticate({ token }, claim);
  } catch (error) {
    if (error instanceof GatewayError && error.code === "identityRefused")
      await refuseBearer(channel, host.limits, discovery);
    throw error;
  }
}

/** The server says first how a client logs in, so the resource decides; a client may ask otherwise at start-up. */
function wantsBearer(host: ProtocolHost, hello: Greeting): boolean {
  const asked = startupSettings(hello.parameters).findLast(({ name }) => name === loginSetting)?.value;
  if (asked === undefined) return host.options.login === "OAuthBearer";
  if (asked !== "oauth" && asked !== "password")
    throw new GatewayError("unsupported", { detail: `${loginSetting} must be oauth or password` });
  return asked === "oauth";
}

/** `options=-c sallyport.login=oauth`: the gateway's own, never sent on. */
const loginSetting = "sallyport.login";

function databaseFor(host: ProtocolHost, hello: Greeting): string {
  const { database, databases } = host.options;
  const isNamed = hello.parameters.get("database") !== undefined;
  const chosen = !isNamed && typeof database === "string" ? database : hello.database;
  if (Array.isArray(databases) && databases.length > 0 && !databases.includes(chosen)) {
    throw new GatewayError("unknownDatabase", { hint: `This resource serves: ${databases.join(", ")}.` });
  }
  return chosen;
}

/** Start-up settings are judged as the SET statements that they are; one refusal ends the login. */
async function allowedSettings(
  host: ProtocolHost,
  session: AdmittedSession,
  hello: Greeting,
  account: UpstreamAccount,
  names: LiveNames,
): Promise<{ readonly settings: ReadonlyMap<string, string>; readonly encoding: string | undefined }> {
  const settings = new Map<string, string>();
  const encodings = allowedEncodings(host.options.clientEncodings);
  const judge = new StatementJudge({
    guard: session.guard,
    names,
    analyser: analyserFor(account),
    sharedCache: new DecisionCache(),
    prepared: new PreparedStatements(),
    encodings,
  });
  const namesEncoding = [...hello.parameters.keys()].some((name) => name.toLowerCase() === "client_encoding");
  let hasEncoding = false;
  let encoding: string | undefined;
  for (const { name, value } of startupSettings(hello.parameters)) {
    const folded = name.toLowerCase();
    if (folded === "application_name" || folded === loginSetting) continue;
    const isEncoding = folded === "client_encoding";
    let text = `SET ${quoteSetting(name)} TO '${value.replaceAll("'", "''")}'`;
    if (isEncoding) {
      // As in the server, a parameter of its own counts instead of what `options` say; it comes first.
      if (namesEncoding && hasEncoding) continue;
      hasEncoding = true;
      encoding = undefined;
      if (isUtf8Name(value)) continue;
      encoding = encodingNamed(value, encodings);
      if (encoding === undefined)
        throw new GatewayError("unsupported", { detail: "client_encoding must be UTF8" });
      text = `SET client_encoding TO '${encoding}'`;
    }
    const judged = judge.judge(text);
    const record = { text: judged.text, verdict: judged.verdict, at: host.clock.nowMs() };
    const answer = await session.guard.request(record, judged.needsDisk);
    if (answer.kind === "permit") {
      if (!isEncoding) settings.set(name, value);
    } else
      throw new GatewayError("denied", {
        detail: answer.message,
        ...(answer.hint ? { hint: answer.hint } : {}),
      });
  }
  return { settings, encoding };
}

const quoteSetting = (name: string) =>
  name
    .split(".")
    .map((part) => `"${part.toLowerCase()}"`)
    .join(".");

/** How the server goes about its own login (DEBUG, LOG) is not the client's. */
function isForClients(notice: Buffer): boolean {
  return ["NOTICE", "WARNING", "INFO"].includes(readErrorFields(notice).get("V") ?? "");
}

/** What a session is served with beside its two ends. */
interface Conversation {
  readonly account: UpstreamAccount;
  readonly keys: CancelKeys;
  readonly namesOf: (statements: PreparedStatements, upstream: UpstreamSession) => LiveNames;
  /** client_encoding at login, where it is not UTF8. */
  readonly encoding: string | undefined;
}

async function converse(
  channel: SocketChannel,
  host: ProtocolHost,
  hello: Greeting,
  admitted: AdmittedSession,
  upstream: UpstreamSession,
  { account, keys, namesOf, encoding }: Conversation,
): Promise<string> {
  // What is held is nothing that the server knows of: it ends here.
  const key = keys.issue(hello.minor === 2 ? 32 : 4, () =>
    admitted.guard.cancelHold("clientCancelled") ? Promise.resolve() : cancelUpstream(upstream, host.limits),
  );
  const processIds = host.shared("processIds", () => new ProcessIds());
  if (upstream.cancelKey !== undefined) processIds.add(key.processId, upstream.cancelKey.processId);
  admitted.guard.onCancelRunning = () => void cancelUpstream(upstream, host.limits);
  const statements = new PreparedStatements();
  const names = namesOf(statements, upstream);
  const judge = new StatementJudge({
    guard: admitted.guard,
    names,
    analyser: analyserFor(account),
    sharedCache: decisionsOf(admitted, account),
    prepared: statements,
    encodings: allowedEncodings(host.options.clientEncodings),
    isOutsideUtf8: encoding !== undefined,
  });
  // Nothing is kept that was judged by the time, and what runs is one statement: there is nothing to end.
  admitted.onPolicyChange((what) => {
    if (what === "policy") judge.policyChanged(decisionsOf(admitted, account));
  });
  const masks = new SessionMasks({
    ...host.masking,
    names,
    masking: () => admitted.guard.masking,
  });
  const greeting = [authenticationFrame(0)];
  const ownName = new ApplicationName(
    `${admitted.identity.user}/${admitted.id}`,
    hello.parameters.get("application_name"),
  );
  const notice = tooLongNotice(hello.parameters.get("application_name"));
  if (notice !== undefined)
    greeting.push(
      errorFrame({
        severity: "NOTICE",
        sqlstate: "42622",
        message: encoding === undefined ? notice : inAscii(notice),
      }),
    );
  // A login trigger says what it likes: to whom something is masked, nothing.
  if (admitted.guard.masking.isEmpty)
    greeting.push(...upstream.notices.filter(isForClients).map(noticeFrame));
  const settings = new SessionSettings();
  for (const { name } of startupSettings(hello.parameters)) settings.touch(name);
  for (const [name, value] of upstream.parameters) settings.report(name, value);
  for (const [name, value] of upstream.parameters)
    greeting.push(parameterStatusFrame(name, name === "application_name" ? ownName.shown(value) : value));
  greeting.push(backendKeyDataFrame(key.processId, key.key), readyFrame);
  channel.write(Buffer.concat(greeting));

  const client = channel.detach();
  client.setNoDelay(true);
  client.setKeepAlive(true, 60_000);
  const relay = new Relay(client, upstream.socket);
  const session: PostgresSession = new PostgresSession(
    {
      guard: admitted.guard,
      judge,
      names,
      masks,
      settings,
      limits: host.limits,
      applicationName: ownName,
      processIds,
      nonce: `sallyport_refused_${randomBytes(12).toString("hex")}`,
      toClient: relay.toClient,
      toUpstream: relay.toUpstream,
      readAhead: relay.readAhead,
      onTerminate: () => relay.stop({ kind: "clientClosed" }),
      clock: host.clock,
    },
    statements,
  );
  admitted.attach(relay, (kind, code) => session.interject(endFrame(kind, code)));
  try {
    const over = relay.run(session);
    if (upstream.rest.length > 0) session.fromUpstream(upstream.rest);
    upstream.socket.resume();
    const how = await over;
    return await finish(how, client, upstream, session);
  } finally {
    keys.revoke(key.processId);
    processIds.delete(key.processId);
  }
}

async function finish(
  how: RelayEnd,
  client: Socket,
  upstream: UpstreamSession,
  session: PostgresSession,
): Promise<string> {
  upstream.socket.end(terminateFrame);
  if (how.kind !== "upstreamClosed" && !session.isIdle) {
    // What a client has sent before it said goodbye is done, as the server alone would: where that is soon.
    const isDone = how.kind === "clientClosed" && !session.isCopyingIn && (await closesSoon(upstream.socket));
    // A client that vanished in mid-statement must not leave it running.
    if (!isDone) void cancelUpstream(upstream, undefined);
  }
  // An error in the middle of a row would read as a part of it: then the end of the connection must do.
  if (session.isMidMessage) client.end();
  if (how.kind === "failed") throw how.error;
  if (how.kind === "upstreamClosed" && !client.destroyed && !session.sawFatal) {
    throw new GatewayError("upstreamUnreachable", { detail: "the server closed the connection" });
  }
  return how.kind;
}

/** True where the server closes the connection within a second: it has read Terminate, behind what it was to do. */
function closesSoon(socket: Socket): Promise<boolean> {
  return new Promise((resolve) => {
    const late = setTimeout(() => resolve(false), goodbyeMs);
    const over = () => {
      clearTimeout(late);
      resolve(true);
    };
    if (socket.destroyed || socket.readableEnded) over();
    for (const event of ["end", "close"]) socket.once(event, over);
  });
}

const goodbyeMs = 1_000;

function endFrame(kind: "notice" | "fatal", code: EndCode): Buffer {
  const { sqlstate, text } = errorTable[code];
  if (kind === "fatal") return errorFrame({ severity: "FATAL", sqlstate, message: text });
  return errorFrame({
    severity: "WARNING",
    sqlstate: "01000",
    message: text,
    hint: "Finish what is running.",
  });
}

const caches = new WeakMap<object, DecisionCache>();
/** Where a role is pinned, other statements are refused and `"$user"` is another schema. */
const roleCaches = new WeakMap<object, Map<string, DecisionCache>>();

function decisionsOf(admitted: AdmittedSession, { role }: UpstreamAccount): DecisionCache {
  const key = admitted.policyKey();
  if (role !== undefined) {
    const ofRoles = roleCaches.get(key) ?? new Map<string, DecisionCache>();
    roleCaches.set(key, ofRoles);
    const found = ofRoles.get(role) ?? new DecisionCache();
    ofRoles.set(role, found);
    return found;
  }
  let cache = caches.get(key);
  if (cache === undefined) {
    cache = new DecisionCache();
    caches.set(key, cache);
  }
  return cache;
}
