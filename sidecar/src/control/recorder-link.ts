import { connect, type TLSSocket } from "node:tls";
import {
  Backoff,
  FramedConnection,
  parseRecordingAnswer,
  type RecordingAnswer,
  type RecordingRequest,
  recordingProtocol,
  recordingStreamLimits,
} from "@sallyport/control";
import type { Storage } from "../recording/storage.ts";

/** With what a gateway shows the recorder who it is. */
export interface RecorderCredentials {
  /** PEM; its key is the one that journals are signed with. */
  readonly certificate: string;
  readonly key: string;
  /** What the recorder's certificate is checked against. */
  readonly authorities: string;
}

/** Bounds of the way to the recorder. */
export interface LinkLimits {
  /** Bytes that may be kept because the recorder does not have them on disk yet. */
  readonly spoolBytesMax: number;
  /** How long BestEffort recordings are kept while the recorder is away. */
  readonly spoolMs: number;
  /** An answer that takes longer refuses whoever waits for it. */
  readonly answerMs: number;
  /** The recorder may be away for so long before anybody is refused. */
  readonly graceMs: number;
  readonly retryMs: number;
  readonly retryMsMax: number;
  /** How long one attempt to connect may take. */
  readonly dialMs: number;
  readonly heartbeatMs: number;
  readonly silenceMs: number;
}

/** What the design asks for. */
export const defaultLinkLimits: LinkLimits = {
  spoolBytesMax: 64 * 1024 * 1024,
  spoolMs: 300_000,
  answerMs: 2_000,
  graceMs: 1_000,
  retryMs: 100,
  retryMsMax: 5_000,
  dialMs: 5_000,
  heartbeatMs: recordingStreamLimits.heartbeatMs,
  silenceMs: 4 * recordingStreamLimits.heartbeatMs,
};

/** What a link is made of. */
export interface RecorderLinkOptions {
  /** `host:port`; undefined while nobody has said it. */
  readonly address: () => string | undefined;
  readonly credentials: () => Promise<RecorderCredentials>;
  /** How long the recorder keeps a recording after its end. */
  readonly retentionMs: () => number;
  readonly limits?: Partial<LinkLimits>;
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
}

/** Somebody who waits until the recorder has so much of a file. */
interface Waiter {
  readonly what: "stored" | "synced";
  readonly upTo: number;
  readonly since: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** One session's journal on its way. What the recorder has not on disk is kept here. */
interface RemoteFile {
  readonly path: string;
  readonly isSpooled: boolean;
  kept: { readonly at: number; readonly bytes: Uint8Array }[];
  /** Where the journal ends, where what is kept begins, and how far the recorder is. */
  end: number;
  keptFrom: number;
  sent: number;
  stored: number;
  synced: number;
  /** Its number on the present connection; undefined while it is not open there. */
  number: number | undefined;
  isOpen: boolean;
  wantsSync: boolean;
  isClosed: boolean;
  waiters: Waiter[];
  /** Why the recorder does not take it now, or ever. */
  failure: Error | undefined;
  isLost: boolean;
  retryAt: number;
  readonly retry: Backoff;
}

const tickMs = 100;
const refusalMs = 60_000;
/** No more is handed to the socket at once: the rest waits where its size is known. */
const inFlightBytesMax = 1024 * 1024;

/**
 * The way to the recorder: one connection, opened again when it breaks, over which journals go on from where the
 * recorder has them. A `Required` recording's write counts when the recorder has it; a spooled one's when it is kept.
 */
export class RecorderLink {
  readonly #options: RecorderLinkOptions;
  readonly #limits: LinkLimits;
  readonly #backoff: Backoff;
  readonly #files = new Map<number, RemoteFile>();
  readonly #byNumber = new Map<number, RemoteFile>();
  #nextFd = 1;
  #nextNumber = 1;
  #spoolBytes = 0;
  #connection: FramedConnection | undefined;
  #downSince = performance.now();
  #cause: Error | undefined;
  /** The recorder has no room: what it said last, until it takes something or nobody has tried for a while. */
  #refused: { readonly message: string; readonly atMs: number } | undefined;
  readonly #dueFiles = new Set<RemoteFile>();
  #isPumping = false;
  readonly #stopping = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;

  constructor(options: RecorderLinkOptions) {
    this.#options = options;
    this.#limits = { ...defaultLinkLimits, ...options.limits };
    this.#backoff = new Backoff(this.#limits.retryMs, this.#limits.retryMsMax);
  }

  start(): void {
    this.#timer = setInterval(() => this.#tick(), tickMs);
    this.#timer.unref();
    this.#running = this.#run();
  }

