/** HTTP with kept connections, a deadline on every try, and bodies of bounded size. Knows nothing of objects. */
import { Agent as HttpAgent, type IncomingMessage, request as requestHttp } from "node:http";
import { Agent as HttpsAgent, type RequestOptions, request as requestHttps } from "node:https";
import type { CallCredentials, KubeConnection } from "./connection.ts";
import { KubeError } from "./error.ts";

/** One try of one call. */
export interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly body?: string;
  readonly contentType?: string;
  readonly signal: AbortSignal;
  /** Watches stay open and do not take the places of short calls. */
  readonly isWatch?: boolean;
}

/** A page of a list, at the most. */
const BODY_BYTES_MAX = 128 * 1024 * 1024;

/** Connections for short calls; more calls wait for one. */
const SOCKETS_MAX = 32;

/** Sends one request at a time on each of its connections. */
export class Transport {
  readonly #connection: KubeConnection;
  #agents: { readonly tls: string; readonly calls: HttpAgent; readonly watches: HttpAgent } | undefined;
  #isRefused = false;

  constructor(connection: KubeConnection) {
    this.#connection = connection;
  }

  /** Sends, and waits for the answer's head. Fails with a KubeError of status 0 where none comes. */
  async send(exchange: Exchange): Promise<IncomingMessage> {
    const credentials = await this.#connection.credentials(this.#isRefused);
    const agents = this.#agentsFor(credentials);
    const response = await this.#request(
      exchange,
      credentials,
      exchange.isWatch ? agents.watches : agents.calls,
    );
    this.#isRefused = response.statusCode === 401;
    return response;
  }

  close(): void {
    this.#agents?.calls.destroy();
    this.#agents?.watches.destroy();
    this.#agents = undefined;
  }

  /** Trust and certificates belong to a connection, so that new ones need new agents. */
  #agentsFor({ tls = {} }: CallCredentials): { readonly calls: HttpAgent; readonly watches: HttpAgent } {
    const key = JSON.stringify(tls);
    if (this.#agents?.tls === key) return this.#agents;
    const previous = this.#agents?.calls;
    const isPlain = this.#connection.server.protocol === "http:";
    const agent = (maxSockets: number): HttpAgent => {
      const options = { keepAlive: true, keepAliveMsecs: 15_000, maxSockets, scheduling: "lifo" } as const;
      return isPlain ? new HttpAgent(options) : new HttpsAgent({ ...options, ...tls, minVersion: "TLSv1.2" });
    };
    this.#agents = { tls: key, calls: agent(SOCKETS_MAX), watches: agent(Number.POSITIVE_INFINITY) };
    // Calls in flight end as they will; only what waits for the next call goes.
    for (const socket of Object.values(previous?.freeSockets ?? {}).flat()) socket?.destroy();
    return this.#agents;
  }

  #request(exchange: Exchange, credentials: CallCredentials, agent: HttpAgent): Promise<IncomingMessage> {
    const { method, path, body, contentType = "application/json", signal } = exchange;
    const { server } = this.#connection;
    const base = server.pathname.replace(/\/$/, "");
    const options: RequestOptions = {
      method,
      hostname: server.hostname.replace(/^\[|\]$/g, ""),
      port: server.port === "" ? (server.protocol === "http:" ? 80 : 443) : server.port,
      path: `${base}${path}`,
      agent,
      signal,
      headers: {
        accept: "application/json",
        "user-agent": "sallyport-operator",
        ...(credentials.authorization === undefined ? {} : { authorization: credentials.authorization }),
        ...(body === undefined
          ? {}
          : { "content-type": contentType, "content-length": Buffer.byteLength(body) }),
      },
    };
    return new Promise((resolve, reject) => {
      const send = server.protocol === "http:" ? requestHttp : requestHttps;
      const request = send(options, (response) => {
        // A failure after the head is the body reader's to report; without a listener it would end the process.
        request.on("error", ignored);
        resolve(response);
      });
      request.on("error", (cause) => reject(unreachable(cause, signal)));
      request.end(body);
    });
  }
}

/** Reads a body to its end as JSON. */
export async function readJson(response: IncomingMessage, signal: AbortSignal): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > BODY_BYTES_MAX)
        throw new KubeError({ status: 0, reason: "TooLarge", message: "the answer is too long" });
      chunks.push(chunk);
    }
  } catch (cause) {
    response.destroy();
    throw cause instanceof KubeError ? cause : unreachable(cause, signal);
  }
  const text = Buffer.concat(chunks).toString("utf8");
  try {
    return text === "" ? undefined : JSON.parse(text);
  } catch (cause) {
    throw unreachable(cause, signal);
  }
}

/** The error for a call that got no whole answer. */
export function unreachable(cause: unknown, signal: AbortSignal): KubeError {
  if (signal.aborted) {
    const isLate = signal.reason instanceof DOMException && signal.reason.name === "TimeoutError";
    return new KubeError({
      status: 0,
      reason: isLate ? "DeadlineExceeded" : "Aborted",
      message: isLate ? "the API server did not answer in time" : "the call was ended",
      cause,
    });
  }
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  const message = `the API server gave no whole answer${code === undefined ? "" : ` (${code})`}`;
  return new KubeError({ status: 0, reason: "Unreachable", message, cause });
}

function ignored(): void {}
