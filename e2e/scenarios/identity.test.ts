/** Who may log in, by real certificates: an issuer behind TLS, and users who hold certificates themselves. */
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import {
  audienceOf,
  createAuthenticator,
  type IdentityProviderDocument,
  type IdentityProviderSpec,
  issueLocalToken,
} from "@sallyport/sidecar";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Authority, createAuthority } from "../targets/certificates.ts";

const audience = audienceOf({ namespace: "shop", name: "orders" });
const key = generateKeyPairSync("ed25519");
let issuers: Authority;
let users: Authority;
let server: Server;
let issuer: string;

beforeAll(async () => {
  issuers = await createAuthority("Issuers");
  users = await createAuthority("Users");
  const { certPem, keyPem } = await issuers.issue({
    commonName: "issuer",
    dnsNames: ["localhost"],
    usage: "server",
  });
  server = createServer({ cert: certPem, key: keyPem }, (request, response) => {
    const document =
      request.url === "/keys"
        ? { keys: [{ ...key.publicKey.export({ format: "jwk" }), use: "sig", kid: "one" }] }
        : { issuer, jwks_uri: `${issuer}/keys` };
    response.end(JSON.stringify(document));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  issuer = `https://localhost:${(server.address() as AddressInfo).port}`;
});

afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

function authenticatorOf(spec: Omit<IdentityProviderSpec, "prefix">) {
  const provider: IdentityProviderDocument = {
    metadata: { name: "corp" },
    spec: { ...spec, prefix: "corp:" },
  };
  const authenticator = createAuthenticator({ providers: [provider], clock: Date.now });
  expect(authenticator.problems).toEqual([]);
  return authenticator;
}

const request = { audience, providers: ["corp"] };

describe("an issuer behind a private authority", () => {
  const login = async (caBundle: string | undefined) => {
    const authenticator = authenticatorOf({
      type: "oidc",
      oidc: caBundle === undefined ? { issuer } : { issuer, caBundle },
    });
    const token = await issueLocalToken({
      key: key.privateKey,
      issuer,
      subject: "alice",
      audience,
      lifetimeSeconds: 60,
      now: Date.now(),
    });
    return await authenticator.authenticate({ kind: "token", token }, request);
  };

  it("is believed when the manifest names that authority", async () => {
    expect(await login(issuers.caPem)).toMatchObject({ identity: { user: "corp:alice" } });
  });

  it("is not believed by the public authorities, nor by another one", async () => {
    for (const caBundle of [undefined, users.caPem])
      expect(await login(caBundle)).toMatchObject({
        kind: "refused",
        publicReason: expect.stringMatching(/cannot be reached/),
      });
  });
});

describe("a client certificate", () => {
  const present = async (authority: Authority, more: { days?: number; usage?: "server" | "client" } = {}) => {
    const authenticator = authenticatorOf({
      type: "oidc",
      oidc: { issuer },
      clientCertificates: { caBundle: users.caPem },
    });
    const issued = await authority.issue({ commonName: "alice", usage: "client", ...more });
    const { raw, subject } = new X509Certificate(issued.certPem);
    return await authenticator.authenticate({ kind: "certificate", subject, raw, isVerified: true }, request);
  };

  it("logs its holder in until it ends", async () => {
    const outcome = await present(users, { days: 1 });
    expect(outcome).toMatchObject({ identity: { user: "corp:alice", kind: "Human" } });
    const expiresAt = (outcome.kind === "authenticated" && outcome.identity.expiresAt) || 0;
    expect(expiresAt * 1000).toBeGreaterThan(Date.now());
    expect(expiresAt * 1000).toBeLessThan(Date.now() + 2 * 86_400_000);
  });

  it("is refused from another authority, when it has run out, and when it is a server's", async () => {
    expect((await present(issuers)).kind).toBe("refused");
    expect((await present(users, { days: -1 })).kind).toBe("refused");
    expect((await present(users, { usage: "server" })).kind).toBe("refused");
  });
});