  /** Delivers what is kept until the deadline, then ends the connection. */
  async stop(deadlineMs: number): Promise<void> {
    const deadline = performance.now() + deadlineMs;
    while (this.#spoolBytes > 0 && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    this.#stopping.abort();
    clearInterval(this.#timer);
    this.#connection?.end();
    await this.#running;
  }

  /** Why nothing can be recorded now: undefined while the recorder is there, or was a moment ago. */
  get failure(): Error | undefined {
    if (this.#connection !== undefined) return undefined;
    const isGrace = this.#cause !== undefined && performance.now() - this.#downSince < this.#limits.graceMs;
    return isGrace ? undefined : unreachable(this.#cause);
  }

  /** Why the recorder is there and takes nothing: its volume is full, or the namespace's quota is used up. */
  get refusal(): string | undefined {
    const isOfLate = this.#refused !== undefined && performance.now() - this.#refused.atMs < refusalMs;
    return isOfLate ? this.#refused?.message : undefined;
  }

  /** True where even what may be kept for later cannot be: the recorder is away too long, or too much waits. */
  get isSpent(): boolean {
    return this.#spoolBytes >= this.#limits.spoolBytesMax || this.#isAwayTooLong;
  }

  /** Bytes that the recorder has not on disk yet. */
  get spoolBytes(): number {
    return this.#spoolBytes;
  }

  /** The storage of recordings that must reach the recorder (false) or may wait here (true). */
  storage(isSpooled: boolean): Storage {
    return {
      keepsUnsynced: true,
      create: async (path) => this.#create(path, isSpooled),
      write: (fd, bytes, position) => this.#write(fd, bytes, position),
      sync: (fd) => this.#sync(fd),
      close: async (fd) => this.#close(fd),
      read: async () => 0,
      syncFolder: async () => undefined,
      remove: async () => undefined,
    };
  }

  get #isAwayTooLong(): boolean {
    return this.#connection === undefined && performance.now() - this.#downSince > this.#limits.spoolMs;
  }

  #create(path: string, isSpooled: boolean): number {
    const fd = this.#nextFd++;
    // The gateway's own log stays here: the recorder keeps one of its own over all gateways.
    if (!path.startsWith("sessions/")) return -fd;
    const file: RemoteFile = {
      path,
      isSpooled,
      kept: [],
      end: 0,
      keptFrom: 0,
      sent: 0,
      stored: 0,
      synced: 0,
      number: undefined,
      isOpen: false,
      wantsSync: false,
      isClosed: false,
      waiters: [],
      failure: undefined,
      isLost: false,
      retryAt: 0,
      retry: new Backoff(this.#limits.retryMs, this.#limits.retryMsMax),
    };
    this.#files.set(fd, file);
    this.#open(file);
    return fd;
  }

  async #write(fd: number, bytes: Uint8Array, position: number): Promise<number> {
    const file = this.#files.get(fd);
    if (file === undefined) return bytes.length;
    if (file.isLost && file.failure) throw file.failure;
    const upTo = position + bytes.length;
    // A block that was given before and not confirmed is written again by the journal: it is kept already.
    if (upTo > file.end) {
      if (position !== file.end) throw new Error("a journal has a gap");
      if (this.#spoolBytes + bytes.length > this.#limits.spoolBytesMax) throw spoolFull();
      if (file.isSpooled && this.#isAwayTooLong) throw unreachable(this.#cause);
      file.kept.push({ at: position, bytes });
      file.end = upTo;
      this.#spoolBytes += bytes.length;
      this.#due(file);
    }
    if (!file.isSpooled) await this.#wait(file, "stored", upTo);
    return bytes.length;
  }

  async #sync(fd: number): Promise<void> {
    const file = this.#files.get(fd);
    if (file === undefined || file.synced >= file.end) return;
    file.wantsSync = true;
    this.#due(file);
    if (!file.isSpooled) return this.#wait(file, "synced", file.end);
    // It may wait for a recorder that is there, and need not for one that is not.
    if (this.#connection === undefined || file.failure) return;
    await this.#wait(file, "synced", file.end).catch(() => undefined);
  }

  #close(fd: number): void {
    const file = this.#files.get(fd);
    if (file === undefined) return;
    file.isClosed = true;
    this.#dropDelivered();
  }

  #wait(file: RemoteFile, what: Waiter["what"], upTo: number): Promise<void> {
    if (file[what] >= upTo) return Promise.resolve();
    const failure = file.failure ?? this.failure;
    if (failure) return Promise.reject(failure);
    return new Promise((resolve, reject) => {
      file.waiters.push({ what, upTo, since: performance.now(), resolve, reject });
    });
  }

  /** Connects, and again whenever the connection ends. */
  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      try {
        await this.#session();
      } catch (error) {
        this.#cause = error as Error;
      }
      this.#disconnected();
      await this.#backoff.pause(this.#stopping.signal);
    }
  }

