/**
 * Upgrades: exec, attach and port-forward, and what is proxied through a pod or a service. The server is asked first;
 * its client hears of a switch only once the server has switched. The one exception is a command that waits for
 * approval: its WebSocket is accepted, so that the person at the terminal can read what it waits for.
 */
import { createHash, randomBytes } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { Permit } from "../../../guard/index.ts";
import { OutputPatterns } from "../../../terminal/index.ts";
import { GatewayError } from "../../../wire/gateway-error.ts";
import type { HeaderFields, HttpExchange, HttpUpgrade } from "../../../wire/http-server.ts";
import type { UpgradeAnswer } from "../../../wire/http-upstream.ts";
import { refuseUpgrade, statusOfError, statusOfRefusal } from "../answer.ts";
import { commandOf, noFacts, type RequestFacts } from "../command.ts";
import { correlationId, idOfRun, isTokenProtocol, type OpenSession } from "../connection.ts";
import { copyOf } from "../copying.ts";
import { type Denials, digestOfDenial } from "../denials.ts";
import { aboutOf, onlyContainer, securityOfContainer } from "../facts.ts";
import { upstreamHeaders } from "../headers.ts";
import { marksOf } from "../impersonation.ts";
import { ask, type Judged, mayGoOn } from "../judge.ts";
import { hiddenFields, masked } from "../object-mask.ts";
import { answerRequest, type Serving as PlainServing } from "../plain-requests.ts";
import { type ApiRequest, isTrue, readRequest, targetOf } from "../request.ts";
import { failure, type Status } from "../status.ts";
import { parsed, readAll } from "../upstream.ts";
import type { StreamBridge } from "./bridge.ts";
import { ChannelBridge, type ClientForm } from "./channel-bridge.ts";
import { CopyReader } from "./copy.ts";
import type { CopyGate } from "./copy-gate.ts";
import { CopyRefused, copyGate, mayGoOnCopying } from "./copy-rules.ts";
import { exchangeOf, isMessageStream } from "./messages.ts";
import { flush, pump, writeAll } from "./pump.ts";
import { type Send, SpdyBridge } from "./spdy-bridge.ts";
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
  /** What of the protocols that the client offers the gateway can read, as the server is asked for them. */
  readonly offered: readonly string[];
  /** The client's own protocol where it is not spoken to the server. */
  readonly translated: string | undefined;
  /** Of a tunnel: as the pod was when its last connection was judged. */
  facts: RequestFacts;
  /** The ports that a tunnel was let forward. */
  readonly ports: Set<number>;
  /** What let it forward the ports that were named at the start. */
  readonly named: Permit[];
  readonly closed: AbortSignal;
}

