/** exec, attach and port-forward over SPDY/3.1: every frame is read, and headers are written anew on both ways. */
import type { Status } from "../status.ts";
import { HeldInput, messageMax, type StreamBridge } from "./bridge.ts";
import type { Sifted } from "./copy-gate.ts";
import { inOrder } from "./pump.ts";
import {
  type ControlFrame,
  controlFrame,
  type DataSlice,
  dataFrame,
  finFlag,
  frameTypes,
  HeaderInflater,
  HeaderStorer,
  headersAt,
  readHeaders,
  SpdyReader,
} from "./spdy-frames.ts";
import { FrameError } from "./websocket-frames.ts";

/** Where bytes of one side go. */
export type Send = (pieces: readonly Buffer[]) => void;

/** The server's side, once there is one. */
export interface SpdyUpstream {
  readonly send: Send;
  readonly reader: StreamReader;
  readonly onEnd: (why?: string) => void;
}

/** What a client sends before there is a server: it is kept. */
type Held =
  | DataSlice
  | ControlFrame
  | { readonly kind: "opened"; readonly frame: ControlFrame; readonly at: number; readonly plain: Buffer };

/** A stream that the client wants to open. */
export interface WantedStream {
  readonly id: number;
  /** error, data, stdin, stdout, stderr, resize. */
  readonly type: string;
  readonly headers: ReadonlyMap<string, string>;
}

/** Who reads what passes. */
export interface StreamReader {
  /** Whether a stream may be opened; a text: what the client is told instead. */
  opening(wanted: WantedStream): Promise<string | undefined>;
  /** What may go on of the client's bytes; undefined, or absent: all. */
  sift?(type: string, bytes: Buffer, isFin: boolean): Sifted | undefined;
  fromClient(type: string, id: number, bytes: Buffer): Promise<void> | undefined;
  /** Bytes of the server's: a command's reader shows them itself, later; undefined: they pass as they are. */
  fromServer(
    type: string,
    id: number,
    bytes: Buffer,
  ): { readonly waits: Promise<void> | undefined } | undefined;
  /** The server has ended its half of a stream: what is held back of it is shown first. */
  serverEnded(type: string, id: number): Promise<void> | undefined;
  /** What the server says at the end of an error stream. */
  status(message: Buffer): Promise<void> | undefined;
  closed(id: number): void;
}

const streamsMax = 4_096;
/** The streams of an exec or attach. */
export const commandStreams = new Set(["error", "stdin", "stdout", "stderr", "resize"]);
const emptyHeaders = Buffer.alloc(4);

/** Bridges the streams of one connection. Until it has a server, streams are opened and what is sent on them is kept. */
export class SpdyBridge implements StreamBridge {
  readonly #toClient: Send;
  readonly #isJsonStatus: boolean;
  #upstream: SpdyUpstream | undefined;
  readonly #held = new HeldInput<Held>();
  /** Streams that the client was answered before the server was asked. */
  readonly #answered = new Set<number>();
  #notices: { readonly stream: string; readonly text: string }[] = [];
  #onOpened: () => void = () => undefined;
  readonly #up = { frames: new SpdyReader(), inflate: new HeaderInflater(), store: new HeaderStorer() };
  readonly #down = { frames: new SpdyReader(), inflate: new HeaderInflater(), store: new HeaderStorer() };
  readonly #types = new Map<number, string>();
  /** Streams that only the client believes in. */
  readonly #refused = new Set<number>();
  readonly #halves = new Map<number, number>();
  readonly #errors = new Map<number, Buffer[]>();
  /** Streams that the client waits to be answered about, by the server. */
  readonly #unanswered = new Set<number>();
  /** How many it has opened so far, those that are over included. */
  #openedCount = 0;
  /** What the client's error stream is told at the end, once there is one; set by the cut. */
  #lastWords: string | undefined;
  #isTold = false;
  /** How many streams the client opens before it hears them. */
  #awaited = 0;
  #onTold: () => void = () => undefined;

  /** `isJsonStatus`: the error stream holds a Status, as from v4.channel.k8s.io on; before it is a text. */
  constructor(toClient: Send, isJsonStatus: boolean) {
    this.#toClient = toClient;
    this.#isJsonStatus = isJsonStatus;
  }

