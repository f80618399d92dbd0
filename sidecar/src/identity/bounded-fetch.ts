/** The identity provider's HTTP side: one bounded GET, no redirects, its own authorities where a manifest names them. */
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";

/** How long an answer may take, how large it may be, and whose certificate it may have. */
export interface FetchBounds {
  readonly timeoutMs: number;
  readonly bytesMax: number;
  /** PEM authorities in place of the public ones. */
  readonly caBundle?: string;
}

/** Resolves to the body of a 200 answer; rejects for everything else, larger bodies included. */
export async function fetchText(url: URL, bounds: FetchBounds, signal?: AbortSignal): Promise<string> {
  const { status, text } = await exchange(url, bounds, undefined, signal);
  if (status !== 200) throw new Error(`the identity provider answered ${status}`);
  return text;
}

/**
 * The discovery document of an OpenID Connect issuer. `check` throws where an address may not be fetched; a document of
 * another issuer is not used (OpenID Connect Discovery, 4.3).
 */
export async function fetchDiscovery(
  issuer: string,
  bounds: FetchBounds,
  check: (url: URL) => void,
  signal?: AbortSignal,
): Promise<Readonly<Record<string, unknown>>> {
  const url = new URL(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`);
  check(url);
  const document = objectIn(await fetchText(url, bounds, signal));
  if (document.issuer !== issuer) throw new Error("the discovery document is of another issuer");
  return document;
}

/** The members of a JSON object; throws for anything else. */
export function objectIn(text: string): Readonly<Record<string, unknown>> {
  const value: unknown = JSON.parse(text);
  if (typeof value !== "object" || value === null) throw new Error("the provider's answer is no object");
  return value as Readonly<Record<string, unknown>>;
}

/** Posts a form; resolves to whatever is answered, errors of the provider included. */
export function postForm(
  url: URL,
  form: URLSearchParams,
  bounds: FetchBounds,
  signal?: AbortSignal,
): Promise<{ readonly status: number; readonly text: string }> {
  return exchange(url, bounds, form.toString(), signal);
}

function exchange(
  url: URL,
  bounds: FetchBounds,
  form: string | undefined,
  signal: AbortSignal | undefined,
): Promise<{ readonly status: number; readonly text: string }> {
  const deadline = AbortSignal.timeout(bounds.timeoutMs);
  const { promise, resolve, reject } = Promise.withResolvers<{
    readonly status: number;
    readonly text: string;
  }>();
  const request = url.protocol === "https:" ? httpsRequest : httpRequest;
  const type = "application/x-www-form-urlencoded";
  const outgoing = request(url, {
    method: form === undefined ? "GET" : "POST",
    headers: {
      accept: "application/json, application/jwk-set+json",
      "user-agent": "sallyport",
      ...(form === undefined ? {} : { "content-type": type, "content-length": Buffer.byteLength(form) }),
    },
    agent: false,
    signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]),
    ...(bounds.caBundle === undefined ? {} : { ca: bounds.caBundle }),
  });
  outgoing.on("error", reject);
  outgoing.on("response", (response) => {
    const chunks: Buffer[] = [];
    let size = 0;
    response.on("error", reject);
    response.on("aborted", () => reject(new Error("the identity provider's answer was cut short")));
    response.on("data", (chunk: Buffer) => {
      size += chunk.length;
      if (size <= bounds.bytesMax) chunks.push(chunk);
      else {
        outgoing.destroy();
        reject(new Error("the identity provider's answer is too large"));
      }
    });
    response.on("end", () =>
      resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") }),
    );
  });
  outgoing.end(form);
  return promise;
}

/** True for an address that never leaves the machine. */
export function isLoopback(hostname: string): boolean {
  return (
    hostname === "localhost" || hostname === "[::1]" || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(hostname)
  );
}
