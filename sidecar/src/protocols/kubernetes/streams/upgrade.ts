/**
 * Upgrades: exec, attach and port-forward, and what is proxied through a pod or a service. The server is asked first;
 * its client hears of a switch only once the server has switched. The one exception is a command that waits for
 * approval: its WebSocket is accepted, so that the person at the terminal can read what it waits for.
 */
import { createHash, randomBytes } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { Permit } from "../../../guard/index.ts";
import { GatewayError } from "../../../wire/gateway-error.ts";
import type { HeaderFields, HttpUpgrade } from "../../../wire/http-server.ts";
import type { UpgradeAnswer } from "../../../wire/http-upstream.ts";
import { refuseUpgrade, statusOfError, statusOfRefusal } from "../answer.ts";
import { commandOf, noFacts, type RequestFacts } from "../command.ts";
import { correlationId, type OpenSession } from "../connection.ts";
import type { Denials } from "../denials.ts";
import { securityOfContainer } from "../facts.ts";
import { upstreamHeaders } from "../headers.ts";
import { marksOf } from "../impersonation.ts";
import { ask, type Judged } from "../judge.ts";
import type { Serving as PlainServing } from "../plain-requests.ts";
import { type ApiRequest, isTrue, readRequest, targetOf } from "../request.ts";
import { failure, type Status } from "../status.ts";
import { TextPatterns } from "../stream-mask.ts";
import { readAll } from "../upstream.ts";
import type { StreamBridge } from "./bridge.ts";
import { ChannelBridge } from "./channel-bridge.ts";
import { CopyReader, copyOf } from "./copy.ts";
import { pump, writeAll } from "./pump.ts";
import { SpdyBridge } from "./spdy-bridge.ts";
import { commandReader, tunnelReader } from "./stream-readers.ts";
import { type OutputStream, Terminal } from "./terminal.ts";
import { TunnelBridge } from "./tunnel-bridge.ts";

/** What serving an upgrade needs. */
export interface Serving extends PlainServing {
  readonly denials: Denials;
}

type Dialect = "websocket" | "spdy";

/** An upgrade on its way. */
interface Attempt {
  readonly upgrade: HttpUpgrade;
  readonly serving: Serving;
  readonly session: OpenSession;
  readonly request: ApiRequest;
  readonly dialect: Dialect;
  /** What of the protocols that the client offers the gateway can read. */
  readonly offered: readonly string[];
  readonly facts: RequestFacts;
  readonly closed: AbortSignal;
}

