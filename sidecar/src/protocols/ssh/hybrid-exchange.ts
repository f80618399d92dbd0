/**
 * Key exchange by ML-KEM-768 and X25519 together (draft-ietf-sshm-mlkem-hybrid-kex), which ssh2 does not know: what is
 * recorded today stays secret when one of the two falls. OpenSSH 9.9 and newer ask for it first.
 *
 *     KEX_HYBRID_INIT    string C_INIT = ML-KEM's public key (1184) || X25519's public key (32)
 *     KEX_HYBRID_REPLY   string K_S   string S_REPLY = ML-KEM's ciphertext (1088) || X25519's public key (32)   string signature
 *     K = SHA-256(K_PQ || K_CL), as a string and no mpint, in the exchange hash and the keys
 *
 * But for these three it is the library's exchange by X25519 and SHA-256, message by message. So the library is told that
 * name where it chooses, and hashes what the peers have really said.
 */
import {
  createHash,
  createPublicKey,
  decapsulate,
  diffieHellman,
  encapsulate,
  generateKeyPairSync,
  type KeyObject,
} from "node:crypto";
import { type LibraryKeyExchange, type LibraryProtocol, onKeyExchange } from "./library.ts";
import { encoded, MalformedMessage, Reader } from "./messages.ts";

/** What peers call it. */
export const hybridName = "mlkem768x25519-sha256";
const standIn = "curve25519-sha256";

const kexInit = 20;
/** A KEXINIT begins with its number and 16 random bytes; then come the names of key exchanges. */
const namesAt = 17;

/** Teaches a protocol, whose offer has the name, to exchange keys so. */
export function withHybridExchange(protocol: LibraryProtocol, isServer: boolean): void {
  const { kex } = protocol._offer.lists;
  const ours = kex.array;
  // The offer itself is bytes by now, and says the real name.
  kex.array = ours.map(standingIn);
  let theirs: Buffer | undefined;
  const reader = {
    cleanup: () => undefined,
    read: (payload: Buffer) => {
      if (payload[0] !== kexInit) return payload;
      theirs = payload;
      return withStandIn(payload);
    },
  };
  // The library sets a new one for each exchange, which does nothing: compression is not offered.
  Object.defineProperty(protocol._packetRW, "read", { get: () => reader, set: () => undefined });
  onKeyExchange(protocol, (exchange) => {
    if (theirs === undefined) throw new MalformedMessage("keys are exchanged without being asked for");
    exchange._remoteKexinit = theirs;
    const [client, server] = isServer ? [namesIn(theirs), ours] : [ours, namesIn(theirs)];
    if (client.find((name) => server.includes(name)) === hybridName) exchangeBoth(exchange, isServer);
  });
}

const standingIn = (name: string) => (name === hybridName ? standIn : name);

const namesIn = (payload: Buffer): readonly string[] =>
  new Reader(payload, namesAt).string().toString("latin1").split(",");

function withStandIn(payload: Buffer): Buffer {
  const names = namesIn(payload);
  if (!names.includes(hybridName)) return payload;
  const reader = new Reader(payload, namesAt);
  reader.string();
  const told = encoded(Buffer.from(names.map(standingIn).join(","), "latin1"), { raw: reader.rest });
  return Buffer.concat([payload.subarray(0, namesAt), told]);
}

const publicBytes = { x25519: 32, mlKem: 1184 } as const;
const ciphertextBytes = 1088;
/** What stands before a raw public key in its SubjectPublicKeyInfo. */
const prefixes = {
  x25519: Buffer.from("302a300506032b656e032100", "hex"),
  mlKem: Buffer.from("308204b2300b0609608648016503040402038204a100", "hex"),
} as const;

function exchangeBoth(exchange: LibraryKeyExchange, isServer: boolean): void {
  // Here they are forgotten with the library's own when the exchange is over.
  const keys = {
    x25519: generateKeyPairSync("x25519"),
    ...(isServer ? {} : { mlKem: generateKeyPairSync("ml-kem-768") }),
  };
  exchange._keys = keys;
  let ciphertext: Uint8Array | undefined;
  exchange.convertPublicKey = (bytes) => bytes;
  // The library of a server asks for the secret first, and then for what to send.
  exchange.getPublicKey = () => {
    const own = keys.mlKem === undefined ? ciphertext : rawOf(keys.mlKem.publicKey, publicBytes.mlKem);
    if (own === undefined) throw new MalformedMessage("nothing was encapsulated");
    return Buffer.concat([own, rawOf(keys.x25519.publicKey, publicBytes.x25519)]);
  };
  exchange.computeSecret = (theirs) => {
    try {
      const at = theirs.length - publicBytes.x25519;
      if (at !== (isServer ? publicBytes.mlKem : ciphertextBytes))
        throw new MalformedMessage("of that length");
      const [first, second] = [theirs.subarray(0, at), theirs.subarray(at)];
      const publicKey = keyOf("x25519", second);
      const classic = diffieHellman({ privateKey: keys.x25519.privateKey, publicKey });
      let quantum: Uint8Array;
      if (keys.mlKem === undefined) {
        const made = encapsulate(keyOf("mlKem", first));
        ciphertext = made.ciphertext;
        quantum = made.sharedKey;
      } else quantum = decapsulate(keys.mlKem.privateKey, first);
      return createHash("sha256").update(quantum).update(classic).digest();
    } catch (error) {
      // The library ends the connection with it.
      return error instanceof Error ? error : new Error("no secret", { cause: error });
    }
  };
}

const rawOf = (key: KeyObject, bytes: number) => key.export({ type: "spki", format: "der" }).subarray(-bytes);

const keyOf = (type: keyof typeof prefixes, bytes: Uint8Array) =>
  createPublicKey({ key: Buffer.concat([prefixes[type], bytes]), format: "der", type: "spki" });
