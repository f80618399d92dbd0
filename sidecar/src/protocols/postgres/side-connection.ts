import type { Socket } from "node:net";
import { GatewayError } from "../../wire/gateway-error.ts";
import {
  backend,
  bindTextsFrame,
  describeFrame,
  executeFrame,
  lengthAt,
  parseFrame,
  queryFrame,
  readErrorFields,
  syncFrame,
} from "./frames.ts";
import { HeldBytes } from "./held-bytes.ts";

/** One row of a text-format result, by column name; NULL is null. */
export type SideRow = Readonly<Record<string, string | null>>;

/**
 * A connection of the gateway's own beside its users': it reads the catalog and nothing else, one query at a time. A query
 * with parameters is prepared, and planned, once where `keepsStatements`: nobody else may be able to prepare there.
 */
export class SideConnection {
  private readonly socket: Socket;
  private readonly held = new HeldBytes();
  private current: PendingQuery | undefined;
  private tail: Promise<unknown> = Promise.resolve();
  private deadline: NodeJS.Timeout | undefined;
  private readonly prepared = new Map<string, string>();
  keepsStatements = false;
  isClosed = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => this.receive(chunk));
    socket.on("close", () => this.fail(new GatewayError("upstreamUnreachable")));
    socket.on("error", (error) => this.fail(error));
    socket.resume();
  }

  /** Runs one query and resolves with its rows; queries wait for one another. */
  query(sql: string, values?: readonly (string | null)[]): Promise<readonly SideRow[]> {
    const result = this.tail.then(() => this.run(sql, values));
    this.tail = result.catch(() => undefined);
    return result;
  }

  close(): void {
    clearTimeout(this.deadline);
    this.isClosed = true;
    this.socket.destroy();
  }

  private run(sql: string, values: readonly (string | null)[] | undefined): Promise<readonly SideRow[]> {
    if (this.isClosed) return Promise.reject(new GatewayError("upstreamUnreachable"));
    return new Promise((resolve, reject) => {
      // A server or network that has stalled gives no answer and no end: without this the catalog would wait for ever.
      this.deadline = setTimeout(() => {
        this.close();
        this.fail(
          new GatewayError("upstreamUnreachable", { cause: new Error("a catalog query took too long") }),
        );
      }, queryMsMax);
      this.current = { columns: [], rows: [], bytes: 0, error: undefined, resolve, reject };
      this.socket.write(values === undefined ? queryFrame(sql) : this.extended(sql, values));
    });
  }

  private extended(sql: string, values: readonly (string | null)[]): Buffer {
    const known = this.prepared.get(sql);
    const name = known ?? (this.keepsStatements ? `s${this.prepared.size}` : "");
    // Whoever asks gives up a connection with a query that failed: what was prepared is there.
    if (name !== "") this.prepared.set(sql, name);
    const rest = [bindTextsFrame(name, values), describeFrame, executeFrame("", 0), syncFrame];
    return Buffer.concat(known === undefined ? [parseFrame(name, sql), ...rest] : rest);
  }

  private fail(error: Error): void {
    clearTimeout(this.deadline);
    this.isClosed = true;
    const { current } = this;
    this.current = undefined;
    current?.reject(error);
  }

  /** Called by the socket: what is thrown here would end the process, and with it everybody's session. */
  private receive(chunk: Buffer): void {
    try {
      this.read(chunk);
    } catch (error) {
      this.close();
      this.fail(
        error instanceof GatewayError ? error : new GatewayError("upstreamProtocol", { cause: error }),
      );
    }
  }

  private read(chunk: Buffer): void {
    const whole = this.held.isEmpty ? chunk : this.held.add(chunk);
    if (whole === undefined) return;
    let at = 0;
    while (at < whole.length) {
      const size = whole.length - at < 5 ? 5 : lengthAt(whole, at) + 1;
      if (size < 5 || size > messageBytesMax) throw new GatewayError("upstreamProtocol");
      if (whole.length - at < size) {
        this.held.hold(whole, at, size);
        return;
      }
      this.message(whole[at] ?? 0, whole.subarray(at + 5, at + size));
      at += size;
    }
  }

  private message(type: number, body: Buffer): void {
    const { current } = this;
    if (current === undefined) return;
    if (type === backend.rowDescription) current.columns = readColumns(body);
    else if (type === backend.dataRow) {
      current.bytes += body.length;
      if (current.bytes > answerBytesMax) throw new GatewayError("upstreamProtocol");
      current.rows.push(readRow(body, current.columns));
    } else if (type === backend.errorResponse) {
      const fields = readErrorFields(body);
      current.error = new Error(`${fields.get("C")}: ${fields.get("M")}`);
    } else if (type === backend.readyForQuery) {
      clearTimeout(this.deadline);
      this.current = undefined;
      if (current.error === undefined) current.resolve(current.rows);
      else current.reject(current.error);
    }
  }
}

interface PendingQuery {
  columns: readonly string[];
  readonly rows: SideRow[];
  bytes: number;
  error: Error | undefined;
  readonly resolve: (rows: readonly SideRow[]) => void;
  readonly reject: (error: Error) => void;
}

const queryMsMax = 5_000;
const messageBytesMax = 64 * 1024 * 1024;
/** A catalog of a million relations stays below; rows without end do not. */
const answerBytesMax = 512 * 1024 * 1024;

/** RowDescription: int16 count, then name\0 and 18 bytes for each column. */
function readColumns(body: Buffer): string[] {
  const columns: string[] = [];
  let at = 2;
  for (let left = body.readUInt16BE(0); left > 0; left -= 1) {
    const end = body.indexOf(0, at);
    if (end < 0) throw new GatewayError("upstreamProtocol");
    columns.push(body.toString("utf8", at, end));
    at = end + 19;
  }
  return columns;
}

/** DataRow: int16 count, then int32 length and bytes for each value, -1 for NULL. */
function readRow(body: Buffer, columns: readonly string[]): SideRow {
  const row: Record<string, string | null> = {};
  let at = 2;
  for (const column of columns) {
    const length = body.readInt32BE(at);
    at += 4;
    if (length > body.length - at) throw new GatewayError("upstreamProtocol");
    row[column] = length < 0 ? null : body.toString("utf8", at, at + length);
    at += Math.max(0, length);
  }
  return row;
}
