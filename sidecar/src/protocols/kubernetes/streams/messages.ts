/**
 * Watches and logs over WebSocket, as browsers ask for them: the same request as without, whose answer comes as
 * messages: an event of a watch in each text message, a log in binary ones or, where the client asks, in base64.
 */
import { Readable, Writable } from "node:stream";
import type { HeaderFields, HttpExchange, HttpUpgrade } from "../../../wire/http-server.ts";
import { bearerOf } from "../connection.ts";
import type { ApiRequest } from "../request.ts";
import { drained, writeAll } from "./pump.ts";
import { FrameReader, frame } from "./websocket-frames.ts";

const opcodes = { text: 1, binary: 2, closing: 8, ping: 9, pong: 10 } as const;
const eventBytesMax = 32 * 1024 * 1024;
const closeFrame = () => frame(opcodes.closing, [Buffer.from([0x03, 0xe8])], false);

/** Whether a request's answer can come as messages. */
export function isMessageStream({ verb, group, resource, subresource }: ApiRequest): boolean {
  return verb === "watch" || (verb === "get" && group === "" && resource === "pods" && subresource === "log");
}

/** The upgrade as a plain request; `head` gives the answer to the upgrade. */
export function exchangeOf(
  upgrade: HttpUpgrade,
  request: ApiRequest,
  offered: readonly string[],
  head: (protocol: string | undefined) => string,
): HttpExchange {
  const { socket } = upgrade;
  const gone = new AbortController();
  socket.once("close", () => gone.abort());
  const kept = Object.entries(upgrade.headers).filter(([name]) => !name.startsWith("sec-websocket-"));
  const token = bearerOf(upgrade);
  const shown = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const isWatch = request.verb === "watch";
  // A browser takes no answer that names none of what it offered; of events there is one form, whatever it is called.
  const [only] = offered;
  const named = offered.length === 1 ? only : undefined;
  const protocol = isWatch ? named : offered.find((one) => logProtocols.includes(one));
  return {
    method: upgrade.method,
    url: upgrade.url,
    headers: { ...Object.fromEntries(kept), ...shown },
    // An upgrade has no body: what the socket brings are frames.
    body: emptyBody(),
    closed: gone.signal,
    continue: () => undefined,
    respond: (status, headers) => {
      if (status !== 200) return plainAnswer(upgrade, status, headers);
      socket.write(head(protocol));
      readFrames(upgrade);
      return isWatch ? eventMessages(upgrade) : logMessages(upgrade, protocol === "base64.binary.k8s.io");
    },
    abort: () => socket.destroy(),
  };
}

const logProtocols = ["binary.k8s.io", "base64.binary.k8s.io"];

function emptyBody(): HttpExchange["body"] {
  return Readable.from([]);
}

/** Pings are answered; whoever says that it ends, ends. What else a client sends means nothing here. */
function readFrames({ socket }: HttpUpgrade): void {
  const frames = new FrameReader(true);
  socket.on("data", (chunk: Buffer) => {
    try {
      for (const { opcode, bytes } of frames.read(chunk)) {
        if (opcode === opcodes.ping) writeAll(socket, frame(opcodes.pong, [bytes], false));
        else if (opcode === opcodes.closing) socket.end();
      }
    } catch {
      // A peer that breaks the framing is not understood from here on.
      socket.destroy();
    }
  });
}

function eventMessages(upgrade: HttpUpgrade): Writable {
  let parts: Buffer[] = [];
  let length = 0;
  return messages(upgrade, (chunk) => {
    const frames: Buffer[] = [];
    let rest = chunk;
    for (let at = rest.indexOf(0x0a); at >= 0; at = rest.indexOf(0x0a)) {
      frames.push(...frame(opcodes.text, [...parts, rest.subarray(0, at)], false));
      [parts, length] = [[], 0];
      rest = rest.subarray(at + 1);
    }
    length += rest.length;
    if (length > eventBytesMax) throw new Error("an event is too long");
    if (rest.length > 0) parts.push(rest);
    return frames;
  });
}

function logMessages(upgrade: HttpUpgrade, isBase64: boolean): Writable {
  return messages(upgrade, (chunk) =>
    isBase64
      ? frame(opcodes.text, [Buffer.from(chunk.toString("base64"))], false)
      : frame(opcodes.binary, [chunk], false),
  );
}

/** A stream whose chunks are written as frames, no faster than the client reads. */
function messages({ socket }: HttpUpgrade, framed: (chunk: Buffer) => readonly Buffer[]): Writable {
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      try {
        writeAll(socket, framed(chunk));
      } catch (error) {
        done(error as Error);
        return;
      }
      if (!socket.writableNeedDrain || socket.destroyed) return done();
      void drained(socket).then(() => done());
    },
    final(done) {
      writeAll(socket, closeFrame());
      socket.end();
      setTimeout(() => socket.destroy(), lastWordsMs).unref();
      done();
    },
    destroy(error, done) {
      // After its end a stream is destroyed, too: what was written is still on its way then.
      if (error !== null) socket.destroy();
      done(error);
    },
  });
}
const lastWordsMs = 2_000;

/** What is not switched is answered as any request, and the connection ends. */
function plainAnswer({ socket }: HttpUpgrade, status: number, headers: HeaderFields): Writable {
  const lines = Object.entries(headers)
    .filter(([name]) => !["connection", "transfer-encoding", "content-length"].includes(name))
    .flatMap(([name, value]) => [value].flat().map((one) => `${name}: ${one}`));
  socket.write([`HTTP/1.1 ${status} -`, ...lines, "connection: close", "\r\n"].join("\r\n"), "latin1");
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      socket.write(chunk, () => done());
    },
    final(done) {
      socket.end();
      socket.resume();
      setTimeout(() => socket.destroy(), lastWordsMs).unref();
      done();
    },
  });
}