  /** Begins to speak with the server; what the client has sent meanwhile goes first. */
  connect(upstream: SpdyUpstream): Promise<void> | undefined {
    this.#upstream = upstream;
    return inOrder(this.#held.take().values(), (item) =>
      item.kind === "data"
        ? this.#clientData(item)
        : item.kind === "opened"
          ? this.#opened(item.frame, item.at, item.plain)
          : this.#clientControl(item),
    );
  }

  /** Resolves once the client has opened that many streams: before, there is none to tell it anything on. */
  hasOpened(count: number): Promise<void> {
    return new Promise((resolve) => {
      this.#onOpened = () => {
        if (this.#types.size >= count) resolve();
      };
      this.#onOpened();
    });
  }

  /** A line of the gateway's own, shown as soon as that stream is open. */
  notice(text: string, stream: string): void {
    this.#notices.push({ stream, text });
    this.#showNotices();
  }

  fromClient(chunk: Buffer): Promise<void> | undefined {
    return inOrder(this.#up.frames.read(chunk), (item) =>
      item.kind === "data" ? this.#clientData(item) : this.#clientControl(item),
    );
  }

  fromUpstream(chunk: Buffer): Promise<void> | undefined {
    return inOrder(this.#down.frames.read(chunk), (item) =>
      item.kind === "data" ? this.#serverData(item) : this.#serverControl(item),
    );
  }

