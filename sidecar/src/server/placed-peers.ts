/**
 * What the gateways that an operator placed for one resource say to each other. Both sides show certificates that name
 * their pods, signed by the operator alone, and what is said in TLS is one order and its answer:
 *
 *     +-----------------+-----------------------+
 *     | length (uint16) | the order, as JSON    |  →  0, or 1 and what was asked for
 *     +-----------------+-----------------------+
 *
 * A cancel request may arrive at any gateway, and only one has the session. Whom to ask is in the key: its number is that
 * of a pod. Of a denial whose first half another gateway may have given, the others are all asked at once: `kind` is
 * `denial`, and the answer holds its id; a gateway that does not know the kind closes, which is no. An order is never
 * handed on a second time: who takes it looks at its own and nowhere else.
 */
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { isIP } from "node:net";
import { connect, createServer, type Server, type TLSSocket } from "node:tls";
import { Allowance, type GatewayPeer, parseGatewayUri, peerNumber, peerProtocol } from "@sallyport/control";
import type { SignedCertificate } from "../control/index.ts";
import { readDenialOrder, readExactly, readOrder } from "./cancel-order.ts";
import { renewalOf } from "./certificate-life.ts";
import { type CancelOrder, type DenialOrder, denialMs } from "./shared-state.ts";

/** What became of a cancel request whose session another gateway may have. */
export type HandOver = "done" | "missed" | "limited";

/** What joins a gateway to its peers. */
export interface PlacedPeersOptions {
  /** `namespace/name`: gateways of other resources are strangers. */
  readonly resource: string;
  readonly listen: { readonly host: string; readonly port: number };
  /** Has the operator sign a key for this gateway's pod. */
  readonly certificate: (key: KeyObject) => Promise<SignedCertificate>;
  /** Cancels what an order names among this gateway's own sessions; false where it names none. */
  readonly take: (order: CancelOrder) => Promise<boolean>;
  /** Gives away the id of a denial of this gateway's own. */
  readonly give: (order: DenialOrder) => string | undefined;
  readonly onHandOver: (result: HandOver) => void;
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
  readonly limits?: Partial<PlacedPeersLimits>;
}

/** Bounds of the exchange. */
export interface PlacedPeersLimits {
  /** Dialling and TLS: the client's cancel waits for it, so a peer that is gone must not take long. */
  readonly dialMs: number;
  /** The order itself, which lasts until the server has taken the cancel. */
  readonly exchangeMs: number;
  /** Everything about a denial: a client waits for it, and no answer is one. */
  readonly denialMs: number;
  /** Orders a second, in each direction; a burst may be twice as many. */
  readonly ordersPerSecond: number;
  readonly retryMs: number;
}

const defaultLimits: PlacedPeersLimits = {
  dialMs: 2_000,
  exchangeMs: 12_000,
  denialMs,
  ordersPerSecond: 50,
  retryMs: 5_000,
};
const atOnceMax = 64;
const frameBytesMax = 2048;
const answerBytesMax = 64;
/** Gateways that are asked for one cancel request: of 256 numbers few are had by more than one. */
const askedMax = 4;
const idForm = /^[0-9a-f]{12}$/;

/** Hands orders to other gateways, and takes theirs. */
export class PlacedPeers {
  readonly #options: PlacedPeersOptions;
  readonly #limits: PlacedPeersLimits;
  readonly #key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  readonly #leaving: Allowance;
  readonly #coming: Allowance;
  readonly #sockets = new Set<TLSSocket>();
  #authorities = "";
  #peers: readonly GatewayPeer[] = [];
  #certificate: { readonly pem: string; readonly renewAt: number } | undefined;
  #server: Server | undefined;
  #handing = 0;
  #isBusy = false;
  #isClosed = false;
  #triedAt = Number.NEGATIVE_INFINITY;
  #hasWarned = false;

  constructor(options: PlacedPeersOptions) {
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
    const { ordersPerSecond: perSecond } = this.#limits;
    this.#leaving = new Allowance({ perSecond, burst: 2 * perSecond });
    this.#coming = new Allowance({ perSecond, burst: 2 * perSecond });
  }

  /** Where other gateways reach this one; undefined while they do not. */
  get port(): number | undefined {
    const address = this.#server?.address();
    return typeof address === "object" && address !== null ? address.port : undefined;
  }

