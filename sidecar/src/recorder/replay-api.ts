import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import { pipeline } from "node:stream/promises";
import { recorderAudience, requestPath } from "@sallyport/control";
import type { KeptSession, RecordingVolume } from "./recording-volume.ts";
import type { Reviews } from "./reviews.ts";

/** What the API for auditors is served with. */
export interface ReplayApiOptions {
  readonly host: string;
  readonly port: number;
  readonly certificate: string;
  readonly key: string;
  readonly volume: RecordingVolume;
  readonly reviews: Reviews;
  /** True: tokens for the API server's own audience are taken too, as `kubectl` holds them. */
  readonly acceptsApiTokens: boolean;
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
}

/** An answer other than 200. */
class Answer extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const sessionPath = /^\/v1\/namespaces\/([a-z0-9-]{1,63})\/sessions(?:\/([A-Za-z0-9_-]{1,100})\/recording)?$/;
const verifyPath = /^\/v1\/namespaces\/([a-z0-9-]{1,63})\/verify$/;
const listedMax = 10_000;

/**
 * Lists, replays and verifies over HTTPS. Every question about a namespace needs the right to `get`
 * `sessions/recording` there; the head and the public key are for everybody, since they are what others hold us to.
 */
export async function serveReplay(options: ReplayApiOptions): Promise<Server> {
  const api = new ReplayApi(options);
  const server = createServer(
    { cert: options.certificate, key: options.key, minVersion: "TLSv1.2" },
    (request, response) => void api.serve(request, response),
  );
  server.maxConnections = 256;
  server.requestTimeout = 10_000;
  server.headersTimeout = 10_000;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port, options.host, resolve);
  });
  return server;
}

class ReplayApi {
  readonly #options: ReplayApiOptions;
  #verifying: Promise<unknown> | undefined;

  constructor(options: ReplayApiOptions) {
    this.#options = options;
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await this.#answer(request, response);
    } catch (error) {
      if (!(error instanceof Answer)) this.#options.log.warn({ err: error }, "a replay failed");
      if (response.headersSent) response.destroy();
      else {
        const { status, message } = error instanceof Answer ? error : { status: 500, message: "failed" };
        response.writeHead(status, { "content-type": "application/json" });
        response.end(`${JSON.stringify({ error: message })}\n`);
      }
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { volume } = this.#options;
    const path = requestPath(request.url);
    const isRead = request.method === "GET";
    if (isRead && path === "/healthz") return send(response, { ok: true });
    if (isRead && path === "/v1/head") return send(response, { head: volume.head ?? null });
    if (isRead && path === "/v1/public-key") {
      response.writeHead(200, { "content-type": "application/x-pem-file" });
      response.end(volume.publicKey.export({ type: "spki", format: "pem" }));
      return;
    }
    const [, namespace, sessionId] = sessionPath.exec(path) ?? [];
    if (isRead && namespace !== undefined) {
      await this.#mustReplay(request, namespace, sessionId);
      if (sessionId === undefined) return this.#list(response, namespace);
      return this.#replay(response, namespace, sessionId);
    }
    const [, verified] = verifyPath.exec(path) ?? [];
    if (request.method !== "POST" || verified === undefined) throw new Answer(404, "there is nothing here");
    await this.#mustReplay(request, verified, undefined);
    return this.#verify(response, verified);
  }

  /** Asks the API server each time: a right that was taken away is gone at once. */
  async #mustReplay(request: IncomingMessage, namespace: string, session: string | undefined): Promise<void> {
    const token = /^Bearer ([\w.~+/=-]{1,32768})$/.exec(request.headers.authorization ?? "")?.[1];
    if (token === undefined) throw new Answer(401, "a bearer token is needed");
    const { reviews, acceptsApiTokens, log } = this.#options;
    const user =
      (await reviews.review(token, [recorderAudience])) ??
      (acceptsApiTokens ? await reviews.review(token, []) : undefined);
    if (user === undefined) throw new Answer(401, `the token is not one for ${recorderAudience}`);
    const isAllowed = await reviews.mayReplay(user, namespace);
    log.info({ user: user.username, namespace, session, isAllowed }, "a recording was asked for");
    // The same answer whether or not there is such a session.
    if (!isAllowed) throw new Answer(403, `you may not get sessions/recording in namespace ${namespace}`);
  }

  #list(response: ServerResponse, namespace: string): void {
    const sessions = this.#options.volume.list(namespace);
    send(response, { sessions: sessions.slice(-listedMax).map(listed), total: sessions.length });
  }

  async #replay(response: ServerResponse, namespace: string, sessionId: string): Promise<void> {
    const { volume } = this.#options;
    const kept = volume.find(namespace, sessionId);
    if (kept === undefined) throw new Answer(404, "there is no such session");
    const chunks = await volume.read(kept);
    // Read before the answer begins: a file that is gone is a 410, not a broken answer.
    const first = await chunks.next().catch(() => {
      throw new Answer(410, "the recording is missing or changed: run verify");
    });
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    if (first.done !== true) response.write(first.value);
    await pipeline(chunks, response);
  }

  async #verify(response: ServerResponse, namespace: string): Promise<void> {
    const { volume } = this.#options;
    // It reads the whole volume: one at a time.
    if (this.#verifying !== undefined) throw new Answer(429, "a verification is running: ask again later");
    const own = new Set(volume.list(namespace).map(({ facts }) => facts.session));
    const verifying = volume.verify();
    this.#verifying = verifying.catch(() => undefined);
    try {
      const { log, sessions, head } = await verifying;
      const found = sessions.filter(({ sessionId }) => own.has(sessionId));
      const isGood = ({ status }: { readonly status: string }) => status === "ok" || status === "open";
      send(response, { ok: isGood(log) && found.every(isGood), log, sessions: found, head: head ?? null });
    } finally {
      this.#verifying = undefined;
    }
  }
}

function listed({ facts, state, endedAt, finalHash, commands, refused }: KeptSession): object {
  const { session, namespace, resource, protocol, user, subject, database, at } = facts;
  return {
    sessionId: session,
    namespace,
    resource,
    protocol,
    user,
    subject,
    database,
    startedAt: at,
    endedAt,
    state,
    commands,
    refused,
    finalHash,
  };
}

function send(response: ServerResponse, body: object): void {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(`${JSON.stringify(body)}\n`);
}