  upstreamEnded(): Promise<void> | undefined {
    return inOrder([...this.#types].values(), ([id, type]) => this.#upstream?.reader.serverEnded(type, id));
  }

  /** Output that may be shown now. */
  show(type: string, bytes: Buffer): void {
    if (this.#lastWords !== undefined) return;
    const id = this.#idOf(type);
    if (id !== undefined) this.#toClient(dataFrame(id, bytes, false));
  }

  cut(status: Status): void {
    if (this.#lastWords !== undefined) return;
    // What ends it may be that something could not be shown.
    void this.upstreamEnded()?.catch(() => undefined);
    this.#lastWords = this.#isJsonStatus ? JSON.stringify(status) : status.message;
    for (const [id, type] of this.#types) this.#tellLast(id, type);
    if (this.#awaited <= this.#openedCount) this.#farewell();
  }

  /**
   * A client opens its streams one after the other, and waits half a minute for the answer about each: one that is cut
   * before it has opened `count` is answered until then. Resolves once it has heard everything.
   */
  async cutAfter(count: number, status: Status): Promise<void> {
    this.#awaited = count;
    const told = new Promise<void>((resolve) => {
      this.#onTold = resolve;
    });
    this.cut(status);
    if (!this.#isTold) await told;
  }

  /** Ends a stream of the client's: the error stream says why. */
  #tellLast(id: number, type: string): void {
    if (this.#unanswered.delete(id)) this.#toClient(controlFrame(frameTypes.synReply, 0, this.#replyTo(id)));
    this.#toClient(dataFrame(id, Buffer.from(type === "error" ? (this.#lastWords ?? "") : ""), true));
  }

  #farewell(): void {
    if (this.#isTold) return;
    this.#isTold = true;
    this.#toClient(controlFrame(frameTypes.goAway, 0, Buffer.alloc(8)));
    this.#onTold();
  }

  close(why?: string): void {
    this.#up.inflate.close();
    this.#down.inflate.close();
    for (const id of this.#types.keys()) this.#upstream?.reader.closed(id);
    this.#types.clear();
    this.#upstream?.onEnd(why);
  }

  #clientControl(frame: ControlFrame): Promise<void> | undefined {
    const at = headersAt(frame.type);
    if (at !== undefined) return this.#clientHeaders(frame, at);
    const upstream = this.#upstream;
    if (upstream === undefined) {
      // Clients give up on who does not answer their pings.
      if (frame.type === frameTypes.ping) this.#toClient(controlFrame(frame.type, frame.flags, frame.body));
      else this.#held.push(frame, frame.body.length);
      return undefined;
    }
    const stream = frame.body.length >= 4 ? frame.body.readUInt32BE(0) & 0x7fff_ffff : 0;
    if (frame.type === frameTypes.rstStream) {
      if (this.#refused.delete(stream)) return undefined;
      this.#forget(stream);
    }
    upstream.send(controlFrame(frame.type, frame.flags, frame.body));
    return undefined;
  }

  async #clientHeaders(frame: ControlFrame, at: number): Promise<void> {
    if (frame.body.length < at) throw new FrameError("a frame is too short");
    const plain = await this.#up.inflate.read(frame.body.subarray(at));
    if (this.#lastWords !== undefined) return this.#openedLate(frame, plain);
    if (this.#upstream !== undefined) return this.#opened(frame, at, plain);
    this.#held.push({ kind: "opened", frame, at, plain }, frame.body.length + plain.length);
    if (frame.type !== frameTypes.synStream) return;
    const id = frame.body.readUInt32BE(0) & 0x7fff_ffff;
    const type = readHeaders(plain).get("streamtype") ?? "";
    if (this.#types.has(id)) throw new FrameError("a stream is opened twice");
    if (!commandStreams.has(type) || this.#idOf(type) !== undefined)
      throw new FrameError("a stream that a command does not have");
    this.#types.set(id, type);
    this.#openedCount += 1;
    this.#answered.add(id);
    this.#toClient(controlFrame(frameTypes.synReply, 0, this.#replyTo(id)));
    this.#showNotices();
    this.#onOpened();
  }

  /** What is opened behind the cut is answered, and ended. */
  #openedLate(frame: ControlFrame, plain: Buffer): void {
    if (frame.type !== frameTypes.synStream || this.#isTold) return;
    const id = frame.body.readUInt32BE(0) & 0x7fff_ffff;
    const type = readHeaders(plain).get("streamtype") ?? "";
    if (this.#types.has(id)) throw new FrameError("a stream is opened twice");
    this.#types.set(id, type);
    this.#openedCount += 1;
    this.#unanswered.add(id);
    this.#tellLast(id, type);
    if (this.#awaited <= this.#openedCount) this.#farewell();
  }

  async #opened(frame: ControlFrame, at: number, plain: Buffer): Promise<void> {
    const upstream = this.#upstream;
    if (upstream === undefined) return;
    const id = frame.body.readUInt32BE(0) & 0x7fff_ffff;
    if (frame.type === frameTypes.synStream) {
      const isNew = !this.#answered.has(id);
      if (isNew && (this.#types.has(id) || this.#refused.has(id)))
        throw new FrameError("a stream is opened twice");
      if (this.#types.size + this.#refused.size >= streamsMax) throw new FrameError("too many streams");
      const headers = readHeaders(plain);
      const type = headers.get("streamtype") ?? "";
      const refusal = await upstream.reader.opening({ id, type, headers });
      if (refusal !== undefined) {
        this.#refuse(id, type, refusal);
        return;
      }
      // Cut while it was asked about.
      if (this.#lastWords !== undefined) {
        this.#openedLate(frame, plain);
        return;
      }
      this.#types.set(id, type);
      if (isNew) {
        this.#openedCount += 1;
        this.#unanswered.add(id);
      }
      if ((frame.flags & finFlag) !== 0) this.#half(id);
    } else if (this.#refused.has(id)) return;
    const body = Buffer.concat([frame.body.subarray(0, at), this.#up.store.write(plain)]);
    upstream.send(controlFrame(frame.type, frame.flags, body));
  }

  #showNotices(): void {
    this.#notices = this.#notices.filter(({ stream, text }) => {
      if (this.#idOf(stream) === undefined) return true;
      this.show(stream, Buffer.from(`${text}\r\n`));
      return false;
    });
  }

  #replyTo(id: number): Buffer {
    const stream = Buffer.alloc(4);
    stream.writeUInt32BE(id);
    return Buffer.concat([stream, this.#down.store.write(emptyHeaders)]);
  }

  /** The client gets the stream that it wants, and on it nothing but why. */
  #refuse(id: number, type: string, refusal: string): void {
    this.#refused.add(id);
    this.#toClient(controlFrame(frameTypes.synReply, 0, this.#replyTo(id)));
    this.#toClient(dataFrame(id, Buffer.from(type === "error" ? refusal : ""), true));
  }

  #clientData({ stream, bytes, isFin }: DataSlice): Promise<void> | undefined {
    if (this.#lastWords !== undefined) return undefined;
    if (this.#refused.has(stream)) {
      if (isFin) this.#refused.delete(stream);
      return undefined;
    }
    const upstream = this.#upstream;
    if (upstream === undefined) {
      this.#held.push({ kind: "data", stream, bytes: Buffer.from(bytes), isFin }, bytes.length);
      return undefined;
    }
    const type = this.#types.get(stream);
    // A stream that is over on both sides may still get what was on its way.
    if (type === undefined) return undefined;
    const { passed, refuse } = upstream.reader.sift?.(type, bytes, isFin) ?? {
      passed: bytes,
      refuse: undefined,
    };
    const isEnd = isFin && refuse === undefined;
    const send = () => {
      if (passed.length > 0 || bytes.length === 0 || isEnd) upstream.send(dataFrame(stream, passed, isEnd));
      if (isEnd) this.#half(stream);
    };
    const waits = upstream.reader.fromClient(type, stream, passed);
    if (waits === undefined) send();
    const sent = waits?.then(send);
    return refuse === undefined ? sent : (sent ?? Promise.resolve()).then(refuse);
  }

  #serverControl(frame: ControlFrame): Promise<void> | undefined {
    if (this.#lastWords !== undefined) return undefined;
    const at = headersAt(frame.type);
    if (at !== undefined) return this.#serverHeaders(frame, at);
    if (frame.type === frameTypes.rstStream && frame.body.length >= 4) {
      this.#forget(frame.body.readUInt32BE(0) & 0x7fff_ffff);
    }
    const waits = frame.type === frameTypes.goAway ? this.upstreamEnded() : undefined;
    const pass = () => this.#toClient(controlFrame(frame.type, frame.flags, frame.body));
    if (waits !== undefined) return waits.then(pass);
    pass();
    return undefined;
  }

  async #serverHeaders(frame: ControlFrame, at: number): Promise<void> {
    if (frame.body.length < at) throw new FrameError("a frame is too short");
    const plain = await this.#down.inflate.read(frame.body.subarray(at));
    if (this.#lastWords !== undefined) return;
    const id = frame.body.readUInt32BE(0) & 0x7fff_ffff;
    // What the client was told before is not told again.
    if (frame.type === frameTypes.synReply && this.#answered.delete(id)) return;
    this.#unanswered.delete(id);
    const body = Buffer.concat([frame.body.subarray(0, at), this.#down.store.write(plain)]);
    this.#toClient(controlFrame(frame.type, frame.flags, body));
  }

  #serverData({ stream, bytes, isFin }: DataSlice): Promise<void> | undefined {
    const type = this.#types.get(stream);
    if (this.#lastWords !== undefined || type === undefined) return undefined;
    if (type === "error") return this.#errorData(stream, bytes, isFin);
    const read = bytes.length === 0 ? undefined : this.#upstream?.reader.fromServer(type, stream, bytes);
    if (read === undefined) {
      if (isFin) return this.#finish(stream, type, bytes);
      this.#toClient(dataFrame(stream, bytes, false));
      return undefined;
    }
    if (!isFin) return read.waits;
    return (read.waits ?? Promise.resolve()).then(() => this.#finish(stream, type, Buffer.alloc(0)));
  }

  #finish(stream: number, type: string, bytes: Buffer): Promise<void> | undefined {
    const end = () => {
      this.#toClient(dataFrame(stream, bytes, true));
      this.#half(stream);
    };
    const waits = this.#upstream?.reader.serverEnded(type, stream);
    if (waits !== undefined) return waits.then(end);
    end();
    return undefined;
  }

  #errorData(stream: number, bytes: Buffer, isFin: boolean): Promise<void> | undefined {
    const parts = this.#errors.get(stream) ?? [];
    this.#errors.set(stream, parts);
    parts.push(Buffer.from(bytes));
    if (parts.reduce((sum, part) => sum + part.length, 0) > messageMax)
      throw new FrameError("a status is too long");
    // It passes as it comes, and is read once more once it is whole.
    const pass = () => {
      this.#toClient(dataFrame(stream, bytes, isFin));
      if (isFin) this.#half(stream);
    };
    const waits = this.#upstream?.reader.status(Buffer.concat(parts));
    if (isFin) this.#errors.delete(stream);
    if (waits !== undefined) return waits.then(pass);
    pass();
    return undefined;
  }

  #half(stream: number): void {
    const halves = (this.#halves.get(stream) ?? 0) + 1;
    this.#halves.set(stream, halves);
    if (halves >= 2) this.#forget(stream);
  }

  #forget(stream: number): void {
    if (!this.#types.delete(stream)) return;
    this.#halves.delete(stream);
    this.#errors.delete(stream);
    this.#upstream?.reader.closed(stream);
  }

  #idOf(type: string): number | undefined {
    for (const [id, each] of this.#types) if (each === type) return id;
    return undefined;
  }
}
