/** The body of a watch: one JSON event a line, as long as the API server likes. */
import type { IncomingMessage } from "node:http";
import type { WatchEvent } from "./client.ts";
import { KubeError } from "./error.ts";
import type { KubeObject } from "./objects.ts";
import { statusError } from "./status-error.ts";
import { unreachable } from "./transport.ts";

/** etcd refuses objects of a tenth of this. */
const LINE_BYTES_MAX = 32 * 1024 * 1024;

const NEWLINE = 10;

/** Reads events; an ERROR event, a line that is cut off and a broken connection are thrown. */
export async function* watchLines<T extends KubeObject>(
  response: IncomingMessage,
  signal: AbortSignal,
): AsyncGenerator<WatchEvent<T>, void, undefined> {
  let kept: Buffer[] = [];
  let keptBytes = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      let from = 0;
      for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
        const line = Buffer.concat([...kept, chunk.subarray(from, end)]).toString("utf8");
        kept = [];
        keptBytes = 0;
        from = end + 1;
        if (line.trim() !== "") yield eventOf<T>(line);
      }
      if (from < chunk.length) {
        kept.push(chunk.subarray(from));
        keptBytes += chunk.length - from;
        if (keptBytes > LINE_BYTES_MAX) {
          throw new KubeError({ status: 0, reason: "TooLarge", message: "an event is too long" });
        }
      }
    }
  } catch (cause) {
    throw cause instanceof KubeError ? cause : unreachable(cause, signal);
  } finally {
    response.destroy();
  }
  if (signal.aborted) throw unreachable(undefined, signal);
  if (keptBytes > 0) {
    throw new KubeError({ status: 0, reason: "Unreachable", message: "the watch ended within an event" });
  }
}

function eventOf<T extends KubeObject>(line: string): WatchEvent<T> {
  let event: { readonly type?: unknown; readonly object?: unknown };
  try {
    event = JSON.parse(line);
  } catch (cause) {
    throw new KubeError({ status: 0, reason: "Unreachable", message: "an event is no JSON", cause });
  }
  const { type, object } = event;
  if (type === "ERROR") throw statusError(object, 500);
  const metadata = (object as KubeObject | undefined)?.metadata;
  if (typeof metadata?.resourceVersion !== "string") {
    throw new KubeError({ status: 0, reason: "Unreachable", message: "an event has no version" });
  }
  if (type === "BOOKMARK") return { type, resourceVersion: metadata.resourceVersion };
  if (type === "ADDED" || type === "MODIFIED" || type === "DELETED") return { type, object: object as T };
  throw new KubeError({ status: 0, reason: "Unreachable", message: "an event is of no known type" });
}
