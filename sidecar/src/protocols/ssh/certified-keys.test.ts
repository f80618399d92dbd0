import { generateKeyPairSync, randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { certifiedKeysOf } from "./certified-keys.ts";
import { hostKeysFrom, judgeHostKey } from "./host-keys.ts";
import { hostKeysOf, type SigningKey, signed, signingKeyOf } from "./keys.ts";
import { type LibraryProtocol, Protocol } from "./library.ts";
import { encoded, Reader } from "./messages.ts";

const pem = (pair: ReturnType<typeof generateKeyPairSync>) =>
  signingKeyOf(pair.privateKey.export({ type: "pkcs8", format: "pem" }).toString()) as SigningKey;
const newRsaKey = () => pem(generateKeyPairSync("rsa", { modulusLength: 2048 }) as never);
// They take long to make: two are enough, one for the host and one for whoever is not it.
const rsaKeys = [newRsaKey(), newRsaKey()];
let nextRsaKey = 0;
const rsaKey = () => {
  nextRsaKey += 1;
  return rsaKeys[nextRsaKey % 2] as SigningKey;
};
const newKey = {
  "ssh-ed25519": () => pem(generateKeyPairSync("ed25519") as never),
  "ecdsa-sha2-nistp384": () => pem(generateKeyPairSync("ec", { namedCurve: "P-384" }) as never),
  "rsa-sha2-512": rsaKey,
  "rsa-sha2-256": rsaKey,
};
type Algorithm = keyof typeof newKey;
const authority = newKey["ssh-ed25519"]();
const keys = hostKeysFrom([`@cert-authority * ${authority.type} ${authority.blob.toString("base64")}`]);

function certificateOf(key: SigningKey): Buffer {
  const fields = new Reader(key.blob);
  fields.string();
  const body = encoded(
    `${key.type}-cert-v01@openssh.com`,
    randomBytes(32),
    { raw: fields.rest },
    { raw: Buffer.alloc(8) },
    2,
    "a host",
    encoded("host.test"),
    { raw: Buffer.alloc(8) },
    { raw: Buffer.alloc(8, 0xff) },
    "",
    "",
    "",
    authority.blob,
  );
  return Buffer.concat([body, encoded(signed(authority, body))]);
}

/** Exchanges keys with a server that shows a certificate, and signs as it likes. */
function exchange(
  algorithm: Algorithm,
  server: { readonly certificate: Buffer; readonly signsBy: SigningKey; readonly signsAs?: string },
  /** Changes what the server sends. */
  onTheWay: (bytes: Buffer) => void = () => undefined,
): Promise<string> {
  const offered = `${algorithm}-cert-v01@openssh.com`;
  const own = hostKeysOf(server.signsBy)[algorithm];
  if (own === undefined) throw new Error("no such key");
  const direction = { cipher: ["aes128-gcm@openssh.com"], mac: [], compress: ["none"], lang: [] };
  const offer = { serverHostKey: [offered], cs: direction, sc: direction, kex: ["curve25519-sha256"] };
  return new Promise((resolve) => {
    const common = {
      ident: "test",
      offer,
      onHeader: () => undefined,
      messageHandlers: {},
      onError: (error: Error) => resolve(error.message),
    };
    const deliver = (to: LibraryProtocol, bytes: Buffer) => {
      setImmediate(() => {
        try {
          to.parse(bytes, 0, bytes.length);
        } catch (error) {
          resolve((error as Error).message);
        }
      });
    };
    const host: LibraryProtocol = new Protocol({
      ...common,
      server: true,
      onWrite: (bytes) => {
        const copy = Buffer.from(bytes);
        onTheWay(copy);
        deliver(client, copy);
      },
      hostKeys: {
        [offered]: {
          type: own.type,
          getPublicSSH: () => server.certificate,
          sign: (data) => {
            // OpenSSH signs as the plain algorithm; the library would name what was negotiated.
            if (host._kex !== undefined) host._kex.negotiated.serverHostKey = server.signsAs ?? algorithm;
            return own.sign(data, undefined);
          },
        },
      },
    });
    const client = certifiedKeysOf(
      (shown) => {
        const judged = judgeHostKey(shown, { keys, host: "host.test", port: 22, nowMs: Date.now() });
        return judged.kind === "expected" ? judged.key : undefined;
      },
      (hostVerifier) =>
        new Protocol({ ...common, hostVerifier, onWrite: (bytes) => deliver(host, Buffer.from(bytes)) }),
    );
    client._onHandshakeComplete = () => resolve("keys are exchanged");
    client.start();
    host.start();
  });
}

const algorithms = Object.keys(newKey) as Algorithm[];

test.each(algorithms)(
  "a host that shows a certificate for its %s key and signs by it is known",
  async (algorithm) => {
    const signsBy = newKey[algorithm]();
    const certificate = certificateOf(signsBy);
    expect(await exchange(algorithm, { certificate, signsBy })).toBe("keys are exchanged");
  },
);

test.each(algorithms)(
  "a certificate for an %s key is worth nothing to whoever has another key",
  async (algorithm) => {
    const certificate = certificateOf(newKey[algorithm]());
    expect(await exchange(algorithm, { certificate, signsBy: newKey[algorithm]() })).toMatch(
      /signature verification failed/,
    );
  },
);

test("the signature covers the certificate: another one for the same key cannot be put in its place", async () => {
  const signsBy = newKey["ssh-ed25519"]();
  const [certificate, other] = [certificateOf(signsBy), certificateOf(signsBy)];
  let swapped = 0;
  const said = await exchange("ssh-ed25519", { certificate, signsBy }, (bytes) => {
    const at = bytes.indexOf(certificate);
    if (at < 0) return;
    other.copy(bytes, at);
    swapped += 1;
  });
  expect(swapped).toBe(1);
  expect(said).toMatch(/signature verification failed/);
});

test("a signature says which algorithm it is of, and no other than the negotiated one is taken", async () => {
  const signsBy = newKey["rsa-sha2-512"]();
  const certificate = certificateOf(signsBy);
  for (const signsAs of ["ssh-rsa", "rsa-sha2-256", "rsa-sha2-512-cert-v01@openssh.com"]) {
    const said = await exchange("rsa-sha2-512", { certificate, signsBy, signsAs });
    expect(said, signsAs).toMatch(/Wrong signature type/);
  }
});
