/** A WebSocket client for scenarios and benchmarks: every header of its own, a CA or a client certificate, raw messages. */
import { randomBytes } from "node:crypto";
import { request } from "node:https";
import type { Duplex } from "node:stream";

/** Where it connects and as whom. */
export interface WebSocketTarget {
  readonly url: string;
  readonly caPem: string;
  readonly token?: string;
  readonly certPem?: string;
  readonly keyPem?: string;
}

/** One message of the server's. */
export interface Message {
  /** 1 text, 2 binary, 8 close. */
  readonly opcode: number;
  readonly bytes: Buffer;
}

/** An open connection. */
export interface WebSocketClient {
  /** What the server chose. */
  readonly protocol: string | undefined;
  readonly messages: readonly Message[];
  /** Called with each message as it comes, beside being kept in `messages` while `keeps` is true. */
  onMessage: (message: Message) => void;
  keeps: boolean;
  send(opcode: number, bytes: Buffer): void;
  /** Resolves when the connection is over. */
  readonly closed: Promise<void>;
  readonly socket: Duplex;
}

/** What the server said instead of switching. */
export class NotSwitched extends Error {
  readonly status: number;
  readonly body: string;

  constructor(status: number, body: string) {
    super(`answered ${status}: ${body.slice(0, 300)}`);
    this.status = status;
    this.body = body;
  }
}

/** Connects; rejects with NotSwitched where the server answers otherwise. */
export function openWebSocket(
  target: WebSocketTarget,
  path: string,
  protocols: readonly string[],
): Promise<WebSocketClient> {
  const { token, caPem, certPem, keyPem } = target;
  return new Promise((resolve, reject) => {
    const sent = request(`${target.url}${path}`, {
      ca: caPem,
      ...(certPem === undefined ? {} : { cert: certPem, key: keyPem }),
      agent: false,
      timeout: 30_000,
      headers: {
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": randomBytes(16).toString("base64"),
        ...(protocols.length === 0 ? {} : { "sec-websocket-protocol": protocols.join(", ") }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
    });
    sent.on("error", reject);
    sent.on("timeout", () => sent.destroy(new Error("no answer to an upgrade")));
    sent.on("response", (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (text: string) => {
        body += text;
      });
      response.on("end", () => reject(new NotSwitched(response.statusCode ?? 0, body)));
    });
    sent.on("upgrade", (response, socket, early) => {
      socket.setTimeout(0);
      resolve(clientOn(socket, early, response.headers["sec-websocket-protocol"]));
    });
    sent.end();
  });
}

function clientOn(socket: Duplex, early: Buffer, protocol: string | undefined): WebSocketClient {
  const messages: Message[] = [];
  let held: Buffer = Buffer.alloc(0);
  let parts: Buffer[] = [];
  let opcodeOfParts = 0;
  const client: WebSocketClient = {
    protocol,
    messages,
    onMessage: () => undefined,
    keeps: true,
    send: (opcode, bytes) => void socket.write(masked(opcode, bytes)),
    closed: new Promise((resolve) => socket.once("close", () => resolve())),
    socket,
  };
  const read = (chunk: Buffer) => {
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    for (let frame = frameAt(held); frame !== undefined; frame = frameAt(held)) {
      held = held.subarray(frame.end);
      if (frame.opcode === 9) client.send(10, frame.payload);
      if (frame.opcode > 8) continue;
      if (frame.opcode !== 0) opcodeOfParts = frame.opcode;
      parts.push(frame.payload);
      if (!frame.isFin) continue;
      const message = { opcode: opcodeOfParts, bytes: Buffer.concat(parts) };
      parts = [];
      if (client.keeps) messages.push(message);
      client.onMessage(message);
    }
  };
  socket.on("error", () => undefined);
  socket.on("end", () => socket.end());
  socket.on("data", read);
  if (early.length > 0) read(early);
  return client;
}

function frameAt(bytes: Buffer) {
  if (bytes.length < 2) return undefined;
  let length = (bytes[1] ?? 0) & 0x7f;
  let at = 2;
  if (length === 126) {
    if (bytes.length < 4) return undefined;
    length = bytes.readUInt16BE(2);
    at = 4;
  } else if (length === 127) {
    if (bytes.length < 10) return undefined;
    length = Number(bytes.readBigUInt64BE(2));
    at = 10;
  }
  if (bytes.length < at + length) return undefined;
  const first = bytes[0] ?? 0;
  const payload = Buffer.from(bytes.subarray(at, at + length));
  return { opcode: first & 0x0f, isFin: (first & 0x80) !== 0, payload, end: at + length };
}

/** A client's frame; the mask is zeros, for nobody reads between. */
function masked(opcode: number, bytes: Buffer): Buffer {
  const { length } = bytes;
  const size = length < 126 ? 2 : length < 65_536 ? 4 : 10;
  const head = Buffer.alloc(size + 4);
  head[0] = 0x80 | opcode;
  head[1] = 0x80 | (size === 2 ? length : size === 4 ? 126 : 127);
  if (size === 4) head.writeUInt16BE(length, 2);
  if (size === 10) head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, bytes]);
}
