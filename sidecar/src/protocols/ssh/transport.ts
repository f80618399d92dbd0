import { createSecretKey } from "node:crypto";
import type { Socket } from "node:net";
import { GatewayError } from "../../wire/gateway-error.ts";
import { certifiedKeysOf } from "./certified-keys.ts";
import { hybridName, withHybridExchange } from "./hybrid-exchange.ts";
import { clientSignatureAlgorithms } from "./keys.ts";
import { type LibraryHostKey, type LibraryProtocol, Protocol, sendPacket } from "./library.ts";
import { made, message } from "./messages.ts";
import { sealed } from "./seal.ts";

/** Modern algorithms only; no SHA-1, no CBC. ChaCha20 is left out because ssh2's is WASM that must be loaded first. */
const ciphers = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr", "aes128-ctr"];
const macs = ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256"];
const kex = [
  hybridName,
  "curve25519-sha256",
  "curve25519-sha256@libssh.org",
  "ecdh-sha2-nistp256",
  "ecdh-sha2-nistp384",
  "ecdh-sha2-nistp521",
  "diffie-hellman-group16-sha512",
  "diffie-hellman-group14-sha256",
];
const direction = { cipher: ciphers, mac: macs, compress: ["none"], lang: [] };

/** Bytes after which keys are exchanged anew (RFC 4253, section 9). */
const rekeyBytes = 1024 ** 3;
/** Bytes that one side may owe the system before the other side is not read any more. */
const owedBytesMax = 1024 * 1024;
/** Messages that wait for a key exchange to end. */
const queuedMessagesMax = 4096;

/** Key exchanges before a login: clients need one. */
const handshakesBeforeLoginMax = 3;
/** Key exchanges in a second; a peer that wants more waits, because each costs as much as a thousand packets. */
const handshakesPerSecond = 50;

/** Who takes what arrives; it changes when a login is over. */
export interface Receiver {
  /** Every message but those of the transport itself. The buffer is the receiver's to keep. */
  readonly message: (payload: Buffer) => void;
  /** Key exchange is done for the first time. */
  readonly ready?: () => void;
  /** The connection is over; undefined: the peer ended it. Said once. */
  readonly ended: (error: Error | undefined) => void;
}

/** One side of a connection, before its key exchange. */
export interface TransportOptions {
  readonly socket: Socket;
  /** Server: our host keys by algorithm. Client: the algorithms that it takes, and what a key or certificate must sign by. */
  readonly role:
    | { readonly kind: "server"; readonly hostKeys: Readonly<Record<string, LibraryHostKey>> }
    | {
        readonly kind: "client";
        /** Undefined where the server is none that is expected. */
        readonly expectedKey: (shown: Buffer) => Buffer | undefined;
        readonly keyAlgorithms: readonly string[];
      };
  readonly receiver: Receiver;
}

/** One encrypted connection: packets in, packets out, keys exchanged anew when it is time. */
export class Transport {
  readonly socket: Socket;
  readonly #protocol: LibraryProtocol;
  /** Replaced by whoever goes on with the connection. */
  receiver: Receiver;
  #isOver = false;
  #isReady = false;
  #bytesSinceKeys = 0;
  #isLoggedIn = false;
  #isGathering = false;
  #handshakes = 0;
  #handshakesSinceMs = performance.now();
  /** What the peer said of itself: `SSH-2.0-OpenSSH_9.2`. */
  peerVersion = "";
  bytesIn = 0;