const channelProtocols = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/** Older forms of the channels, which are translated. */
const translatedProtocols = ["v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];
const tunnelProtocol = "SPDY/3.1+portforward.k8s.io";
const streamProtocols = [...channelProtocols, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
const answerBytesMax = 1024 * 1024;
const lingerMs = 5_000;
/** Shorter than what a session that ends leaves its streams. */
const lastWordsMs = 1_500;

/** Serves one upgrade from its request to its end; never throws. */
export async function answerUpgrade(upgrade: HttpUpgrade, serving: Serving): Promise<void> {
  let isSwitched = false;
  const gone = new AbortController();
  upgrade.socket.once("close", () => gone.abort());
  const judged = serving.connection.judging();
  try {
    const session = await serving.connection.session(upgrade);
    const plain = plainExchange(upgrade);
    if (plain !== undefined) {
      await answerRequest(plain, serving);
      return;
    }
    const attempt = await attemptOf(upgrade, serving, session, gone.signal);
    if ("code" in attempt) {
      refuseUpgrade(upgrade, attempt);
      return;
    }
    session.touch();
    await serve(attempt, judged, () => {
      isSwitched = true;
    });
  } catch (error) {
    const id = correlationId();
    if (!gone.signal.aborted) serving.host.report(error, id);
    if (isSwitched || gone.signal.aborted) upgrade.socket.destroy();
    else refuseUpgrade(upgrade, statusOfError(error, id));
  } finally {
    judged();
  }
}

/** A watch or a log that is to come in messages. */
function plainExchange(upgrade: HttpUpgrade): HttpExchange | undefined {
  const request = readRequest(upgrade.method, upgrade.url);
  const { headers } = upgrade;
  if ("refused" in request || !isMessageStream(request) || upgrade.method !== "GET") return undefined;
  if ((headers.upgrade ?? "").toLowerCase() !== "websocket" || sendsEarly(upgrade)) return undefined;
  const offered = offeredBy("websocket", headers);
  return exchangeOf(upgrade, request, offered, (protocol) => webSocketHead(upgrade, protocol));
}

function sendsEarly({ early, headers }: HttpUpgrade): boolean {
  return (
    early.length > 0 ||
    Number(headers["content-length"] ?? 0) > 0 ||
    headers["transfer-encoding"] !== undefined
  );
}

async function attemptOf(
  upgrade: HttpUpgrade,
  serving: Serving,
  session: OpenSession,
  closed: AbortSignal,
): Promise<Attempt | Status> {
  const { headers } = upgrade;
  if (sendsEarly(upgrade)) return failure(400, "nothing may be sent before the upgrade is answered");
  const request = readRequest(upgrade.method, upgrade.url);
  if ("refused" in request) return failure(400, request.refused);
  const isStream =
    request.resource === "pods" && ["exec", "attach", "portforward"].includes(request.subresource);
  if (!isStream && request.subresource !== "proxy") return failure(400, "this is not served over an upgrade");
  const asked = (headers.upgrade ?? "").toLowerCase();
  const dialect = asked === "websocket" ? "websocket" : asked === "spdy/3.1" ? "spdy" : undefined;
  if (dialect === undefined) return failure(400, "upgrade to websocket or SPDY/3.1");
  if (request.subresource === "proxy" && dialect === "spdy") return failure(400, "upgrade to websocket");
  const given = offeredBy(dialect, headers);
  const readable = given.filter((one) => readableProtocols(request, dialect).includes(one));
  const translated =
    readable.length === 0 && dialect === "websocket" && !isTunnel(request)
      ? given.find((one) => translatedProtocols.includes(one))
      : undefined;
  const offered = translated === undefined ? readable : ["v4.channel.k8s.io"];
  if (offered.length === 0 && request.subresource !== "proxy")
    return failure(400, `offer one of ${[...channelProtocols, tunnelProtocol].join(", ")}`);
  const isTty = isTrue(request.query.get("tty"));
  if (isTty && isTrue(request.query.get("stderr")) && request.subresource !== "portforward")
    return failure(400, "tty and stderr cannot both be true");
  const facts = await factsOf(serving, session, request);
  if (facts === undefined) return missing(request);
  const ports = new Set<number>();
  const named: Permit[] = [];
  return { upgrade, serving, session, request, dialect, offered, translated, facts, ports, named, closed };
}

function missing(request: ApiRequest): Status {
  return failure(404, `pods ${JSON.stringify(request.name)} not found`, { name: request.name, kind: "pods" });
}

/** The pod as it is now; undefined where policy would allow the request and there is none. */
async function factsOf(
  { servers }: Serving,
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
  const security = securityOfContainer(found.spec, request.query.get("container") ?? "");
  const { labels, uid } = found;
  const container = onlyContainer(found.spec);
  return { ...noFacts, labels, security, container, about: aboutOf(uid, [labels, security, container]) };
}

function offeredBy(dialect: Dialect, headers: HttpUpgrade["headers"]): readonly string[] {
  const given = headers[dialect === "websocket" ? "sec-websocket-protocol" : "x-stream-protocol-version"];
  return [given ?? ""]
    .flat()
    .join(",")
    .split(/\s*,\s*/)
    .filter((one) => one !== "" && !isTokenProtocol(one));
}

function readableProtocols(request: ApiRequest, dialect: Dialect): readonly string[] {
  if (dialect === "spdy") return isTunnel(request) ? ["portforward.k8s.io"] : streamProtocols;
  if (!isTunnel(request)) return channelProtocols;
  return namesPorts(request) ? ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"] : [tunnelProtocol];
}

function isTunnel({ subresource }: ApiRequest): boolean {
  return subresource === "portforward";
}

/** The older way to forward over WebSocket: every port is named at the start, each has two channels. */
function namesPorts({ query, subresource }: ApiRequest): boolean {
  return subresource === "portforward" && query.has("ports");
}

async function serve(attempt: Attempt, done: () => void, switched: () => void): Promise<void> {
  const { session, request } = attempt;
  const { guard } = session.admitted;
  const needsApproval = guard.decide(commandOf(request, attempt.facts)).action === "RequireApproval";
  const early =
    needsApproval && !guard.isObserving && isCommand(request) ? acceptEarly(attempt, switched) : undefined;
  const judged = await judge(attempt, (line) => early?.bridge.notice(line, noticeStream(request)));
  // At once: what ends it may come while anything below is waited for.
  const beginning = beginningOf(attempt);
  done();
  try {
    await early?.stop();
    if (judged.kind === "refused") {
      refuse(attempt, early, statusOfRefusal(judged.refusal, request, judged.id));
      return;
    }
    const refusal = await refusalOfPorts(attempt);
    if (refusal !== undefined) {
      refuse(attempt, early, refusal);
      return;
    }
    await begin(attempt, judged.permit, { early, beginning, switched });
  } finally {
    beginning.over();
    for (const { number } of attempt.named)
      guard.response(number, { tag: "forwarded", rows: 0, bytes: 0, ms: 0 });
  }
}

/** Asks the server, and carries what comes of it. */
async function begin(
  attempt: Attempt,
  permit: Permit,
  by: { readonly early: Early | undefined; readonly beginning: Beginning; switched(): void },
): Promise<void> {
  const { upgrade, session } = attempt;
  const { early, beginning } = by;
  let answer: UpgradeAnswer;
  try {
    answer = await dialUpstream(attempt, early?.protocol, beginning.signal);
  } catch (error) {
    if (beginning.why === undefined) throw error;
    session.admitted.guard.response(permit.number, { tag: "not run", rows: 0, bytes: 0, ms: 0 });
    refuse(attempt, early, failure(403, beginning.why));
    return;
  }
  if (answer.kind === "answered") {
    await relayAnswer(attempt, answer.response, permit, early?.bridge);
    return;
  }
  if (early === undefined) {
    upgrade.socket.write(switchHead(attempt, answer.response));
    by.switched();
  }
  // From here on what runs is told itself.
  beginning.over();
  await run(attempt, answer, permit, early?.bridge);
}

/** Tells the client why it gets no stream, in the form that it has come to expect. */
function refuse({ upgrade }: Attempt, early: Early | undefined, status: Status): void {
  if (early === undefined) refuseUpgrade(upgrade, status);
  else {
    early.bridge.cut(status);
    end(upgrade.socket);
  }
}

/** What is permitted and does not run yet: it may be ended like what runs. */
interface Beginning {
  readonly signal: AbortSignal;
  /** Why it is not to run any more. */
  readonly why: string | undefined;
  over(): void;
}

function beginningOf(attempt: Attempt): Beginning {
  const { session } = attempt;
  const ended = new AbortController();
  let why: string | undefined;
  const running = {
    end: (reason: string) => {
      why ??= reason;
      ended.abort();
    },
    mayGoOn: () => commandsOf(attempt).every((command) => mayGoOn(session, command)),
  };
  session.running.add(running);
  return {
    signal: ended.signal,
    get why() {
      return why;
    },
    over: () => void session.running.delete(running),
  };
}

/** With a terminal there is one stream of output, and clients show no other. */
function noticeStream({ query }: ApiRequest): OutputStream {
  return !isTrue(query.get("tty")) && isTrue(query.get("stderr")) ? "stderr" : "stdout";
}

/** Ports that are named at the start are judged at the start; the streams are then the server's to tell apart. */
async function refusalOfPorts(attempt: Attempt): Promise<Status | undefined> {
  const { request } = attempt;
  if (!namesPorts(request) || attempt.dialect === "spdy") return undefined;
  const ports = request.query.getAll("ports").flatMap((text) => text.split(","));
  if (ports.length > portsMax) return failure(400, `no more than ${portsMax} ports at once`);
  for (const text of ports) {
    const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
    if (port < 1 || port > 65_535) return failure(400, "a port is a number from 1 to 65535");
    const { permit, refusal } = await judgePort(attempt, port);
    if (refusal !== undefined) return failure(403, refusal);
    // Accounted for when the tunnel is over: until then leave that ends, or is taken back, ends it.
    if (permit !== undefined) attempt.named.push(permit);
  }
  return undefined;
}
const portsMax = 64;

/** Judges it; a denial that the same client just got over the other dialect is the same decision. */
async function judge(attempt: Attempt, notice: (line: string) => void): Promise<Judged> {
  const { session, serving, request, upgrade, facts, closed, dialect } = attempt;
  const { denials, host } = serving;
  const digestOf = (message: string) => digestOfDenial(session.identity, upgrade, request, message);
  const judged = await ask({
    session,
    host,
    command: commandOf(request, facts),
    bytes: [Buffer.from(`${request.subresource} ${targetOf(request)}`)],
    closed,
    id: idOfRun(host.masking.key, session.identity, upgrade, targetOf(request)),
    known: async ({ message }) => {
      if (dialect !== "spdy" || upgrade.method !== "POST") return undefined;
      const digest = digestOf(message);
      return denials.take(digest) ?? (await host.denials.takeElsewhere(digest));
    },
    tell: ({ message, detail, hint }) =>
      notice([message, detail, hint].filter((one) => one !== "").join("\r\n")),
    again: async () => {
      const now = (await factsOf(serving, session, request)) ?? noFacts;
      return { command: commandOf(request, now), about: now.about };
    },
  });
  if (judged.kind === "permit" || dialect !== "websocket" || upgrade.method !== "GET") return judged;
  const { code, message, isUnrecorded = false } = judged.refusal;
  // Only what is in the recording accounts for another request, and who has left makes none.
  if (code === "denied" && !isUnrecorded && !closed.aborted) denials.remember(digestOf(message), judged.id);
  return judged;
}

interface Early {
  readonly bridge: ChannelBridge | SpdyBridge;
  readonly protocol: string;
  /** Reads no more of the client; resolves once what it sent has been taken in. */
  stop(): Promise<void>;
}

/** Switches before the server is asked, so that the person at the terminal can read what it waits for. */
function acceptEarly(attempt: Attempt, switched: () => void): Early {
  const { upgrade, session, offered, dialect, request } = attempt;
  const isSpdy = dialect === "spdy";
  const known = isSpdy ? ["v4.channel.k8s.io", ...streamProtocols] : channelProtocols;
  const protocol = known.find((one) => offered.includes(one)) ?? "";
  const { socket } = upgrade;
  socket.write(isSpdy ? spdyHead(protocol) : webSocketHead(upgrade, attempt.translated ?? protocol));
  switched();
  const bridge = isSpdy
    ? new SpdyBridge((pieces) => writeAll(socket, pieces), channelProtocols.includes(protocol))
    : new ChannelBridge(socket, () => session.touch(), formOf(attempt));
  let taken: Promise<void> = Promise.resolve();
  const onData = (chunk: Buffer) => {
    taken = taken
      .then(() => bridge.fromClient(chunk))
      // What breaks the framing, or floods, before it may run never will.
      .catch(() => void socket.destroy());
  };
  socket.on("data", onData);
  const opened = bridge instanceof SpdyBridge ? bridge.hasOpened(streamsOf(request)) : Promise.resolve();
  return {
    bridge,
    protocol,
    stop: async () => {
      // A client that is still opening its streams would not understand an end.
      await Promise.race([opened, delay(lingerMs)]);
      socket.pause();
      socket.off("data", onData);
      await taken;
    },
  };
}

/** How many SPDY streams a client opens for a command; with a terminal one is for its size. */
function streamsOf({ query }: ApiRequest): number {
  return 1 + ["stdin", "stdout", "stderr", "tty"].filter((name) => isTrue(query.get(name))).length;
}

function isCommand({ subresource }: ApiRequest): boolean {
  return subresource === "exec" || subresource === "attach";
}

/** What the client's form of the channels is. */
function formOf({ translated = "" }: Attempt): ClientForm {
  return {
    isBase64: translated.includes("base64"),
    hasPlainStatus: translated !== "" && !translated.startsWith("v4."),
  };
}

function dialUpstream(
  attempt: Attempt,
  protocol: string | undefined,
  ended: AbortSignal,
): Promise<UpgradeAnswer> {
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
    signal: AbortSignal.any([closed, ended]),
  });
}

