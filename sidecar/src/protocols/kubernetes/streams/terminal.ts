/** What one exec or attach shows and is given: recorded as it passes, masked before, and summed up at its end. */
import { createHash } from "node:crypto";
import type { SessionGuard } from "../../../guard/index.ts";
import type { OutputPatterns } from "../../../terminal/index.ts";
import { isRecord } from "../facts.ts";
import { type Receiver, StreamMask } from "../stream-mask.ts";
import { parsed } from "../upstream.ts";
import type { CopyReader } from "./copy.ts";
import type { CopyGate, Refuse, Sifted } from "./copy-gate.ts";

/** Whose output it is. */
export type OutputStream = "stdout" | "stderr";

const marks = { stdout: "o", stderr: "e" } as const;

/** Records and masks the streams of one command. */
export class Terminal {
  readonly #guard: SessionGuard;
  readonly #number: number;
  readonly #recordsInput: boolean;
  readonly #listing: CopyReader | undefined;
  readonly #gate: CopyGate | undefined;
  readonly #masks: Readonly<Record<OutputStream, StreamMask>>;
  readonly #digests = {
    stdin: createHash("sha256"),
    stdout: createHash("sha256"),
    stderr: createHash("sha256"),
  };
  readonly #show: (stream: OutputStream, bytes: Buffer) => void;
  readonly counts = { stdin: 0, stdout: 0, stderr: 0 };
  #waiting: Promise<void> | undefined;
  #exit: string | undefined;
  #isEnded = false;

  constructor(
    guard: SessionGuard,
    number: number,
    options: {
      readonly recordsInput: boolean;
      readonly patterns: OutputPatterns;
      /** Lists the files where the command copies some. */
      readonly listing: CopyReader | undefined;
      /** Judges them one by one where rules name files. */
      readonly gate?: CopyGate | undefined;
      readonly receiver?: Receiver;
    },
    show: (stream: OutputStream, bytes: Buffer) => void,
  ) {
    this.#guard = guard;
    this.#number = number;
    this.#recordsInput = options.recordsInput;
    this.#listing = options.listing;
    this.#gate = options.gate;
    this.#show = show;
    const { patterns, receiver } = options;
    const to: Receiver = {
      hasTerminal: receiver?.hasTerminal ?? false,
      isStopped: () => this.#waiting !== undefined || receiver?.isStopped() === true,
    };
    const masked = (stream: OutputStream) =>
      new StreamMask(patterns, (bytes) => this.#shown(stream, bytes), to);
    this.#masks = { stdout: masked("stdout"), stderr: masked("stderr") };
  }

  /** What may be given to the command of these bytes; `isEnd`: none follow. */
  sift(bytes: Buffer, isEnd: boolean): Sifted {
    const gate = this.#gate;
    if (gate?.direction !== "in") return { passed: bytes, refuse: undefined };
    const sifted = gate.push(bytes);
    if (!isEnd || sifted.refuse !== undefined) return sifted;
    const last = gate.end();
    return { passed: Buffer.concat([sifted.passed, last.passed]), refuse: last.refuse };
  }

  /** Bytes that the command is given. */
  input(bytes: Buffer): Promise<void> | undefined {
    this.counts.stdin += bytes.length;
    this.#digests.stdin.update(bytes);
    if (this.#listing?.direction === "in") this.#listing.push(bytes);
    return this.#recordsInput ? this.#guard.stream(this.#number, "i", bytes) : undefined;
  }

  /** Bytes that the command prints; a promise: read no more before it resolves. */
  output(stream: OutputStream, bytes: Buffer): Promise<void> | undefined {
    this.#masks[stream].push(bytes);
    return this.#waiting;
  }

  resized(payload: Buffer): void {
    const size = parsed(payload);
    if (!isRecord(size)) return;
    const { Width: width, Height: height } = size;
    if (typeof width !== "number" || typeof height !== "number") return;
    this.#guard.note("resized", { command: this.#number, width, height });
  }

  /** The command prints no more. */
  outputEnded(): Promise<void> | undefined {
    const waits = this.flush();
    if (this.#gate?.direction !== "out" || this.#isEnded) return waits;
    const { passed, refuse } = this.#gate.end();
    if (passed.length > 0) this.#record("stdout", passed);
    if (refuse !== undefined) this.#refuseOutput(refuse);
    return this.#waiting;
  }

  /** The status with which the command ended. */
  ended(payload: Buffer): Promise<void> | undefined {
    this.#exit ??= exitOf(parsed(payload));
    return this.flush();
  }

  /** Shows what is held back; a promise: it waits for its record. */
  flush(): Promise<void> | undefined {
    this.#masks.stdout.flush();
    this.#masks.stderr.flush();
    return this.#waiting;
  }

  /** Says in the recording how it ended; once. */
  close(ms: number, why?: string): void {
    if (this.#isEnded) return;
    void this.flush();
    this.#isEnded = true;
    const { stdin, stdout, stderr } = this.counts;
    this.#guard.note("streams", {
      command: this.#number,
      stdin,
      stdoutSha256: this.#digests.stdout.digest("hex"),
      stdout,
      stderr,
      stdinSha256: this.#digests.stdin.digest("hex"),
      stderrSha256: this.#digests.stderr.digest("hex"),
    });
    const tag = why ?? this.#exit ?? "ended";
    this.#guard.response(this.#number, { tag, rows: 0, bytes: stdin + stdout + stderr, ms });
  }

  #shown(stream: OutputStream, bytes: Buffer): void {
    if (stream !== "stdout" || this.#gate?.direction !== "out") {
      this.#record(stream, bytes);
      return;
    }
    const { passed, refuse } = this.#gate.push(bytes);
    if (passed.length > 0) this.#record(stream, passed);
    if (refuse !== undefined) this.#refuseOutput(refuse);
  }

  #record(stream: OutputStream, bytes: Buffer): void {
    this.counts[stream] += bytes.length;
    this.#digests[stream].update(bytes);
    if (stream === "stdout" && this.#listing?.direction === "out") this.#listing.push(bytes);
    const recorded = this.#guard.stream(this.#number, marks[stream], bytes);
    if (recorded === undefined && this.#waiting === undefined) {
      this.#show(stream, bytes);
      return;
    }
    // Recorded first, then shown, in order.
    const before = this.#waiting ?? Promise.resolve();
    const waiting: Promise<void> = before
      .then(() => recorded)
      .then(() => {
        this.#show(stream, bytes);
        if (this.#waiting === waiting) this.#waiting = undefined;
      });
    // A failure stays, and ends the stream at whatever passes next.
    waiting.catch(() => undefined);
    this.#waiting = waiting;
  }

  /** Behind what may be shown nothing more is: the refusal ends the stream. */
  #refuseOutput(refuse: Refuse): void {
    const waiting = (this.#waiting ?? Promise.resolve()).then(refuse);
    waiting.catch(() => undefined);
    this.#waiting = waiting;
  }
}

function exitOf(status: unknown): string | undefined {
  if (!isRecord(status)) return undefined;
  if (status.status === "Success") return "exit 0";
  const causes =
    isRecord(status.details) && Array.isArray(status.details.causes) ? status.details.causes : [];
  const code = causes.filter(isRecord).find(({ reason }) => reason === "ExitCode")?.message;
  return typeof code === "string" && /^\d{1,3}$/.test(code) ? `exit ${code}` : "failed";
}
