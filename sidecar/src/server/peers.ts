/**
 * Cancel requests between the replicas of a gateway: each may arrive at any, and only one holds the session. What goes
 * over the wire is one sealed order (AES-256-GCM under a key that all replicas share) and one byte back:
 *
 *     +-----------------+------------+---------------------------------+-----------+
 *     | length (uint16) | nonce (12) | sealed JSON: the order and when | tag (16)  |  →  0 or 1
 *     +-----------------+------------+---------------------------------+-----------+
 *
 * The file of peers is read at each use, so that whoever runs the replicas may change it at any time:
 * `{"key": "<64 hex digits>", "peers": {"0": "10.0.0.5:9470", "1": "10.0.0.6:9470"}}`
 */
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { readExactly, readOrder } from "./cancel-order.ts";
import type { CancelOrder } from "./shared-state.ts";

/** What handing cancel requests to replicas needs. */
export interface PeersOptions {
  /** Path of the file of peers. */
  readonly file: string;
  /** This replica's number: orders for others are not taken, and so never sent on. */
  readonly replica: number;
  /** Milliseconds since the epoch. */
  readonly clock: () => number;
  readonly take: (order: CancelOrder) => Promise<boolean>;
}

/** The part of the gateway's settings that says who its peers are. */
export interface PeerSettings {
  readonly peers: string;
  readonly replica: number;
  readonly peerListen: { readonly host: string; readonly port: number } | undefined;
}

/** The peers of a configuration; undefined where it names none. */
export function peersOf(settings: PeerSettings, take: PeersOptions["take"]): Peers | undefined {
  const { peers: file, replica } = settings;
  return file === "" ? undefined : new Peers({ file, replica, clock: Date.now, take });
}

interface PeerFile {
  readonly key: Buffer;
  readonly addresses: ReadonlyMap<number, { readonly host: string; readonly port: number }>;
}

const nonceBytes = 12;
const tagBytes = 16;
const frameBytesMax = 2048;
const exchangeMs = 12_000;
const connectionsMax = 64;
/** How far the clocks of two replicas may differ; for as long an order is remembered, so that none counts twice. */
const ageMaxMs = 30_000;
const seenMax = 10_000;

/** Sends cancel orders to other replicas, and takes theirs. */
export class Peers {
  private readonly options: PeersOptions;
  private readonly seen = new Map<string, number>();
  private sending = 0;
  private server: Server | undefined;

  constructor(options: PeersOptions) {
    this.options = options;
  }

  /** Takes orders of other replicas; resolves with the port. */
  async listen(host: string, port: number): Promise<number> {
    await readPeers(this.options.file);
    const server = createServer((socket) => void this.serve(socket));
    server.maxConnections = connectionsMax;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, host, resolve);
    });
    server.on("error", () => undefined);
    this.server = server;
    const address = server.address();
    return typeof address === "object" && address !== null ? address.port : port;
  }

  /** Takes orders where the configuration says so; a gateway may also only send them. */
  async listenAsConfigured({ peerListen }: PeerSettings): Promise<void> {
    if (peerListen !== undefined) await this.listen(peerListen.host, peerListen.port);
  }

  close(): void {
    this.server?.close();
  }

  /** Sends an order to the replica that it names; false where that is unknown, does not answer, or does not take it. */
  async send(order: CancelOrder): Promise<boolean> {
    if (this.sending >= connectionsMax) return false;
    this.sending += 1;
    try {
      const { key, addresses } = await readPeers(this.options.file);
      const address = addresses.get(order.replica);
      if (address === undefined) return false;
      const socket = connect(address);
      try {
        socket.setTimeout(exchangeMs, () => socket.destroy());
        socket.on("error", () => undefined);
        socket.write(seal(key, { ...order, at: this.options.clock() }));
        const answer = await readExactly(socket, 1);
        return answer?.[0] === 1;
      } finally {
        socket.destroy();
      }
    } catch {
      // No file, or a broken one: the log of the start has said so, and a cancel request has no answer to say it in.
      return false;
    } finally {
      this.sending -= 1;
    }
  }

  private async serve(socket: Socket): Promise<void> {
    socket.on("error", () => undefined);
    const deadline = setTimeout(() => socket.destroy(), exchangeMs);
    try {
      const length = (await readExactly(socket, 2))?.readUInt16BE(0) ?? 0;
      if (length <= nonceBytes + tagBytes || length > frameBytesMax) return;
      const sealed = await readExactly(socket, length);
      if (sealed === undefined) return;
      const { key } = await readPeers(this.options.file);
      const order = this.opened(key, sealed);
      if (order === undefined) return;
      const isTaken = await this.options.take(order).catch(() => false);
      socket.end(Buffer.from([isTaken ? 1 : 0]));
    } catch {
      // Whoever sent it is no replica of ours, or gone: nothing is owed to it.
    } finally {
      clearTimeout(deadline);
      if (!socket.writableEnded) socket.destroy();
    }
  }

  /** The order in a sealed frame; undefined where it is forged, old, seen before, or for another replica. */
  private opened(key: Buffer, sealed: Buffer): CancelOrder | undefined {
    const text = unseal(key, sealed);
    if (text === undefined) return undefined;
    const order = readOrder(text);
    const now = this.options.clock();
    if (order?.at === undefined || Math.abs(now - order.at) > ageMaxMs) return undefined;
    if (order.replica !== this.options.replica) return undefined;
    const nonce = sealed.toString("base64", 0, nonceBytes);
    for (const [old, until] of this.seen) {
      if (until > now) break;
      this.seen.delete(old);
    }
    if (this.seen.has(nonce) || this.seen.size >= seenMax) return undefined;
    this.seen.set(nonce, now + 2 * ageMaxMs);
    return order;
  }
}

async function readPeers(file: string): Promise<PeerFile> {
  const content: unknown = JSON.parse(await readFile(file, "utf8"));
  const { key, peers } = (content ?? {}) as { readonly key?: unknown; readonly peers?: unknown };
  if (typeof key !== "string" || !/^[0-9a-f]{64}$/i.test(key))
    throw new Error(`${file}: key must be 64 hex digits`);
  const addresses = new Map<number, { readonly host: string; readonly port: number }>();
  for (const [replica, address] of Object.entries(peers ?? {})) {
    const found = typeof address === "string" ? /^(.+):(\d{1,5})$/.exec(address) : null;
    if (!/^\d{1,3}$/.test(replica) || found === null)
      throw new Error(`${file}: peers must map numbers to HOST:PORT`);
    const [, host = "", port = ""] = found;
    addresses.set(Number(replica), { host: host.replace(/^\[(.*)\]$/, "$1"), port: Number(port) });
  }
  return { key: Buffer.from(key, "hex"), addresses };
}

function seal(key: Buffer, order: object): Buffer {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  const body = Buffer.concat([cipher.update(JSON.stringify(order), "utf8"), cipher.final()]);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(nonceBytes + body.length + tagBytes, 0);
  return Buffer.concat([length, nonce, body, cipher.getAuthTag()]);
}

function unseal(key: Buffer, sealed: Buffer): string | undefined {
  try {
    const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(0, nonceBytes), {
      authTagLength: tagBytes,
    });
    decipher.setAuthTag(sealed.subarray(-tagBytes));
    return (
      decipher.update(sealed.subarray(nonceBytes, -tagBytes), undefined, "utf8") + decipher.final("utf8")
    );
  } catch {
    // Sealed under another key, or changed: not a replica of ours.
    return undefined;
  }
}