/** The server has not switched: its client hears what it says instead. */
async function relayAnswer(
  { upgrade, session, request }: Attempt,
  response: IncomingMessage,
  permit: Permit,
  bridge: ChannelBridge | SpdyBridge | undefined,
): Promise<void> {
  const { guard } = session.admitted;
  const answer = (await readAll(response, answerBytesMax)) ?? Buffer.alloc(0);
  const status = response.statusCode ?? 502;
  guard.response(permit.number, { tag: String(status), rows: 0, bytes: answer.length, ms: 0 });
  const hidden = hiddenFields(guard.masking, request);
  // What is wrong with a request may name what the pod holds: its containers.
  const body =
    hidden === undefined
      ? answer
      : Buffer.from(JSON.stringify(masked(parsed(answer) ?? failure(status, ""), hidden)));
  const text = body.toString("utf8").slice(0, 2_000);
  if (bridge !== undefined) {
    bridge.cut(failure(status >= 400 ? status : 502, messageOf(text)));
    end(upgrade.socket);
    return;
  }
  const head = [
    `HTTP/1.1 ${status < 200 ? 502 : status} ${(response.statusMessage ?? "").replaceAll(/[^\x20-\x7e]/g, "")}`,
    `Content-Type: ${hidden === undefined ? (response.headers["content-type"] ?? "text/plain") : "application/json"}`,
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
  const { dialect, upgrade, translated } = attempt;
  const protocol = response.headers["sec-websocket-protocol"];
  if (dialect === "websocket") return webSocketHead(upgrade, translated ?? protocol);
  return spdyHead([response.headers["x-stream-protocol-version"]].flat()[0]);
}

function spdyHead(version: string | undefined): string {
  return [
    "HTTP/1.1 101 Switching Protocols",
    "Connection: Upgrade",
    "Upgrade: SPDY/3.1",
    ...(version === undefined ? [] : [`X-Stream-Protocol-Version: ${version}`]),
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
  opened: ChannelBridge | SpdyBridge | undefined,
): Promise<void> {
  const { session } = attempt;
  const client = attempt.upgrade.socket;
  const { bridge, connect, gate } = bridgeFor(attempt, { upstream, response, permit, opened });
  let why: string | undefined;
  let told: Promise<unknown> | undefined;
  const cut = (reason: string, code = 403) => {
    why ??= reason;
    const status = failure(code, reason);
    if (told !== undefined) return;
    if (bridge instanceof SpdyBridge && isCommand(attempt.request))
      told = Promise.race([bridge.cutAfter(streamsOf(attempt.request), status), delay(lastWordsMs)]);
    else bridge.cut(status);
    told ??= Promise.resolve();
    upstream.destroy();
    void told.then(() => end(client));
  };
  const patterns = () => JSON.stringify(session.admitted.guard.masking.patterns);
  const masks = patterns();
  const running = {
    end: (reason: string) => cut(reason),
    mayGoOn: () =>
      patterns() === masks &&
      commandsOf(attempt).every((command) => mayGoOn(session, command)) &&
      (!isCopy(attempt.request) || mayGoOnCopying(attempt, gate)),
  };
  session.running.add(running);
  try {
    await connect();
    const up = pump(client, upstream, Buffer.alloc(0), (chunk) => bridge.fromClient(chunk));
    const down = pump(upstream, client, early, (chunk) => bridge.fromUpstream(chunk)).then(() =>
      bridge.upstreamEnded(),
    );
    await Promise.race([up, down]);
    // A client that is still opening its streams would wait for the answers about them.
    if (told !== undefined) await Promise.race([up, told]);
    if (!upstream.destroyed && !client.destroyed) await Promise.race([down, delay(lingerMs)]);
  } catch (error) {
    if (error instanceof CopyRefused) {
      flush(upstream);
      cut(error.message);
      if (told !== undefined) await Promise.race([told, delay(lastWordsMs)]);
    } else {
      const shown = error instanceof GatewayError ? error.message : "the stream could not be read";
      cut(shown, error instanceof GatewayError ? 503 : 400);
      attempt.serving.host.report(error, correlationId());
    }
  } finally {
    session.running.delete(running);
    bridge.close(why);
    flush(upstream);
    upstream.destroy();
    end(client);
  }
}

/** Everything that was judged of what runs: of a tunnel each port, too. */
function commandsOf({ request, facts, ports }: Attempt) {
  return [0, ...ports].map((port) => commandOf(request, port === 0 ? facts : { ...facts, port }));
}

/** A bridge that speaks with the server once it is connected: what the client has sent before is judged then. */
interface Bridged {
  readonly bridge: StreamBridge;
  readonly connect: () => Promise<void> | undefined;
  /** Judges the files that it carries one by one, where rules named any when it began. */
  readonly gate: CopyGate | undefined;
}

function bridgeFor(
  attempt: Attempt,
  to: {
    readonly upstream: Duplex;
    readonly response: IncomingMessage;
    readonly permit: Permit;
    readonly opened: ChannelBridge | SpdyBridge | undefined;
  },
): Bridged {
  const { request, dialect, session, upgrade } = attempt;
  const { upstream, response, permit, opened } = to;
  const { guard } = session.admitted;
  const client = upgrade.socket;
  const toClient: Send = (pieces) => writeAll(client, pieces);
  const send: Send = (pieces) => writeAll(upstream, pieces);
  const touch = () => session.touch();
  if (request.subresource === "proxy" || (namesPorts(request) && dialect === "websocket"))
    return connected(rawBridge(attempt, { toClient, toUpstream: send }, permit));
  if (request.subresource === "portforward") {
    const done = (why?: string) =>
      guard.response(permit.number, { tag: why ?? "closed", rows: 0, bytes: 0, ms: 0 });
    const ended = ({ number }: Permit, bytes: number, ms: number) =>
      guard.response(number, { tag: "closed", rows: 0, bytes, ms });
    const reader = tunnelReader((port) => judgePort(attempt, port), ended, touch);
    if (dialect === "spdy") {
      const bridge = new SpdyBridge(toClient, false);
      void bridge.connect({ send, reader, onEnd: done });
      return connected(bridge);
    }
    return connected(new TunnelBridge(client, upstream, reader, done));
  }
  guard.note("terminal", {
    command: permit.number,
    tty: isTrue(request.query.get("tty")),
    stdin: isTrue(request.query.get("stdin")),
    pod: `${request.namespace}/${request.name}`,
  });
  const copying = copyOf(request.query.getAll("command"));
  const nowMs = () => attempt.serving.host.clock.nowMs();
  const judged = { session, request, facts: attempt.facts, nowMs };
  const gate = copying === undefined ? undefined : copyGate({ ...judged, copying });
  const options = {
    recordsInput: guard.recordsInput,
    patterns: new OutputPatterns(guard.masking.patterns),
    receiver: { hasTerminal: isTrue(request.query.get("tty")), isStopped: () => client.writableNeedDrain },
    gate,
    listing:
      copying === undefined || copying.isTail
        ? undefined
        : new CopyReader(copying.direction, (fields) =>
            guard.note("file", { command: permit.number, ...fields }),
          ),
  };
  const begunMs = performance.now();
  if (dialect === "websocket") {
    const bridge =
      opened instanceof ChannelBridge ? opened : new ChannelBridge(client, touch, formOf(attempt));
    const terminal = new Terminal(guard, permit.number, options, bridge.show);
    return { bridge, gate, connect: () => bridge.connect(upstream, terminal) };
  }
  const version = [response.headers["x-stream-protocol-version"]].flat()[0] ?? "";
  let show: (stream: OutputStream, bytes: Buffer) => void = () => undefined;
  const terminal = new Terminal(guard, permit.number, options, (stream, bytes) => show(stream, bytes));
  const bridge =
    opened instanceof SpdyBridge ? opened : new SpdyBridge(toClient, channelProtocols.includes(version));
  show = (stream, bytes) => bridge.show(stream, bytes);
  const onEnd = (why?: string) => terminal.close(performance.now() - begunMs, why);
  const reader = commandReader(terminal, touch);
  return { bridge, gate, connect: () => bridge.connect({ send, reader, onEnd }) };
}

/** What has its server from the start, and no files. */
function connected(bridge: StreamBridge): Bridged {
  return { bridge, connect: () => undefined, gate: undefined };
}

function isCopy({ subresource, query }: ApiRequest): boolean {
  return subresource === "exec" && copyOf(query.getAll("command")) !== undefined;
}

/** Each forwarded connection is a command of its own, judged by its port. */
async function judgePort(attempt: Attempt, port: number) {
  const { session, serving, request, closed } = attempt;
  // The tunnel may have been open for long: the pod counts as it is now.
  const look = async () => {
    const facts = (await factsOf(serving, session, request)) ?? noFacts;
    return { facts, command: commandOf(request, { ...facts, port }), about: facts.about };
  };
  const { facts, command } = await look();
  const judged = await ask({
    session,
    host: serving.host,
    command,
    bytes: [Buffer.from(`portforward ${targetOf(request)} ${port}`)],
    closed,
    again: look,
  });
  if (judged.kind === "permit") {
    attempt.facts = facts;
    attempt.ports.add(port);
    return { permit: judged.permit };
  }
  return { refusal: statusOfRefusal(judged.refusal, request, judged.id).message };
}

/** What a proxied server speaks is its own; it is counted, and nothing of it is read. */
function rawBridge(
  { session }: Attempt,
  ends: { readonly toClient: Send; readonly toUpstream: Send },
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
