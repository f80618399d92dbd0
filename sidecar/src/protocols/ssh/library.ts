/**
 * The parts of ssh2 that the gateway uses: packet framing, ciphers and key exchange. Its channels and its server are
 * not used, because a gateway hands messages on as they came: windows, terminal modes and exit signals then need no
 * translation. The version is pinned exactly; these are inner modules.
 */
import keyParserModule from "ssh2/lib/protocol/keyParser.js";
import protocolModule from "ssh2/lib/protocol/Protocol.js";
import utilsModule from "ssh2/lib/protocol/utils.js";

/** A host key as ssh2's key exchange asks for it. */
export interface LibraryHostKey {
  readonly type: string;
  getPublicSSH(): Buffer;
  /** In the form that Node's `sign` gives. */
  sign(data: Buffer, hash: string | undefined): Buffer;
}

/** One key exchange of ssh2's. */
export interface LibraryKeyExchange {
  readonly sessionID: Buffer;
  remoteExtInfoEnabled: boolean;
  readonly negotiated: { serverHostKey: string };
  /** What the server has shown: first hashed, then used to verify the signature. */
  _hostKey: Buffer | undefined;
  /** The peer's offer, for the hash. */
  _remoteKexinit: Buffer;
  /** Secret halves of an exchange by X25519; the library keeps them until the next one. */
  _keys?: unknown;
  /** Our half, which the peer gets. */
  getPublicKey(): Buffer;
  /** The peer's half as it goes into the hash. */
  convertPublicKey(bytes: Buffer): Buffer;
  computeSecret(theirs: Buffer): Buffer | Error;
}

/** Tells of each key exchange before anything of it is sent. */
export function onKeyExchange(
  protocol: LibraryProtocol,
  begins: (exchange: LibraryKeyExchange) => void,
): void {
  const before = Object.getOwnPropertyDescriptor(protocol, "_kex");
  let current = protocol._kex;
  Object.defineProperty(protocol, "_kex", {
    configurable: true,
    get: () => current,
    set: (exchange: LibraryKeyExchange | undefined) => {
      before?.set?.(exchange);
      current = exchange;
      if (exchange !== undefined) begins(exchange);
    },
  });
}

/** ssh2's `Protocol`: one side of one connection. */
export interface LibraryProtocol {
  start(): void;
  parse(chunk: Buffer, start: number, end: number): void;
  rekey(): void;
  disconnect(reason: number): void;
  _onPayload: (payload: Buffer) => unknown;
  _onPacket: () => void;
  _onHandshakeComplete: (...all: unknown[]) => void;
  _kex?: LibraryKeyExchange | undefined;
  readonly _kexinit?: unknown;
  readonly _queue?: readonly unknown[];
  readonly _strictMode?: boolean;
  readonly _cipher?: Record<string, unknown>;
  readonly _decipher?: Record<string, unknown> & { readonly inSeqno: number };
  readonly _offer: { readonly lists: { readonly kex: { array: readonly string[] } } };
  readonly _packetRW: {
    readonly read: { read(payload: Buffer): Buffer };
    readonly write: {
      readonly allocStart: number;
      alloc(size: number): Buffer;
      finalize(packet: Buffer): Buffer;
    };
  };
}

/** What is offered in the key exchange. */
interface Algorithms {
  readonly kex: readonly string[];
  readonly serverHostKey: readonly string[];
  readonly cs: Direction;
  readonly sc: Direction;
}
interface Direction {
  readonly cipher: readonly string[];
  readonly mac: readonly string[];
  readonly compress: readonly string[];
  readonly lang: readonly string[];
}

/** How a `LibraryProtocol` is made. */
export interface LibraryOptions {
  readonly server?: boolean;
  readonly hostKeys?: Readonly<Record<string, LibraryHostKey>>;
  readonly offer: Algorithms;
  readonly ident: string;
  readonly onWrite: (packet: Buffer) => void;
  readonly onError: (error: Error) => void;
  readonly onHeader: (header: { readonly identRaw: string; readonly greeting: string }) => void;
  readonly hostVerifier?: (key: Buffer) => boolean;
  readonly messageHandlers: Readonly<Record<string, (...all: never[]) => void>>;
}

/** A private key in a form of OpenSSH's, as ssh2 reads it. */
export interface ParsedKey {
  getPrivatePEM(): string;
}

/** The library's class, which its types do not know. */
export const Protocol = protocolModule as new (options: LibraryOptions) => LibraryProtocol;

export const { sendPacket } = utilsModule as {
  readonly sendPacket: (protocol: LibraryProtocol, packet: Buffer) => boolean;
};

export const { parseKey } = keyParserModule as {
  readonly parseKey: (text: string) => ParsedKey | ParsedKey[] | Error;
};
