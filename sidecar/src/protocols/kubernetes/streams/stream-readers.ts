/** What reads the SPDY streams of a command, and those of a port-forward. */
import type { Permit } from "../../../guard/index.ts";
import { commandStreams, type StreamReader, type WantedStream } from "./spdy-bridge.ts";
import type { Terminal } from "./terminal.ts";

/** The streams of an exec or attach. */
export function commandReader(terminal: Terminal, onTyped: () => void): StreamReader {
  const opened = new Set<string>();
  return {
    opening: ({ type }) => {
      if (!commandStreams.has(type) || opened.has(type)) return Promise.resolve(`there is no stream ${type}`);
      opened.add(type);
      return Promise.resolve(undefined);
    },
    sift: (type, bytes, isFin) => (type === "stdin" ? terminal.sift(bytes, isFin) : undefined),
    fromClient: (type, _id, bytes) => {
      if (type === "resize") terminal.resized(bytes);
      if (type !== "stdin") return undefined;
      onTyped();
      return terminal.input(bytes);
    },
    fromServer: (type, _id, bytes) =>
      type === "stdout" || type === "stderr" ? { waits: terminal.output(type, bytes) } : undefined,
    serverEnded: (type) => (type === "stdout" ? terminal.outputEnded() : terminal.flush()),
    status: (message) => (message.length > 0 ? terminal.ended(message) : undefined),
    closed: () => undefined,
  };
}

/** One forwarded connection. */
interface Forwarded {
  readonly outcome: Promise<{ readonly permit?: Permit; readonly refusal?: string }>;
  permit?: Permit;
  readonly streams: Set<number>;
  bytes: number;
  readonly begunMs: number;
}

const connectionsMax = 2_000;

/** The streams of a port-forward: two for each connection, and each connection is judged by its port. */
export function tunnelReader(
  judge: (port: number) => Promise<{ readonly permit?: Permit; readonly refusal?: string }>,
  ended: (permit: Permit, bytes: number, ms: number) => void,
  onTyped: () => void,
): StreamReader {
  const connections = new Map<string, Forwarded>();
  const byStream = new Map<number, string>();
  const opening = async ({ id, type, headers }: WantedStream): Promise<string | undefined> => {
    const text = headers.get("port") ?? "";
    const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
    if ((type !== "error" && type !== "data") || port < 1 || port > 65_535) return "a stream without a port";
    const key = `${headers.get("requestid") ?? ""}/${port}`;
    let connection = connections.get(key);
    if (connection === undefined) {
      if (connections.size >= connectionsMax) return "too many connections";
      connection = { outcome: judge(port), streams: new Set(), bytes: 0, begunMs: performance.now() };
      connections.set(key, connection);
    }
    const { permit, refusal } = await connection.outcome;
    if (permit === undefined) {
      if (type === "data") connections.delete(key);
      return refusal ?? "not allowed";
    }
    connection.permit = permit;
    connection.streams.add(id);
    byStream.set(id, key);
    return undefined;
  };
  const count = (id: number, bytes: Buffer) => {
    const connection = connections.get(byStream.get(id) ?? "");
    if (connection !== undefined) connection.bytes += bytes.length;
    return undefined;
  };
  return {
    opening,
    fromClient: (_type, id, bytes) => {
      onTyped();
      return count(id, bytes);
    },
    fromServer: (_type, id, bytes) => count(id, bytes),
    serverEnded: () => undefined,
    status: () => undefined,
    closed: (id) => {
      const key = byStream.get(id) ?? "";
      const connection = connections.get(key);
      byStream.delete(id);
      if (connection === undefined) return;
      connection.streams.delete(id);
      if (connection.streams.size > 0) return;
      connections.delete(key);
      if (connection.permit !== undefined)
        ended(connection.permit, connection.bytes, performance.now() - connection.begunMs);
    },
  };
}
