/** The identity provider's HTTP side: one bounded GET, no redirects, its own authorities where a manifest names them. */
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";

export interface FetchBounds {
  readonly timeoutMs: number;
  readonly bytesMax: number;
  /** PEM authorities in place of the public ones. */
  readonly caBundle?: string;
}

/** Resolves to the body of a 200 answer; rejects for everything else, larger bodies included. */
export function fetchText(url: URL, bounds: FetchBounds, signal?: AbortSignal): Promise<string> {
  const deadline = AbortSignal.timeout(bounds.timeoutMs);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const request = url.protocol === "https:" ? httpsRequest : httpRequest;
  const outgoing = request(url, {
    method: "GET",
    headers: { accept: "application/json, application/jwk-set+json", "user-agent": "sallyport" },
    agent: false,
    signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]),
    ...(bounds.caBundle === undefined ? {} : { ca: bounds.caBundle }),
  });
  outgoing.on("error", reject);
  outgoing.on("response", (response) => {
    if (response.statusCode !== 200) {
      outgoing.destroy();
      reject(new Error(`the identity provider answered ${response.statusCode ?? "nothing"}`));
      return;
    }
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
    response.on("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
  });
  outgoing.end();
  return promise;
}

/** True for an address that never leaves the machine. */
export function isLoopback(hostname: string): boolean {
  return (
    hostname === "localhost" || hostname === "[::1]" || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(hostname)
  );
}