const channelProtocols = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const tunnelProtocol = "SPDY/3.1+portforward.k8s.io";
const streamProtocols = [...channelProtocols, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
const answerBytesMax = 1024 * 1024;
const lingerMs = 5_000;

/** Serves one upgrade from its request to its end; never throws. */
export async function answerUpgrade(upgrade: HttpUpgrade, serving: Serving): Promise<void> {
  let isSwitched = false;
  const gone = new AbortController();
  upgrade.socket.once("close", () => gone.abort());
  try {
    const session = await serving.connection.session(upgrade);
    const attempt = await attemptOf(upgrade, serving, session, gone.signal);
    if ("code" in attempt) {
      refuseUpgrade(upgrade, attempt);
      return;
    }
    session.touch();
    await serve(attempt, () => {
      isSwitched = true;
    });
  } catch (error) {
    const id = correlationId();
    if (!gone.signal.aborted) serving.host.report(error, id);
    if (isSwitched || gone.signal.aborted) upgrade.socket.destroy();
    else refuseUpgrade(upgrade, statusOfError(error, id));
  }
}

async function attemptOf(
  upgrade: HttpUpgrade,
  serving: Serving,
  session: OpenSession,
  closed: AbortSignal,
): Promise<Attempt | Status> {
  const { headers } = upgrade;
  if (upgrade.early.length > 0 || Number(headers["content-length"] ?? 0) > 0 || headers["transfer-encoding"])
    return failure(400, "nothing may be sent before the upgrade is answered");
  const request = readRequest(upgrade.method, upgrade.url);
  if ("refused" in request) return failure(400, request.refused);
  const isStream =
    request.resource === "pods" && ["exec", "attach", "portforward"].includes(request.subresource);
  if (!isStream && request.subresource !== "proxy") return failure(400, "this is not served over an upgrade");
  const asked = (headers.upgrade ?? "").toLowerCase();
  const dialect = asked === "websocket" ? "websocket" : asked === "spdy/3.1" ? "spdy" : undefined;
  if (dialect === undefined) return failure(400, "upgrade to websocket or SPDY/3.1");
  if (request.subresource === "proxy" && dialect === "spdy") return failure(400, "upgrade to websocket");
  const offered = offeredBy(request, dialect, headers);
  if (offered.length === 0 && request.subresource !== "proxy")
    return failure(400, `offer one of ${[...channelProtocols, tunnelProtocol].join(", ")}`);
  const isTty = isTrue(request.query.get("tty"));
  if (isTty && isTrue(request.query.get("stderr")) && request.subresource !== "portforward")
    return failure(400, "tty and stderr cannot both be true");
  const facts = await factsOf(serving, session, request);
  if (facts === undefined) return missing(request);
  return { upgrade, serving, session, request, dialect, offered, facts, closed };
}

function missing(request: ApiRequest): Status {
  return failure(404, `pods ${JSON.stringify(request.name)} not found`, { name: request.name, kind: "pods" });
}

/** The pod as it is now; undefined where policy would allow the request and there is none. */
async function factsOf(
  { servers, host }: Serving,
  session: OpenSession,
  request: ApiRequest,
): Promise<RequestFacts | undefined> {
  if (request.resource !== "pods") return noFacts;
  const found = await servers.pod(session.account, request.namespace, request.name);
  if (found.kind === "missing") {
    // Whoever may do nothing here learns nothing of what is here.
    const verdict = session.admitted.guard.decide(commandOf(request));
    return verdict.action === "Deny" && !session.admitted.guard.isObserving ? noFacts : undefined;
  }
  void host;
  const security = securityOfContainer(found.spec, request.query.get("container") ?? "");
  return { ...noFacts, labels: found.labels, security };
}

function offeredBy(
  request: ApiRequest,
  dialect: Dialect,
  headers: HttpUpgrade["headers"],
): readonly string[] {
  const given = headers[dialect === "websocket" ? "sec-websocket-protocol" : "x-stream-protocol-version"];
  const list = [given ?? ""]
    .flat()
    .join(",")
    .split(/\s*,\s*/)
    .filter((one) => one !== "");
  if (request.subresource === "portforward") {
    const known = dialect === "spdy" ? ["portforward.k8s.io"] : [tunnelProtocol];
    return list.filter((one) => known.includes(one));
  }
  return list.filter((one) => (dialect === "spdy" ? streamProtocols : channelProtocols).includes(one));
}

async function serve(attempt: Attempt, switched: () => void): Promise<void> {
  const { session, request, dialect, upgrade } = attempt;
  const { guard } = session.admitted;
  const isCommand = request.subresource === "exec" || request.subresource === "attach";
  const needsApproval = guard.decide(commandOf(request, attempt.facts)).action === "RequireApproval";
  const early =
    needsApproval && !guard.isObserving && isCommand && dialect === "websocket"
      ? acceptEarly(attempt, switched)
      : undefined;
  const judged = await judge(attempt, (line) => early?.bridge.notice(line));
  early?.stop();
  if (judged.kind === "refused") {
    const status = statusOfRefusal(judged.refusal, request, judged.id);
    if (early === undefined) refuseUpgrade(upgrade, status);
    else {
      early.bridge.cut(status);
      end(upgrade.socket);
    }
    return;
  }
  const answer = await dialUpstream(attempt, early?.protocol);
  if (answer.kind === "answered") {
    await relayAnswer(attempt, answer.response, judged.permit, early?.bridge);
    return;
  }
  if (early === undefined) {
    upgrade.socket.write(switchHead(attempt, answer.response));
    switched();
  }
  await run(attempt, answer, judged.permit, early?.bridge);
}

/** Judges it; a denial that the same client just got over the other dialect is the same decision. */
async function judge(attempt: Attempt, notice: (line: string) => void): Promise<Judged> {
  const { session, serving, request, upgrade, facts, closed } = attempt;
  const key = createHash("sha256")
    .update(`${session.identity.user}\n${targetOf(request)}`)
    .digest("base64");
  const judged = await ask({
    session,
    host: serving.host,
    command: commandOf(request, facts),
    bytes: [Buffer.from(`${request.subresource} ${targetOf(request)}`)],
    closed,
    known: ({ message }) => serving.denials.take(key, upgrade.method, message),
    tell: ({ message, detail, hint }) =>
      notice([message, detail, hint].filter((one) => one !== "").join("\r\n")),
    again: async () => commandOf(request, (await factsOf(serving, session, request)) ?? noFacts),
  });
  if (judged.kind === "refused")
    serving.denials.remember(key, upgrade.method, judged.refusal.message, judged.id);
  return judged;
}

interface Early {
  readonly bridge: ChannelBridge;
  readonly protocol: string;
  stop(): void;
}

function acceptEarly(attempt: Attempt, switched: () => void): Early {
  const { upgrade, session, offered } = attempt;
  const protocol = channelProtocols.find((one) => offered.includes(one)) ?? "";
  upgrade.socket.write(webSocketHead(upgrade, protocol));
  switched();
  const bridge = new ChannelBridge(upgrade.socket, () => session.touch());
  const onData = (chunk: Buffer) => {
    try {
      void bridge.fromClient(chunk);
    } catch {
      // What breaks the framing, or floods, before it may run never will.
      upgrade.socket.destroy();
    }
  };
  upgrade.socket.on("data", onData);
  return {
    bridge,
    protocol,
    stop: () => {
      upgrade.socket.pause();
      upgrade.socket.off("data", onData);
    },
  };
}

function dialUpstream(attempt: Attempt, protocol: string | undefined): Promise<UpgradeAnswer> {
  const { serving, session, request, dialect, offered, upgrade, closed } = attempt;
  const { account, identity, admitted } = session;
  const headers: Record<string, string | readonly string[]> = {
    ...(upstreamHeaders(
      upgrade.headers,
      account,
      identity,
      marksOf(serving.host, identity, admitted.id),
    ) as Record<string, string | readonly string[]>),
    connection: "Upgrade",
    upgrade: dialect === "websocket" ? "websocket" : "SPDY/3.1",
  };
  delete headers["sec-websocket-extensions"];
  const wanted = protocol === undefined ? offered : [protocol];
  if (dialect === "websocket") {
    headers["sec-websocket-key"] = randomBytes(16).toString("base64");
    headers["sec-websocket-version"] = "13";
    if (request.subresource !== "proxy") headers["sec-websocket-protocol"] = wanted.join(", ");
  } else headers["x-stream-protocol-version"] = wanted;
  return serving.servers.of(account).upgrade({
    method: request.method,
    path: targetOf(request),
    headers: headers as HeaderFields,
    signal: closed,
  });
}

/** The server has not switched: its client hears what it says instead. */
async function relayAnswer(
  { upgrade, session }: Attempt,
  response: IncomingMessage,
  permit: Permit,
  bridge: ChannelBridge | undefined,
): Promise<void> {
  const body = (await readAll(response, answerBytesMax)) ?? Buffer.alloc(0);
  const status = response.statusCode ?? 502;
  session.admitted.guard.response(permit.number, { tag: String(status), rows: 0, bytes: body.length, ms: 0 });
  const text = body.toString("utf8").slice(0, 2_000);
  if (bridge !== undefined) {
    bridge.cut(failure(status >= 400 ? status : 502, messageOf(text)));
    end(upgrade.socket);
    return;
  }
  const head = [
    `HTTP/1.1 ${status < 200 ? 502 : status} ${(response.statusMessage ?? "").replaceAll(/[^\x20-\x7e]/g, "")}`,
    `Content-Type: ${response.headers["content-type"] ?? "text/plain"}`,
    `Content-Length: ${body.length}`,
    "Connection: close",
    "\r\n",
  ];
  writeAll(upgrade.socket, [Buffer.from(head.join("\r\n")), body]);
  end(upgrade.socket);
}

function messageOf(text: string): string {
  try {
    const { message } = JSON.parse(text) as { message?: unknown };
    return typeof message === "string" ? message : text;
  } catch {
    // Not a Status: its text is what there is.
    return text;
  }
}

function switchHead(attempt: Attempt, response: IncomingMessage): string {
  const { dialect, upgrade } = attempt;
  const protocol = response.headers["sec-websocket-protocol"];
  if (dialect === "websocket") return webSocketHead(upgrade, protocol);
  const version = response.headers["x-stream-protocol-version"];
  return [
    "HTTP/1.1 101 Switching Protocols",
    "Connection: Upgrade",
    "Upgrade: SPDY/3.1",
    ...(version === undefined ? [] : [`X-Stream-Protocol-Version: ${[version].flat()[0]}`]),
    "\r\n",
  ].join("\r\n");
}

function webSocketHead({ headers }: HttpUpgrade, protocol: string | undefined): string {
  const key = headers["sec-websocket-key"] ?? "";
  const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  return [
    "HTTP/1.1 101 Switching Protocols",
    "Connection: Upgrade",
    "Upgrade: websocket",
    `Sec-WebSocket-Accept: ${accept}`,
    ...(protocol === undefined || protocol === "" ? [] : [`Sec-WebSocket-Protocol: ${protocol}`]),
    "\r\n",
  ].join("\r\n");
}

type Switched = Extract<UpgradeAnswer, { kind: "switched" }>;

/** Carries both ways until one side is over, or the session is. */
async function run(
  attempt: Attempt,
  { socket: upstream, early, response }: Switched,
  permit: Permit,
  opened: ChannelBridge | undefined,
): Promise<void> {
  const { session } = attempt;
  const client = attempt.upgrade.socket;
  const bridge = await bridgeFor(attempt, { upstream, response, permit, opened });
  let why: string | undefined;
  const cut = (reason: string, code = 403) => {
    why ??= reason;
    bridge.cut(failure(code, reason));
    end(client);
    upstream.destroy();
  };
  const onEnd = (reason: string) => cut(reason);
  session.running.add(onEnd);
  try {
    const up = pump(client, upstream, Buffer.alloc(0), (chunk) => bridge.fromClient(chunk));
    const down = pump(upstream, client, early, (chunk) => bridge.fromUpstream(chunk)).then(() =>
      bridge.upstreamEnded(),
    );
    await Promise.race([up, down]);
    if (!upstream.destroyed && !client.destroyed) await Promise.race([down, delay(lingerMs)]);
  } catch (error) {
    const shown = error instanceof GatewayError ? error.message : "the stream could not be read";
    cut(shown, error instanceof GatewayError ? 503 : 400);
    attempt.serving.host.report(error, correlationId());
  } finally {
    session.running.delete(onEnd);
    bridge.close(why);
    upstream.destroy();
    end(client);
  }
}

async function bridgeFor(
  attempt: Attempt,
  to: {
    readonly upstream: Duplex;
    readonly response: IncomingMessage;
    readonly permit: Permit;
    readonly opened: ChannelBridge | undefined;
  },
): Promise<StreamBridge> {
  const { request, dialect, session, upgrade } = attempt;
  const { upstream, response, permit, opened } = to;
  const { guard } = session.admitted;
  const client = upgrade.socket;
  const ends = {
    toClient: (pieces: readonly Buffer[]) => writeAll(client, pieces),
    toUpstream: (pieces: readonly Buffer[]) => writeAll(upstream, pieces),
  };
  const touch = () => session.touch();
  if (request.subresource === "proxy") return rawBridge(attempt, ends, permit);
  if (request.subresource === "portforward") {
    const done = (why?: string) =>
      guard.response(permit.number, { tag: why ?? "closed", rows: 0, bytes: 0, ms: 0 });
    const ended = ({ number }: Permit, bytes: number, ms: number) =>
      guard.response(number, { tag: "closed", rows: 0, bytes, ms });
    const reader = tunnelReader((port) => judgePort(attempt, port), ended, touch);
    if (dialect === "spdy") return new SpdyBridge(ends, reader, false, done);
    return new TunnelBridge(client, upstream, reader, done);
  }
  guard.note("terminal", {
    command: permit.number,
    tty: isTrue(request.query.get("tty")),
    stdin: isTrue(request.query.get("stdin")),
    pod: `${request.namespace}/${request.name}`,
  });
  const options = { recordsInput: guard.recordsInput, patterns: new TextPatterns(guard.masking) };
  const copy = copyOf(request.query.getAll("command"));
  const listing =
    copy === undefined
      ? undefined
      : new CopyReader(copy, (fields) => guard.note("file", { command: permit.number, ...fields }));
  const begunMs = performance.now();
  if (dialect === "websocket") {
    const bridge = opened ?? new ChannelBridge(client, touch);
    const terminal = new Terminal(guard, permit.number, { ...options, listing }, bridge.show);
    await bridge.connect(upstream, terminal);
    return bridge;
  }
  const version = [response.headers["x-stream-protocol-version"]].flat()[0] ?? "";
  let show: (stream: OutputStream, bytes: Buffer) => void = () => undefined;
  const terminal = new Terminal(guard, permit.number, { ...options, listing }, (stream, bytes) =>
    show(stream, bytes),
  );
  const bridge = new SpdyBridge(
    ends,
    commandReader(terminal, touch),
    channelProtocols.includes(version),
    (why) => terminal.close(performance.now() - begunMs, why),
  );
  show = (stream, bytes) => bridge.show(stream, bytes);
  return bridge;
}

/** Each forwarded connection is a command of its own, judged by its port. */
async function judgePort(attempt: Attempt, port: number) {
  const { session, serving, request, facts, closed } = attempt;
  const judged = await ask({
    session,
    host: serving.host,
    command: commandOf(request, { ...facts, port }),
    bytes: [Buffer.from(`portforward ${targetOf(request)} ${port}`)],
    closed,
  });
  if (judged.kind === "permit") return { permit: judged.permit };
  return { refusal: statusOfRefusal(judged.refusal, request, judged.id).message };
}

/** What a proxied server speaks is its own; it is counted, and nothing of it is read. */
function rawBridge(
  { session }: Attempt,
  ends: { toClient(pieces: readonly Buffer[]): void; toUpstream(pieces: readonly Buffer[]): void },
  permit: Permit,
): StreamBridge {
  const begunMs = performance.now();
  let bytes = 0;
  return {
    fromClient: (chunk) => {
      session.touch();
      bytes += chunk.length;
      ends.toUpstream([chunk]);
      return undefined;
    },
    fromUpstream: (chunk) => {
      bytes += chunk.length;
      ends.toClient([chunk]);
      return undefined;
    },
    upstreamEnded: () => undefined,
    cut: () => undefined,
    close: (why) =>
      session.admitted.guard.response(permit.number, {
        tag: why ?? "closed",
        rows: 0,
        bytes,
        ms: performance.now() - begunMs,
      }),
  };
}

/** Ends a socket so that what was written still arrives, but a peer that does not read cannot keep it. */
function end(socket: Duplex): void {
  if (socket.writable) socket.end();
  socket.resume();
  setTimeout(() => socket.destroy(), lingerMs).unref();
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}