  async #session(): Promise<void> {
    const address = this.#options.address();
    if (address === undefined) throw new Error("nobody has said where the recorder is");
    const credentials = await this.#options.credentials();
    const socket = await dial(address, credentials, this.#limits.dialMs);
    if (this.#stopping.signal.aborted) {
      socket.destroy();
      return;
    }
    const { heartbeatMs, silenceMs } = this.#limits;
    const frameBytesMax = 64 * 1024;
    const connection = new FramedConnection(socket, { frameBytesMax, heartbeatMs, silenceMs });
    this.#connection = connection;
    this.#options.log.info({ recorder: address }, "connected to the recorder");
    for (const file of this.#files.values()) this.#open(file);
    for await (const { header } of connection.messages()) {
      this.#backoff.reset();
      this.#answered(parseRecordingAnswer(header));
    }
    throw new Error("the recorder ended the connection");
  }

  #disconnected(): void {
    if (this.#connection !== undefined) {
      this.#connection.end();
      this.#connection = undefined;
      this.#downSince = performance.now();
      this.#options.log.warn({ cause: this.#cause?.message }, "the connection to the recorder is gone");
    }
    this.#byNumber.clear();
    for (const file of this.#files.values()) {
      file.number = undefined;
      file.isOpen = false;
    }
  }

  #open(file: RemoteFile): void {
    if (this.#connection === undefined || file.isLost || file.number !== undefined) return;
    if (performance.now() < file.retryAt) return;
    file.number = this.#nextNumber++;
    this.#byNumber.set(file.number, file);
    this.#send({
      kind: "open",
      file: file.number,
      path: file.path,
      retentionMs: Math.max(0, Math.floor(this.#options.retentionMs())),
    });
  }

  #answered(answer: RecordingAnswer): void {
    const file = this.#byNumber.get(answer.file);
    if (file === undefined) return;
    switch (answer.kind) {
      case "opened":
        this.#opened(file, answer.bytes);
        return;
      case "stored":
        file.stored = Math.max(file.stored, Math.min(answer.bytes, file.end));
        file.failure = undefined;
        this.#refused = undefined;
        file.retry.reset();
        break;
      case "synced":
        this.#synced(file, Math.min(answer.bytes, file.end));
        break;
      case "failed":
        this.#failed(file, answer);
        return;
    }
    this.#settle(file);
    this.#due(file);
  }