  constructor(options: TransportOptions) {
    const { socket, role } = options;
    this.socket = socket;
    this.receiver = options.receiver;
    // Whoever dials has chosen the other side: only clients that come have to log in first.
    this.#isLoggedIn = role.kind === "client";
    const common = {
      ident: "Sallyport",
      onWrite: (packet: Buffer) => void (socket.writable && socket.write(packet)),
      onError: (error: Error) => this.#over(error),
      onHeader: ({ identRaw }: { readonly identRaw: string }) => {
        // It reaches lists of sessions: nothing that a terminal would obey.
        this.peerVersion = identRaw.slice(0, 255).replace(/[^\x20-\x7e]/g, "?");
      },
      messageHandlers: { DISCONNECT: () => this.#over(undefined) },
    };
    const offer = (keys: readonly string[]) => ({
      // The library adds markers of strict key exchange to this very list.
      kex: [...kex],
      serverHostKey: keys,
      cs: direction,
      sc: direction,
    });
    const known = (protocol: LibraryProtocol) => {
      withHybridExchange(protocol, role.kind === "server");
      return protocol;
    };
    this.#protocol =
      role.kind === "server"
        ? known(
            new Protocol({
              ...common,
              server: true,
              hostKeys: role.hostKeys,
              offer: offer(Object.keys(role.hostKeys)),
            }),
          )
        : certifiedKeysOf(role.expectedKey, (hostVerifier) =>
            known(new Protocol({ ...common, hostVerifier, offer: offer(role.keyAlgorithms) })),
          );
    this.#tapInto(this.#protocol, role.kind === "server");
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("close", () => this.#over(undefined));
    socket.on("error", () => this.#over(undefined));
    this.#protocol.start();
  }

  /** What signatures of this connection are bound to. */
  get sessionId(): Buffer {
    return this.#protocol._kex?.sessionID ?? Buffer.alloc(0);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** The number of the packet that has just arrived, as SSH_MSG_UNIMPLEMENTED names it. */
  get lastSequence(): number {
    return ((this.#protocol._decipher?.inSeqno ?? 1) - 1) >>> 0;
  }

  /** True where the other side should not be read until `drain`. */
  get isFull(): boolean {
    return (
      this.socket.writableLength > owedBytesMax || (this.#protocol._queue?.length ?? 0) > queuedMessagesMax
    );
  }

  send(payload: Uint8Array, more?: Uint8Array): void {
    if (this.#isOver || !this.socket.writable) return;
    this.#isLoggedIn ||= payload[0] === message.userauthSuccess;
    const length = payload.length + (more?.length ?? 0);
    this.#gather();
    const pieces = sealed(this.#protocol, payload, more);
    if (pieces === undefined) this.#sendByLibrary(payload, more, length);
    else for (const piece of pieces) this.socket.write(piece);
    this.#count(length);
  }

  #sendByLibrary(payload: Uint8Array, more: Uint8Array | undefined, length: number): void {
    const { write } = this.#protocol._packetRW;
    const start = write.allocStart;
    const packet = write.alloc(length);
    packet.set(payload, start);
    if (more !== undefined) packet.set(more, start + payload.length);
    sendPacket(this.#protocol, write.finalize(packet));
  }

  /** The library writes each packet in three pieces: all of one turn go to the system at once. */
  #gather(): void {
    if (this.#isGathering) return;
    this.#isGathering = true;
    this.socket.cork();
    process.nextTick(() => {
      this.#isGathering = false;
      this.socket.uncork();
    });
  }

  /** Begins a key exchange; what is sent meanwhile waits for its end. */
  exchangeKeys(): void {
    this.#protocol.rekey();
  }

  /** Says why and closes; what was written still arrives. */
  disconnect(reason: number, text: string): void {
    if (this.#isOver) return;
    this.send(made(message.disconnect, reason, text, ""));
    this.#over(undefined);
  }

  /** Ends without a word. */
  destroy(): void {
    this.#over(undefined);
    this.socket.destroy();
  }

  /** The library hands over what it would dispatch itself: everything beyond the transport layer's own messages. */
  #tapInto(protocol: LibraryProtocol, isServer: boolean): void {
    const own = protocol._onPayload;
    protocol._onPayload = (payload) => {
      const type = payload[0] ?? 0;
      if (
        type === message.serviceRequest ||
        type === message.serviceAccept ||
        type >= message.userauthRequest
      ) {
        // The library makes a new buffer for each packet and lets go of it.
        if (!this.#isOver) this.receiver.message(payload);
        return undefined;
      }
      if (type === message.extInfo) return undefined;
      return own(payload);
    };
    const completed = protocol._onHandshakeComplete;
    protocol._onHandshakeComplete = (...all) => {
      const wantsExtInfo = isServer && !this.#isReady && protocol._kex?.remoteExtInfoEnabled === true;
      // The library's own list misses a comma, so that rsa-sha2-512 is no entry of it.
      if (wantsExtInfo && protocol._kex !== undefined) protocol._kex.remoteExtInfoEnabled = false;
      keepKeys(protocol);
      // The library would keep the secret halves until keys are exchanged anew.
      if (protocol._kex !== undefined) protocol._kex._keys = undefined;
      completed(...all);
      this.#bytesSinceKeys = 0;
      this.#countHandshake(isServer);
      if (wantsExtInfo)
        this.send(made(message.extInfo, 1, "server-sig-algs", clientSignatureAlgorithms.join(",")));
      if (this.#isReady) return;
      this.#isReady = true;
      this.receiver.ready?.();
    };
  }

  #countHandshake(isServer: boolean): void {
    const now = performance.now();
    if (this.#isLoggedIn && now - this.#handshakesSinceMs >= 1000) {
      this.#handshakesSinceMs = now;
      this.#handshakes = 0;
    }
    this.#handshakes += 1;
    if (isServer && !this.#isLoggedIn && this.#handshakes > handshakesBeforeLoginMax) {
      this.#over(new Error("keys are exchanged again and again before any login"));
    } else if (this.#handshakes > handshakesPerSecond) {
      this.socket.pause();
      setTimeout(() => this.socket.resume(), 1000 - (now - this.#handshakesSinceMs)).unref();
    }
  }

  #read(chunk: Buffer): void {
    if (this.#isOver) return;
    this.bytesIn += chunk.length;
    try {
      this.socket.cork();
      this.#protocol.parse(chunk, 0, chunk.length);
      this.#count(chunk.length);
    } catch (cause) {
      this.#over(cause instanceof Error ? cause : new Error("protocol violation", { cause }));
    } finally {
      this.socket.uncork();
    }
  }

  #count(bytes: number): void {
    this.#bytesSinceKeys += bytes;
    if (this.#bytesSinceKeys < rekeyBytes || this.#isOver || !this.#isReady) return;
    this.#bytesSinceKeys = 0;
    this.exchangeKeys();
  }

  #over(error: Error | undefined): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.receiver.ended(error);
  }
}

/**
 * Keys as objects. As bytes they are looked at anew for each packet, because the library makes a cipher or a MAC for
 * each: that took 110 µs for 32 KB with AES-GCM, and 26 µs with an object.
 */
function keepKeys({ _cipher, _decipher }: LibraryProtocol): void {
  for (const side of [_cipher, _decipher]) {
    for (const name of ["_encKey", "_decipherKey", "_macKey"]) {
      const key = side?.[name];
      if (side !== undefined && key instanceof Uint8Array) side[name] = createSecretKey(key);
    }
  }
}

/** A failure of the peer's making, for reports. */
export function violation(cause: unknown): GatewayError {
  return cause instanceof GatewayError ? cause : new GatewayError("protocolViolation", { cause });
}
