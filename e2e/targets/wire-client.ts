/** A client that speaks PostgreSQL's protocol byte by byte, so that scenarios can also speak it wrongly. */
import { once } from "node:events";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";

/** One message of the server. `fields` are those of ErrorResponse and NoticeResponse by their letter. */
export interface ServerMessage {
  readonly type: string;
  readonly body: Buffer;
  readonly fields: Readonly<Record<string, string>>;
}

/** A raw connection; reads are bounded by a deadline. */
export class WireClient {
  socket: Socket;
  #received = Buffer.alloc(0);
  #hasEnded = false;
  #wake: (() => void) | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    this.#listen();
  }

  static async connect(port: number): Promise<WireClient> {
    const socket = connectTcp(port, "127.0.0.1");
    await once(socket, "connect");
    return new WireClient(socket);
  }

  /** Asks for TLS the classic way and verifies the certificate. */
  async startTls(ca: string): Promise<void> {
    this.send(sslRequest);
    const answer = await this.take(1);
    if (answer.toString() !== "S")
      throw new Error(`SSLRequest was answered ${JSON.stringify(answer.toString())}`);
    this.socket.removeAllListeners("data");
    const secure = connectTls({ socket: this.socket, ca, servername: "localhost" });
    await once(secure, "secureConnect");
    this.socket = secure;
    this.#listen();
  }

  /** TLS, start-up and a token as password; resolves when the server is ready for a query. */
  static async logIn(login: {
    readonly port: number;
    readonly ca: string;
    readonly user: string;
    readonly database: string;
    readonly password: string;
    /** `options` of the start-up packet. */
    readonly options?: string;
  }): Promise<WireClient> {
    const client = await WireClient.connect(login.port);
    await client.startTls(login.ca);
    const { user, database, options } = login;
    client.send(startup({ user, database, ...(options === undefined ? {} : { options }) }));
    await client.until("R");
    client.send(password(login.password));
    const answers = await client.until("Z");
    if (answers.at(-1)?.type !== "Z") {
      const { C, M } = answers.find(({ type }) => type === "E")?.fields ?? {};
      throw new Error(`the login failed: ${C ?? "closed without an error"} ${M ?? ""}`);
    }
    return client;
  }

  send(...messages: Uint8Array[]): void {
    this.socket.write(Buffer.concat(messages));
  }

  /** The next message, or undefined where the server has closed the connection. */
  async message(): Promise<ServerMessage | undefined> {
    if (!(await this.#has(5))) return undefined;
    const length = this.#received.readInt32BE(1);
    if (!(await this.#has(1 + length))) return undefined;
    const type = String.fromCharCode(this.#received[0] ?? 0);
    const body = Buffer.from(this.#received.subarray(5, 1 + length));
    this.#received = this.#received.subarray(1 + length);
    return { type, body, fields: type === "E" || type === "N" ? fieldsOf(body) : {} };
  }

  /** Messages up to one of this type, or up to the end of the connection. */
  async until(type: string): Promise<ServerMessage[]> {
    const messages: ServerMessage[] = [];
    for (;;) {
      const message = await this.message();
      if (message === undefined) return messages;
      messages.push(message);
      if (message.type === type) return messages;
    }
  }

  /** Everything until the server closes the connection. */
  untilClosed(): Promise<ServerMessage[]> {
    return this.until("no such type");
  }

  async take(bytes: number): Promise<Buffer> {
    await this.#has(bytes);
    const taken = Buffer.from(this.#received.subarray(0, bytes));
    this.#received = this.#received.subarray(bytes);
    return taken;
  }

  close(): void {
    this.socket.destroy();
  }

  async #has(bytes: number): Promise<boolean> {
    const deadline = Date.now() + 25_000;
    while (this.#received.length < bytes) {
      if (this.#hasEnded) return false;
      if (Date.now() > deadline) throw new Error("the server neither answered nor closed the connection");
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1_000);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return true;
  }

  #listen(): void {
    this.socket.on("data", (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake?.();
    });
    for (const event of ["end", "close", "error"]) {
      this.socket.on(event, () => {
        this.#hasEnded = true;
        this.#wake?.();
      });
    }
  }
}

/** A message of the client: its letter, its length, its parts. */
export function frame(type: string, ...parts: (Uint8Array | string)[]): Buffer {
  const body = Buffer.concat(parts.map((part) => Buffer.from(part as Uint8Array)));
  const head = Buffer.alloc(5);
  head.write(type, "latin1");
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

/** A start-up packet of this protocol version. */
export function startup(parameters: Readonly<Record<string, string>>, version = 0x00030000): Buffer {
  const text = Object.entries(parameters).map(([name, value]) => `${name}\0${value}\0`);
  const body = Buffer.from(`${text.join("")}\0`);
  const head = Buffer.alloc(8);
  head.writeInt32BE(body.length + 8, 0);
  head.writeInt32BE(version, 4);
  return Buffer.concat([head, body]);
}

export const sslRequest = int32s(8, 80877103);
/** The key of BackendKeyData, as a cancel request names it; empty where none was given. */
export const keyOf = (greeting: readonly ServerMessage[]): Buffer =>
  greeting.find(({ type }) => type === "K")?.body ?? Buffer.alloc(0);
export const cancelRequest = (key: Uint8Array): Buffer =>
  Buffer.concat([int32s(8 + key.length, 80877102), key]);
export const query = (sql: string | Uint8Array): Buffer => frame("Q", sql, "\0");
export const password = (text: string): Buffer => frame("p", text, "\0");

/** Parse, without or with the oids of parameter types. */
export const parse = (name: string, sql: string, types: readonly number[] = []): Buffer =>
  frame("P", `${name}\0${sql}\0`, int16s(types.length), int32s(...types));
/** Bind of text parameters, all results in text. */
export const bind = (portal: string, name: string, ...values: readonly string[]): Buffer =>
  frame(
    ...(["B", `${portal}\0${name}\0`, int16s(0), int16s(values.length)] as const),
    ...values.flatMap((value) => [int32s(Buffer.byteLength(value)), value]),
    int16s(0),
  );
export const execute = (portal = "", rows = 0): Buffer => frame("E", `${portal}\0`, int32s(rows));

/** Small numbers as the protocol writes them. */
export function int16s(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 2);
  values.forEach((value, index) => {
    bytes.writeInt16BE(value, index * 2);
  });
  return bytes;
}

/** Numbers as the protocol writes them. */
export function int32s(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  values.forEach((value, index) => {
    bytes.writeInt32BE(value, index * 4);
  });
  return bytes;
}

function fieldsOf(body: Buffer): Record<string, string> {
  const entries = body.toString("utf8").split("\0").filter(Boolean);
  return Object.fromEntries(entries.map((entry) => [entry.slice(0, 1), entry.slice(1)]));
}
