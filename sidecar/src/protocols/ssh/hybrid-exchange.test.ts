import { generateKeyPairSync } from "node:crypto";
import { expect, test } from "vitest";
import { hybridName, withHybridExchange } from "./hybrid-exchange.ts";
import { hostKeysOf, type SigningKey, signingKeyOf } from "./keys.ts";
import { type LibraryProtocol, Protocol } from "./library.ts";
import { Reader } from "./messages.ts";

const hostKey = signingKeyOf(
  generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
) as SigningKey;

const classic = "curve25519-sha256";
const [kexInit, exchangeInit, exchangeReply] = [20, 30, 31];

interface Exchanged {
  readonly said: string;
  /** Messages of the first exchange, in clear: their number, and what they hold. */
  readonly messages: readonly Buffer[];
}

/** Exchanges keys twice; `tamper` changes what goes over the wire before there are keys. */
function exchange(
  offers: { readonly client: readonly string[]; readonly server: readonly string[] },
  tamper: (payload: Buffer, from: "client" | "server") => Buffer = (payload) => payload,
): Promise<Exchanged> {
  const messages: Buffer[] = [];
  const direction = { cipher: ["aes128-gcm@openssh.com"], mac: [], compress: ["none"], lang: [] };
  const offer = { serverHostKey: ["ssh-ed25519"], cs: direction, sc: direction };
  return new Promise((resolve) => {
    const settle = (said: string) => resolve({ said, messages });
    const common = {
      ident: "test",
      onHeader: () => undefined,
      messageHandlers: {},
      onError: (error: Error) => settle(error.message),
    };
    let isInClear = true;
    const deliver = (from: "client" | "server", to: () => LibraryProtocol, bytes: Buffer) => {
      let sent = Buffer.from(bytes);
      // `uint32 length, byte padding length, payload, padding`
      if (isInClear && sent.length > 5 && [kexInit, exchangeInit, exchangeReply].includes(sent[5] ?? 0)) {
        const payload = sent.subarray(5, 4 + sent.readUInt32BE(0) - (sent[4] ?? 0));
        messages.push(payload);
        const changed = tamper(payload, from);
        const padding = Buffer.alloc(4 + 8 - ((changed.length + 9) % 8));
        const head = Buffer.alloc(5);
        head.writeUInt32BE(1 + changed.length + padding.length);
        head[4] = padding.length;
        sent = Buffer.concat([head, changed, padding]);
      }
      setImmediate(() => {
        try {
          to().parse(sent, 0, sent.length);
        } catch (error) {
          settle((error as Error).message);
        }
      });
    };
    const host: LibraryProtocol = new Protocol({
      ...common,
      server: true,
      offer: { ...offer, kex: [...offers.server] },
      hostKeys: hostKeysOf(hostKey),
      onWrite: (bytes) => deliver("server", () => client, bytes),
    });
    const client: LibraryProtocol = new Protocol({
      ...common,
      offer: { ...offer, kex: [...offers.client] },
      hostVerifier: (shown) => shown.equals(hostKey.blob),
      onWrite: (bytes) => deliver("client", () => host, bytes),
    });
    if (offers.server.includes(hybridName)) withHybridExchange(host, true);
    if (offers.client.includes(hybridName)) withHybridExchange(client, false);
    let times = 0;
    const completed = client._onHandshakeComplete;
    client._onHandshakeComplete = (...all) => {
      isInClear = false;
      completed(...all);
      times += 1;
      if (times === 2) settle("keys are exchanged, twice");
      else setImmediate(() => client.rekey());
    };
    client.start();
    host.start();
  });
}

/** Bytes of the client's and of the server's half. */
function halves(messages: readonly Buffer[]): readonly number[] {
  const init = messages.find(([type]) => type === exchangeInit);
  const reply = messages.find(([type]) => type === exchangeReply);
  if (init === undefined || reply === undefined) throw new Error("no exchange");
  const replied = new Reader(reply, 1);
  replied.string();
  return [new Reader(init, 1).string().length, replied.string().length];
}

test.each([
  ["both", [hybridName, classic], [hybridName, classic], [1216, 1120]],
  ["a server that prefers another", [hybridName, classic], [classic, hybridName], [1216, 1120]],
  ["peers that know nothing else", [hybridName], [hybridName], [1216, 1120]],
  ["a client that prefers another", [classic, hybridName], [hybridName, classic], [32, 32]],
  ["a client that does not know it", [classic], [hybridName, classic], [32, 32]],
  ["a server that does not know it", [hybridName, classic], [classic], [32, 32]],
  ["a client with another one first", ["ecdh-sha2-nistp256", hybridName], [hybridName], [1216, 1120]],
])("keys are exchanged with %s", async (_, client, server, bytes) => {
  const { said, messages } = await exchange({ client, server });
  expect(said).toBe("keys are exchanged, twice");
  expect(halves(messages)).toEqual(bytes);
});

const both = { client: [hybridName, classic], server: [hybridName, classic] };

test("who stands between cannot take the name out of what the peers offer", async () => {
  for (const victim of ["client", "server"] as const) {
    const { said } = await exchange(both, (payload, from) => {
      if (from !== victim || payload[0] !== kexInit) return payload;
      // Another name of the same length, which nobody knows.
      return Buffer.from(
        payload.toString("latin1").replace(hybridName, "x".repeat(hybridName.length)),
        "latin1",
      );
    });
    expect(said, victim).not.toContain("twice");
  }
  // Nor in both, so that the two choose alike.
  const { said } = await exchange(both, (payload) =>
    payload[0] === kexInit
      ? Buffer.from(payload.toString("latin1").replace(hybridName, "x".repeat(hybridName.length)), "latin1")
      : payload,
  );
  expect(said).toMatch(/signature verification failed/);
});

test.each([
  ["the client's ML-KEM key", exchangeInit, 50],
  ["the client's X25519 key", exchangeInit, 5 + 1184 + 3],
  ["the server's ciphertext", exchangeReply, 1 + 4 + 51 + 4 + 20],
  ["the server's X25519 key", exchangeReply, 1 + 4 + 51 + 4 + 1088 + 20],
] as const)("a bit changed in %s ends the exchange", async (_, type, at) => {
  const { said } = await exchange(both, (payload) => {
    if (payload[0] !== type) return payload;
    const changed = Buffer.from(payload);
    changed[at] = (changed[at] ?? 0) ^ 1;
    return changed;
  });
  expect(said).not.toContain("twice");
  expect(said).toMatch(/signature verification failed|Error while computing DH secret/);
});

test.each([0, 32, 1184, 1215, 1217, 2000])("a half of %i bytes ends the exchange", async (length) => {
  const { said } = await exchange(both, (payload) => {
    if (payload[0] !== exchangeInit) return payload;
    const head = Buffer.alloc(5);
    head[0] = exchangeInit;
    head.writeUInt32BE(length, 1);
    return Buffer.concat([head, Buffer.alloc(length, 7)]);
  });
  expect(said).toMatch(/Error while computing DH secret/);
});

test("an X25519 key of nothing but zeros, whose secret anybody knows, ends the exchange", async () => {
  const { said } = await exchange(both, (payload) => {
    if (payload[0] !== exchangeInit) return payload;
    return Buffer.concat([payload.subarray(0, payload.length - 32), Buffer.alloc(32)]);
  });
  expect(said).toMatch(/Error while computing DH secret/);
});
