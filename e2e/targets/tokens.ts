/** A local issuer for scenarios and demo. Signing by hand also makes tokens that no honest issuer would sign. */
import { generateKeyPairSync, type KeyObject, randomUUID, sign } from "node:crypto";

/** Who a token speaks for; `claims` override everything. */
export interface TokenRequest {
  readonly user: string;
  readonly groups?: readonly string[];
  readonly kind?: "Human" | "Workload" | "Agent";
  readonly lifetimeSeconds?: number;
  readonly claims?: Readonly<Record<string, unknown>>;
  readonly header?: Readonly<Record<string, unknown>>;
}

/** An issuer with a key of its own. */
export class LocalIssuer {
  readonly publicKeyPem: string;
  readonly privateKeyPem: string;
  /** What its tokens name as `iss`. */
  readonly name: string;
  readonly #key: KeyObject;
  readonly #audience: string;

  constructor(name: string, audience: string) {
    const { publicKey, privateKey } = generateKeyPairSync("ed25519");
    this.publicKeyPem = publicKey.export({ type: "spki", format: "pem" }).toString();
    this.privateKeyPem = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
    this.#key = privateKey;
    this.name = name;
    this.#audience = audience;
  }

  /** A signed token; good for ten minutes unless it says otherwise. */
  token(request: TokenRequest): string {
    const now = Math.floor(Date.now() / 1000);
    const header = { alg: "EdDSA", typ: "JWT", ...request.header };
    const claims = {
      iss: this.name,
      aud: this.#audience,
      sub: request.user,
      groups: request.groups ?? [],
      kind: request.kind ?? "Human",
      iat: now,
      exp: now + (request.lifetimeSeconds ?? 600),
      jti: randomUUID(),
      ...request.claims,
    };
    const signed = `${base64url(header)}.${base64url(claims)}`;
    if (header.alg === "none") return `${signed}.`;
    return `${signed}.${sign(null, Buffer.from(signed), this.#key).toString("base64url")}`;
  }
}

function base64url(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}
