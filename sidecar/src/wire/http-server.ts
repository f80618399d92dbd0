/**
 * HTTP/1.1 and HTTP/2 on a connection whose TLS is done. Both come out as the same exchange, so that a protocol on top
 * of HTTP knows no version of it; upgrades exist in HTTP/1.1 alone.
 */
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import {
  createServer as createHttp2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type Http2Session,
} from "node:http2";
import type { Duplex, Readable, Writable } from "node:stream";
import type { TLSSocket } from "node:tls";

/** Header values by lower-case name; a list stands for a header of its own each. */
export type HeaderFields = Readonly<Record<string, string | readonly string[]>>;

/** A request's first part, the same in both versions. */
export interface HttpHead {
  readonly method: string;
  /** The target as it was sent: path and query. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
}

/** One request and its answer. */
export interface HttpExchange extends HttpHead {
  readonly body: Readable;
  /** Aborted when the client is gone, or the answer is complete. */
  readonly closed: AbortSignal;
  /** Tells a client that waits with its body to send it. */
  continue(): void;
  /** Begins the answer and sends its head at once. */
  respond(status: number, headers: HeaderFields): Writable;
  /** Ends the connection's stream without an ending, so that a client cannot take a cut answer for a whole one. */
  abort(): void;
}

/** A request to speak another protocol on its connection. */
export interface HttpUpgrade extends HttpHead {
  readonly socket: Duplex;
  /** What the client sent behind its request without waiting for an answer. */
  readonly early: Buffer;
}

/** Who answers the requests of one connection. */
export interface HttpHandler {
  request(exchange: HttpExchange): void;
  upgrade(upgrade: HttpUpgrade): void;
}

/** Largest head of a request, tokens included. */
export const headBytesMax = 32 * 1024;
const headMs = 15_000;
const idleMs = 120_000;
const streamsMax = 250;

const handlers = new WeakMap<Duplex, HttpHandler>();

const http1 = createServer({
  maxHeaderSize: headBytesMax,
  headersTimeout: headMs,
  // Watches, logs and uploads last for hours.
  requestTimeout: 0,
  keepAliveTimeout: idleMs,
  insecureHTTPParser: false,
  noDelay: true,
});
http1.on("request", (request, response) => answer1(request, response, false));
http1.on("checkContinue", (request, response) => answer1(request, response, true));
http1.on("checkExpectation", (_request, response) => {
  response.writeHead(417, { connection: "close" });
  response.end();
});
http1.on("upgrade", ({ method = "", url = "", headers }: IncomingMessage, socket, early) => {
  socket.on("error", () => undefined);
  const handler = handlers.get(socket);
  if (handler === undefined) socket.destroy();
  else handler.upgrade({ method, url, headers, socket, early });
});
http1.on("connect", (_request, socket) => socket.destroy());
http1.on("clientError", (error: NodeJS.ErrnoException, socket) => {
  const status =
    error.code === "HPE_HEADER_OVERFLOW" ? "431 Request Header Fields Too Large" : "400 Bad Request";
  if (socket.writable) socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
  setTimeout(() => socket.destroy(), 1_000).unref();
});

const http2 = createHttp2Server({
  maxHeaderListPairs: 200,
  settings: { maxConcurrentStreams: streamsMax, maxHeaderListSize: headBytesMax },
});
http2.on("request", (request, response) => answer2(request, response));
http2.on("checkContinue", (request, response) => answer2(request, response));
http2.on("sessionError", () => undefined);
http2.on("session", (session) => {
  session.setTimeout(idleMs * 5, () => session.close());
  if (connecting !== undefined) handlersOfSessions.set(session, connecting);
});
const handlersOfSessions = new WeakMap<Http2Session, HttpHandler>();
/** Whose session begins: it is announced before the server's `emit` returns. */
let connecting: HttpHandler | undefined;

/** Serves one connection until it ends. */
export function serveHttp(socket: TLSSocket, handler: HttpHandler): Promise<void> {
  handlers.set(socket, handler);
  return new Promise((resolve) => {
    if (socket.destroyed) return resolve();
    socket.once("close", () => resolve());
    // Node clears this only for sockets of its own TLS server, and HTTP/2 waits for it.
    Reflect.set(socket, "secureConnecting", false);
    connecting = handler;
    (socket.alpnProtocol === "h2" ? http2 : http1).emit("connection", socket);
    connecting = undefined;
  });
}

function answer1(request: IncomingMessage, response: ServerResponse, waits: boolean): void {
  const handler = handlers.get(request.socket);
  if (handler === undefined) {
    request.destroy();
    return;
  }
  handler.request({
    method: request.method ?? "",
    url: request.url ?? "",
    headers: request.headers,
    body: request,
    closed: closedSignal(response),
    continue: () => {
      if (waits) response.writeContinue();
    },
    respond: (status, headers) => {
      response.writeHead(status, headers as Record<string, string | string[]>);
      response.flushHeaders();
      return response;
    },
    abort: () => request.socket.destroy(),
  });
}

function answer2(request: Http2ServerRequest, response: Http2ServerResponse): void {
  const { session } = request.stream;
  const handler = session === undefined ? undefined : handlersOfSessions.get(session);
  if (handler === undefined) {
    response.stream.close();
    return;
  }
  const { ":authority": host } = request.headers;
  handler.request({
    method: request.method,
    url: request.url,
    headers: { ...(host === undefined ? {} : { host }), ...request.headers },
    body: request,
    closed: closedSignal(response),
    continue: () => {
      if (request.headers.expect !== undefined) response.writeContinue();
    },
    respond: (status, headers) => {
      response.writeHead(status, headers as Record<string, string | string[]>);
      return response;
    },
    abort: () => response.stream.close(8),
  });
}

function closedSignal(response: ServerResponse | Http2ServerResponse): AbortSignal {
  const controller = new AbortController();
  response.once("close", () => controller.abort());
  response.on("error", () => undefined);
  return controller.signal;
}
