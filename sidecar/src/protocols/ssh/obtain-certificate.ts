/** The client's side of `certify`: what `sallyport login` does. */
import { generateKeyPairSync, randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { GatewayError } from "../../wire/gateway-error.ts";
import { certifyAccount } from "./certificates.ts";
import { certifyRequest } from "./certify.ts";
import { hostKeysFrom, type PinnedKey } from "./host-keys.ts";
import { logIn } from "./log-in.ts";
import { encoded, made, message, Reader } from "./messages.ts";

export { hostKeysFrom };

/** A key of the user's own, in the files that OpenSSH reads. */
export interface NewKey {
  readonly privateKey: string;
  readonly publicKey: Buffer;
}

/** Makes an Ed25519 key in OpenSSH's own form (PROTOCOL.key), without a passphrase: it lives as long as a token. */
export function newKey(comment: string): NewKey {
  const jwk = generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" });
  const publicBytes = Buffer.from(jwk.x ?? "", "base64url");
  const secretBytes = Buffer.concat([Buffer.from(jwk.d ?? "", "base64url"), publicBytes]);
  const publicKey = encoded("ssh-ed25519", publicBytes);
  const check = randomBytes(4).readUInt32BE();
  let secret = encoded(check, check, "ssh-ed25519", publicBytes, secretBytes, comment);
  const missing = (8 - (secret.length % 8)) % 8;
  secret = Buffer.concat([secret, Buffer.from([1, 2, 3, 4, 5, 6, 7, 8].slice(0, missing))]);
  const whole = Buffer.concat([
    Buffer.from("openssh-key-v1\0"),
    encoded("none", "none", "", 1, publicKey, secret),
  ]);
  const lines = whole.toString("base64").match(/.{1,70}/g) ?? [];
  const [begin, end] = ["BEGIN", "END"].map((word) => `-----${word} OPENSSH PRIVATE KEY-----`);
  return { privateKey: `${[begin, ...lines, end].join("\n")}\n`, publicKey };
}

/** Has the gateway certify a public key for the identity of a token; the gateway must show one of `hostKeys`. */
export async function obtainCertificate(request: {
  readonly socket: Socket;
  readonly resource: string;
  readonly token: string;
  readonly hostKeys: readonly PinnedKey[];
  readonly publicKey: Buffer;
  readonly signal: AbortSignal;
}): Promise<{ readonly line: string; readonly validBefore: Date }> {
  const { socket, resource, token, hostKeys, publicKey, signal } = request;
  const user = `${certifyAccount}%${resource}`;
  const transport = await logIn({ socket, user, password: token, hostKeys, signal });
  try {
    return await new Promise((resolve, reject) => {
      const failed = (cause?: unknown) => reject(new GatewayError("identityRefused", { cause }));
      signal.addEventListener("abort", failed, { once: true });
      transport.receiver = {
        message: (payload) => {
          const reader = new Reader(payload);
          if (reader.byte() !== message.requestSuccess) return;
          const type = reader.text();
          const line = `${type} ${reader.string().toString("base64")}`;
          resolve({ line, validBefore: new Date(reader.uint32() * 1000) });
        },
        ended: failed,
      };
      transport.send(made(message.globalRequest, certifyRequest, true, publicKey));
    });
  } finally {
    transport.destroy();
  }
}