  /** The recorder says how much it has: the rest is sent again. */
  #opened(file: RemoteFile, bytes: number): void {
    if (bytes < file.keptFrom || bytes > file.end) {
      // It confirmed more than it has, or has more than there is: this journal cannot go on.
      this.#lose(file, new Error("the recorder's copy of a journal is not what was sent"));
      return;
    }
    file.isOpen = true;
    file.sent = bytes;
    file.stored = Math.max(file.stored, bytes);
    if (file.end > file.synced) file.wantsSync = true;
    if (file.sent === file.end) file.failure = undefined;
    this.#settle(file);
    this.#due(file);
  }

  #synced(file: RemoteFile, bytes: number): void {
    file.synced = Math.max(file.synced, bytes);
    file.stored = Math.max(file.stored, bytes);
    while (file.kept[0] !== undefined && file.kept[0].at + file.kept[0].bytes.length <= file.synced) {
      this.#spoolBytes -= file.kept.shift()?.bytes.length ?? 0;
    }
    file.keptFrom = file.kept[0]?.at ?? file.end;
    file.failure = undefined;
    if (file.synced < file.end && file.sent === file.end) file.wantsSync = true;
    this.#dropDelivered();
  }

  #failed(file: RemoteFile, { code, message }: { readonly code: string; readonly message: string }): void {
    const error = new Error(`the recorder refuses: ${message}`);
    if (file.number !== undefined) this.#byNumber.delete(file.number);
    file.number = undefined;
    file.isOpen = false;
    const mayPass = code === "full" || code === "failed";
    this.#options.log.warn({ path: file.path, code, cause: message }, "the recorder refuses a journal");
    if (code === "full") this.#refused = { message, atMs: performance.now() };
    if (!mayPass) {
      this.#lose(file, error);
      return;
    }
    file.failure = error;
    file.retryAt = performance.now() + file.retry.nextMs();
    this.#reject(file, error);
  }

  #lose(file: RemoteFile, error: Error): void {
    file.failure = error;
    file.isLost = true;
    for (const { bytes } of file.kept.splice(0)) this.#spoolBytes -= bytes.length;
    this.#reject(file, error);
    this.#dropDelivered();
  }

  /** Something of a file is to be sent. */
  #due(file: RemoteFile): void {
    this.#dueFiles.add(file);
    void this.#pump();
  }

  /** Sends what is due, no faster than the socket takes it; never rejects. */
  async #pump(): Promise<void> {
    if (this.#isPumping) return;
    this.#isPumping = true;
    try {
      for (const file of this.#dueFiles) {
        const connection = this.#connection;
        // What is not sent now is due again once its file is open.
        this.#dueFiles.delete(file);
        if (connection === undefined || !this.#sendPiece(file)) continue;
        // Its turn comes again after the others'.
        this.#dueFiles.add(file);
        if (connection.queuedBytes > inFlightBytesMax) await connection.drained();
      }
    } finally {
      this.#isPumping = false;
    }
  }

  /** Sends one piece of a file, or the question that follows the last one; false where nothing is due. */
  #sendPiece(file: RemoteFile): boolean {
    const { number } = file;
    if (number === undefined || !file.isOpen) return false;
    if (file.sent < file.end) {
      const chunk = file.kept.find(({ at, bytes }) => file.sent < at + bytes.length);
      if (chunk === undefined) return false;
      const from = file.sent - chunk.at;
      const piece = chunk.bytes.subarray(from, from + recordingStreamLimits.appendBytesMax);
      this.#send({ kind: "append", file: number, at: file.sent }, piece);
      file.sent += piece.length;
      return true;
    }
    if (!file.wantsSync) return false;
    file.wantsSync = false;
    this.#send({ kind: "sync", file: number });
    return true;
  }

  #send(request: RecordingRequest, body?: Uint8Array): void {
    this.#connection?.send(request, body);
  }

  #settle(file: RemoteFile): void {
    file.waiters = file.waiters.filter((waiter) => {
      if (file[waiter.what] < waiter.upTo) return true;
      waiter.resolve();
      return false;
    });
  }

  #reject(file: RemoteFile, error: Error): void {
    for (const { reject } of file.waiters.splice(0)) reject(error);
  }

  /** Bounds every wait, opens again what may pass, and asks for a sync of what has not had one. */
  #tick(): void {
    const now = performance.now();
    const { failure } = this;
    for (const file of this.#files.values()) {
      const [first] = file.waiters;
      if (first && failure) this.#reject(file, failure);
      else if (first && now - first.since > this.#limits.answerMs) {
        this.#reject(file, new Error("the recorder does not answer in time"));
      }
      if (file.number === undefined) this.#open(file);
      if (file.isOpen && file.isClosed && file.synced < file.end) {
        file.wantsSync = true;
        this.#due(file);
      }
    }
    if (this.#isAwayTooLong) this.#dropSpooled();
  }

  /** BestEffort recordings whose time is over go; what was Required stays until it is delivered. */
  #dropSpooled(): void {
    for (const file of this.#files.values()) {
      if (file.isSpooled && file.isClosed) this.#lose(file, unreachable(this.#cause));
    }
  }

  #dropDelivered(): void {
    for (const [fd, file] of this.#files) {
      if (!file.isClosed || (file.synced < file.end && !file.isLost)) continue;
      this.#files.delete(fd);
      if (file.number === undefined) continue;
      this.#byNumber.delete(file.number);
      if (file.isOpen) this.#send({ kind: "close", file: file.number });
    }
  }
}

/** Opens the TLS connection; both sides show certificates. */
async function dial(address: string, credentials: RecorderCredentials, dialMs: number): Promise<TLSSocket> {
  const { host, port } = splitAddress(address);
  const socket = connect({
    host,
    port,
    cert: credentials.certificate,
    key: credentials.key,
    ca: credentials.authorities,
    ...(isIp(host) ? {} : { servername: host }),
    minVersion: "TLSv1.3",
    ALPNProtocols: [recordingProtocol],
    timeout: dialMs,
  });
  await secured(socket);
  return socket;
}

/** Waits for the handshake, no longer than a moment. */
export async function secured(socket: TLSSocket): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once("secureConnect", resolve);
      socket.once("error", reject);
      socket.once("timeout", () => reject(new Error("no answer in time")));
      socket.once("close", () => reject(new Error("the connection was closed")));
    });
    socket.setTimeout(0);
    socket.setNoDelay(true);
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** Splits `host:port`; an IPv6 address stands in brackets. */
export function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(address) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || port === undefined) throw new Error(`${address} is not HOST:PORT`);
  return { host, port: Number(port) };
}

/** True for an address that TLS cannot take as a server name. */
export const isIp = (host: string): boolean => /^[\d.]+$/.test(host) || host.includes(":");

function unreachable(cause: Error | undefined): Error {
  return Object.assign(new Error("the recorder cannot be reached", { cause }), { code: "ERECORDER" });
}

function spoolFull(): Error {
  return Object.assign(new Error("too much waits for the recorder"), { code: "ENOSPC" });
}
