/** HTTP/1.1 toward a server behind the gateway, on connections that `dial` opens and checks. */
import { Agent, type ClientRequest, type IncomingMessage, request } from "node:http";
import { connect } from "node:net";
import type { Duplex, Readable } from "node:stream";
import { checkedPlace, dial, secure, type UpstreamTarget } from "./dial.ts";
import { GatewayError } from "./gateway-error.ts";
import type { HeaderFields } from "./http-server.ts";
import { AddressForbiddenError } from "./reach.ts";

/** A request as it goes to the server. */
export interface UpstreamRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: HeaderFields;
  /** Aborts it at any time. */
  readonly signal?: AbortSignal;
  /** Sent whole where it is a buffer, as it comes where it is a stream. */
  readonly body?: Buffer | Readable;
}

/** What an upgrade led to: another protocol on the socket, or an answer as if nothing had been asked. */
export type UpgradeAnswer =
  | {
      readonly kind: "switched";
      readonly response: IncomingMessage;
      readonly socket: Duplex;
      readonly early: Buffer;
    }
  | { readonly kind: "answered"; readonly response: IncomingMessage };

const freeMs = 30_000;
const freeSocketsMax = 32;
const headBytesMax = 256 * 1024;

/** One server, as one account reaches it. */
export class HttpUpstream {
  readonly #agent: Agent;
  readonly #target: UpstreamTarget;

  constructor(target: UpstreamTarget, connectMs: number) {
    this.#target = target;
    this.#agent = new DialAgent(target, connectMs);
  }

  /** Sends a request and resolves with the head of its answer; rejects with `upstreamUnreachable`. */
  request(options: UpstreamRequest): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const sent = this.#begin(options);
      sent.once("response", resolve);
      // Without this, whoever waits for the answer would wait for ever.
      sent.once("upgrade", (_response, socket) => {
        socket.destroy();
        const detail = "the server switched protocols, and nobody had asked it to";
        reject(new GatewayError("upstreamProtocol", { detail }));
      });
      sent.once("error", (error: NodeJS.ErrnoException) => {
        const { body } = options;
        // The server may close an idle connection while a request is on its way; a read may be sent again.
        const isStale = sent.reusedSocket && (error.code === "ECONNRESET" || error.code === "EPIPE");
        if (isStale && body === undefined && isRead(options.method)) {
          this.request(options).then(resolve, reject);
        } else reject(asGatewayError(error));
      });
      end(sent, options.body);
    });
  }

  /** Asks to switch protocols. */
  upgrade(options: UpstreamRequest): Promise<UpgradeAnswer> {
    return new Promise((resolve, reject) => {
      const sent = this.#begin(options);
      sent.once("upgrade", (response, socket, early) => {
        socket.on("error", () => undefined);
        resolve({ kind: "switched", response, socket, early });
      });
      sent.once("response", (response) => resolve({ kind: "answered", response }));
      sent.once("error", (error) => reject(asGatewayError(error)));
      sent.end();
    });
  }

  /** Closes connections that carry nothing; others end with what they carry. */
  close(): void {
    this.#agent.destroy();
  }

  #begin({ method, path, headers, signal }: UpstreamRequest): ClientRequest {
    const { host, port } = this.#target;
    return request({
      agent: this.#agent,
      host,
      port,
      method,
      path,
      headers: {
        host: `${host.includes(":") ? `[${host}]` : host}:${port}`,
        ...(headers as Record<string, string>),
      },
      maxHeaderSize: headBytesMax,
      ...(signal === undefined ? {} : { signal }),
    });
  }
}

class DialAgent extends Agent {
  readonly #target: UpstreamTarget;
  readonly #connectMs: number;

  constructor(target: UpstreamTarget, connectMs: number) {
    super({ keepAlive: true, timeout: freeMs, maxFreeSockets: freeSocketsMax, scheduling: "lifo" });
    this.#target = target;
    this.#connectMs = connectMs;
  }

  override createConnection(
    _options: Parameters<Agent["createConnection"]>[0],
    callback?: (error: Error | null, socket: Duplex) => void,
  ): undefined {
    const signal = AbortSignal.timeout(this.#connectMs);
    const target = this.#target;
    const opened =
      target.tls.mode === "disable"
        ? Promise.resolve(target).then(plain)
        : dial(target, signal).then((socket) => secure(socket, target, signal, ["http/1.1"]));
    opened.then(
      (socket) => callback?.(null, socket),
      (error: Error) => callback?.(error, undefined as unknown as Duplex),
    );
  }
}

/** Reads of `dial` without TLS are made for relays; HTTP needs a stream that can be read. */
function plain(target: UpstreamTarget): Duplex {
  const place = checkedPlace(target);
  if (place === undefined) throw new AddressForbiddenError();
  return connect({ ...place, noDelay: true });
}

function isRead(method: string): boolean {
  return method === "GET" || method === "HEAD";
}

function end(sent: ClientRequest, body: Buffer | Readable | undefined): void {
  if (body === undefined || Buffer.isBuffer(body)) sent.end(body);
  else {
    body.on("error", () => sent.destroy());
    body.pipe(sent);
  }
}

function asGatewayError(error: Error): GatewayError {
  return error instanceof GatewayError ? error : new GatewayError("upstreamUnreachable", { cause: error });
}
