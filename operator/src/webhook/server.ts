import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import { requestPath } from "@sallyport/control";
import type { Log } from "../kube/index.ts";
import { type AdmissionRequest, type AdmissionResponse, readReview } from "./review.ts";

/** Answers one kind of question. */
export type AdmissionHandler = (request: AdmissionRequest) => AdmissionResponse | Promise<AdmissionResponse>;

/** What the server is made of. */
export interface WebhookServerParts {
  readonly host: string;
  readonly port: number;
  readonly handlers: Readonly<Record<string, AdmissionHandler>>;
  readonly log: Log;
  /** Other bounds than `webhookLimits`. */
  readonly limits?: Partial<WebhookLimits>;
  /** Told how long each answer took, by path and result. */
  readonly onAnswer?: (path: string, result: "allowed" | "denied" | "failed", seconds: number) => void;
}

/** Bounds of the server. */
export interface WebhookLimits {
  /** Memory for one body. */
  readonly bodyBytesMax: number;
  /** Memory for the bodies of all questions that are not answered: whoever reaches the port can ask some. */
  readonly bodiesBytesMax: number;
  readonly concurrencyMax: number;
  readonly answerMs: number;
}

/** The API server sends objects of at most 3 MiB, old and new. */
export const webhookLimits: WebhookLimits = {
  bodyBytesMax: 7 * 1024 * 1024,
  bodiesBytesMax: 56 * 1024 * 1024,
  concurrencyMax: 64,
  answerMs: 4_000,
};

/** Admission over TLS. Nothing is answered before the first certificate is there. */
export class WebhookServer {
  readonly #parts: WebhookServerParts;
  readonly #limits: WebhookLimits;
  #server: Server | undefined;
  #active = 0;
  #bodiesBytes = 0;

  constructor(parts: WebhookServerParts) {
    this.#parts = parts;
    this.#limits = { ...webhookLimits, ...parts.limits };
  }

  get isServing(): boolean {
    return this.#server?.listening ?? false;
  }

  get port(): number {
    const address = this.#server?.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** Takes a certificate: starts with the first, and serves each further one without an interruption. */
  async use(certificate: { readonly certificate: string; readonly key: string }): Promise<void> {
    const context = { cert: certificate.certificate, key: certificate.key, minVersion: "TLSv1.2" } as const;
    if (this.#server !== undefined) {
      this.#server.setSecureContext(context);
      return;
    }
    const server = createServer(context, (request, response) => void this.#answer(request, response));
    server.requestTimeout = 10_000;
    server.headersTimeout = 5_000;
    server.keepAliveTimeout = 60_000;
    server.maxConnections = 4 * this.#limits.concurrencyMax;
    server.on("tlsClientError", () => undefined);
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.#parts.port, this.#parts.host, resolve);
    });
  }

  /** Stops taking questions and answers those that are open. */
  async close(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeIdleConnections();
      setTimeout(() => server.closeAllConnections(), this.#limits.answerMs).unref();
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { handlers, log, onAnswer } = this.#parts;
    const begunAt = performance.now();
    const path = requestPath(request.url);
    const handler = Object.hasOwn(handlers, path) ? handlers[path] : undefined;
    const send = (status: number, body: object) => {
      const text = JSON.stringify(body);
      response.writeHead(status, {
        "content-type": "application/json",
        "content-length": Buffer.byteLength(text),
      });
      response.end(text);
    };
    const told = (result: "allowed" | "denied" | "failed") =>
      onAnswer?.(path, result, (performance.now() - begunAt) / 1000);
    if (handler === undefined || request.method !== "POST") {
      send(404, { message: "not found" });
      return;
    }
    // More than we can hold: the API server does what failurePolicy says.
    if (this.#active >= this.#limits.concurrencyMax) {
      send(503, { message: "busy" });
      told("failed");
      return;
    }
    this.#active += 1;
    const body = { bytes: 0 };
    try {
      const review = readReview(await this.#read(request, body));
      const answer = await withDeadline(handler(review.request), this.#limits);
      send(200, {
        apiVersion: "admission.k8s.io/v1",
        kind: "AdmissionReview",
        response: { uid: review.request.uid, ...encoded(answer) },
      });
      told(answer.allowed ? "allowed" : "denied");
    } catch (error) {
      log.warn({ path, err: error }, "an admission request could not be answered");
      const status = error instanceof Busy ? 503 : error instanceof RangeError ? 413 : 500;
      if (!response.headersSent) send(status, { message: "the webhook failed" });
      told("failed");
    } finally {
      this.#active -= 1;
      this.#bodiesBytes -= body.bytes;
    }
  }

  /** Reads a body; `taken` is told what it takes of the room for all of them. */
  async #read(request: IncomingMessage, taken: { bytes: number }): Promise<string> {
    const { bodyBytesMax, bodiesBytesMax } = this.#limits;
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) {
      const bytes = chunk.length + chunkBytes;
      taken.bytes += bytes;
      this.#bodiesBytes += bytes;
      if (taken.bytes > bodyBytesMax) throw new RangeError("the request is too long");
      if (this.#bodiesBytes > bodiesBytesMax) throw new Busy("too much is asked at once");
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString("utf8");
  }
}

function encoded({ allowed, message, warnings, patch }: AdmissionResponse): object {
  return {
    allowed,
    ...(message !== undefined && { status: { code: 403, reason: "Forbidden", message } }),
    ...(warnings !== undefined && warnings.length > 0 && { warnings }),
    ...(patch !== undefined &&
      patch.length > 0 && {
        patchType: "JSONPatch",
        patch: Buffer.from(JSON.stringify(patch)).toString("base64"),
      }),
  };
}

/** Roughly what a chunk takes beside its bytes: one of HTTP may have a single one. */
const chunkBytes = 128;

class Busy extends Error {}

async function withDeadline<T>(answer: T | Promise<T>, { answerMs }: WebhookLimits): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error("the answer took too long")), answerMs);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