  /** Takes over who the gateways are; `own` is the pod of this one. */
  adopt(own: string, authorities: string, peers: readonly GatewayPeer[]): void {
    const isRotated = authorities !== this.#authorities;
    this.#authorities = authorities;
    this.#peers = peers.filter(
      ({ podUid, host, port }) => podUid !== own && isIP(host) !== 0 && port > 0 && port < 65_536,
    );
    if (isRotated) this.#useCertificate();
    this.tick();
  }

  /** To be called now and then: asks for what is missing. */
  tick(): void {
    const isDue = this.#certificate === undefined || Date.now() >= this.#certificate.renewAt;
    if (this.#authorities === "" || this.#isBusy || this.#isClosed || !(isDue || this.#server === undefined))
      return;
    if (performance.now() - this.#triedAt < this.#limits.retryMs) return;
    this.#isBusy = true;
    this.#triedAt = performance.now();
    void this.#prepare(isDue).finally(() => {
      this.#isBusy = false;
    });
  }

  /** Hands an order to the gateway that it names; false where there is none, it does not answer, or it has no such session. */
  async handOver(order: CancelOrder): Promise<boolean> {
    const asked = this.#peers.filter(({ podUid }) => peerNumber(podUid) === order.replica).slice(0, askedMax);
    if (asked.length === 0 || this.#certificate === undefined) return false;
    if (this.#handing >= atOnceMax || !this.#leaving.take()) {
      this.#options.onHandOver("limited");
      return false;
    }
    this.#handing += 1;
    try {
      await Promise.any(asked.map((peer) => this.#ask(peer, order, hasTaken)));
      this.#options.onHandOver("done");
      return true;
    } catch {
      // None of them has it, or none could be asked: a cancel request has no answer to say which.
      this.#options.onHandOver("missed");
      return false;
    } finally {
      this.#handing -= 1;
    }
  }

  /** Has whichever gateway denied it a moment ago give away its id; undefined where none has it, or says so in time. */
  async takeDenial({ resource, digest }: DenialOrder): Promise<string | undefined> {
    if (this.#certificate === undefined) return undefined;
    const order = { kind: "denial", resource, digest };
    const signal = AbortSignal.timeout(this.#limits.denialMs);
    const asked = this.#peers
      .filter(() => this.#handing < atOnceMax && this.#leaving.take())
      .map(async (peer) => {
        this.#handing += 1;
        try {
          return await this.#ask(peer, order, idIn, signal);
        } finally {
          this.#handing -= 1;
        }
      });
    return Promise.any(asked).catch(() => undefined);
  }

  close(): void {
    this.#isClosed = true;
    this.#server?.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  /** What the peer answers; rejects where it cannot be asked, or `read` finds nothing in what it says. */
  #ask<T>(
    { podUid, host, port }: GatewayPeer,
    order: object,
    read: (answer: Buffer) => T | undefined,
    signal?: AbortSignal,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const socket = connect({
        ...this.#context(),
        ...{ host, port, ALPNProtocols: [peerProtocol] },
        // An address says nothing: who is asked is the pod, and it alone learns what is asked.
        checkServerIdentity: (_host, { subjectaltname }) =>
          this.#podNamed(subjectaltname) === podUid ? undefined : new Error("another pod"),
      });
      const { dialMs, exchangeMs } = this.#limits;
      let deadline = setTimeout(() => socket.destroy(), dialMs);
      const given: Buffer[] = [];
      let givenBytes = 0;
      const giveUp = () => socket.destroy();
      signal?.addEventListener("abort", giveUp, { once: true });
      this.#sockets.add(socket);
      socket.once("secureConnect", () => {
        clearTimeout(deadline);
        deadline = setTimeout(() => socket.destroy(), exchangeMs);
        if (socket.alpnProtocol === peerProtocol) socket.write(frameOf(order));
        else socket.destroy();
      });
      socket.on("data", (chunk: Buffer) => {
        given.push(chunk);
        givenBytes += chunk.length;
        if (givenBytes > answerBytesMax) socket.destroy();
      });
      socket.on("error", () => undefined);
      socket.once("close", () => {
        clearTimeout(deadline);
        signal?.removeEventListener("abort", giveUp);
        this.#sockets.delete(socket);
        const answer = read(Buffer.concat(given));
        if (answer === undefined) reject(new Error("not given"));
        else resolve(answer);
      });
    });
  }

  async #serve(socket: TLSSocket): Promise<void> {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    socket.on("error", () => undefined);
    const { dialMs, exchangeMs } = this.#limits;
    let deadline = setTimeout(() => socket.destroy(), dialMs);
    try {
      if (socket.alpnProtocol !== peerProtocol || !this.#coming.take()) return;
      const named = this.#podNamed(socket.getPeerX509Certificate()?.subjectAltName);
      // A pod that is gone keeps its certificate for days: only who the operator still lists is one of us.
      if (!this.#peers.some(({ podUid }) => podUid === named)) {
        this.#options.log.warn({ resource: this.#options.resource }, "a stranger's order was refused");
        return;
      }
      const length = (await readExactly(socket, 2))?.readUInt16BE(0) ?? 0;
      if (length === 0 || length > frameBytesMax) return;
      const text = (await readExactly(socket, length))?.toString("utf8") ?? "";
      clearTimeout(deadline);
      deadline = setTimeout(() => socket.destroy(), exchangeMs);
      const answer = await this.#answerTo(text);
      if (answer !== undefined) socket.end(answer);
    } catch {
      // What it sent is no order: nothing is owed to it.
    } finally {
      clearTimeout(deadline);
      if (!socket.writableEnded) socket.destroy();
    }
  }

  /** Undefined where the text is no order, or one of another resource. */
  async #answerTo(text: string): Promise<Buffer | undefined> {
    const { resource, take, give } = this.#options;
    const denial = readDenialOrder(text);
    if (denial !== undefined) {
      if (denial.resource !== resource) return undefined;
      const id = give(denial);
      return id === undefined ? Buffer.from([0]) : Buffer.from(`\u0001${id}`);
    }
    const order = readOrder(text);
    if (order === undefined || order.resource !== resource) return undefined;
    const isTaken = await take(order).catch(() => false);
    return Buffer.from([isTaken ? 1 : 0]);
  }

  /** The pod that a certificate names, where its chain is checked and it is a gateway of this resource. */
  #podNamed(subjectAltName: string | undefined): string | undefined {
    const [, uri = ""] = /^URI:([^,"]+)$/.exec(subjectAltName ?? "") ?? [];
    const name = parseGatewayUri(uri);
    const isOurs = name !== undefined && `${name.namespace}/${name.resource}` === this.#options.resource;
    return isOurs ? name.podUid : undefined;
  }

  async #prepare(isDue: boolean): Promise<void> {
    const { certificate, log, resource } = this.#options;
    try {
      if (isDue) {
        const { certificate: pem } = await certificate(this.#key);
        this.#certificate = { pem, renewAt: renewalOf(pem) };
        this.#useCertificate();
      }
      if (this.#server === undefined && !this.#isClosed) this.#server = await this.#listen();
      this.#hasWarned = false;
    } catch (error) {
      const cause = error instanceof Error ? error.message : "failed";
      if (!this.#hasWarned)
        log.warn({ resource, cause }, "the gateways of the resource cannot ask each other");
      this.#hasWarned = true;
    }
  }

  async #listen(): Promise<Server> {
    const { listen, resource, log } = this.#options;
    const server = createServer({
      ...this.#context(),
      requestCert: true,
      rejectUnauthorized: true,
      ALPNProtocols: [peerProtocol],
      handshakeTimeout: this.#limits.dialMs,
    });
    server.maxConnections = atOnceMax;
    server.on("tlsClientError", () => undefined);
    server.on("secureConnection", (socket) => void this.#serve(socket));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(listen, resolve);
    });
    server.on("error", () => undefined);
    if (this.#isClosed) server.close();
    log.info({ resource }, "the gateways of the resource can ask each other");
    return server;
  }

  #useCertificate(): void {
    if (this.#server === undefined || this.#certificate === undefined) return;
    this.#server.setSecureContext(this.#context());
  }

  #context() {
    const key = this.#key.export({ type: "pkcs8", format: "pem" });
    return {
      key,
      ...(this.#certificate && { cert: this.#certificate.pem }),
      ca: this.#authorities,
      minVersion: "TLSv1.3",
    } as const;
  }
}

const hasTaken = (answer: Buffer) => (answer[0] === 1 ? true : undefined);

function idIn(answer: Buffer): string | undefined {
  const id = answer.toString("latin1", 1);
  return answer[0] === 1 && idForm.test(id) ? id : undefined;
}

function frameOf(order: object): Buffer {
  const body = Buffer.from(JSON.stringify(order));
  const length = Buffer.alloc(2);
  length.writeUInt16BE(body.length);
  return Buffer.concat([length, body]);
}
