import { generateKeyPairSync } from "node:crypto";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, type JWK, SignJWT } from "jose";
import { Provider } from "oidc-provider";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type AuthenticatorOptions, createAuthenticator } from "./authenticator.ts";
import type { IdentityProviderDocument } from "./documents.ts";

const audience = "sallyport:shop/orders";
const request = { audience, providers: ["corp"] };

/** A real OpenID Connect provider on loopback, whose keys can be rotated and which can be taken away. */
class Issuer {
  readonly requests: string[] = [];
  url = "";
  key = newKey("k1");
  #server: Server | undefined;
  #answer: RequestListener = () => undefined;

  async start() {
    const server = createServer((incoming, response) => {
      this.requests.push(incoming.url ?? "");
      this.#answer(incoming, response);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    this.#server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    await this.rotate("k1");
  }

  async rotate(kid: string) {
    this.key = newKey(kid);
    const jwk = { ...(await exportJWK(this.key.privateKey)), kid, alg: "RS256", use: "sig" };
    const provider = new Provider(this.url, {
      jwks: { keys: [jwk as JWK] } as never,
      clients: [
        {
          client_id: "job",
          client_secret: "job-secret",
          grant_types: ["client_credentials"],
          redirect_uris: [],
          response_types: [],
        },
      ],
      features: {
        clientCredentials: { enabled: true },
        devInteractions: { enabled: false },
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: (_context, resource) => ({
            scope: "read",
            audience: resource.replace("urn:", "sallyport:").replace("orders", "shop/orders"),
            accessTokenFormat: "jwt" as const,
            accessTokenTTL: 600,
          }),
        },
      },
    });
    this.#answer = provider.callback();
  }

  answerWith(answer: RequestListener) {
    this.#answer = answer;
  }

  /** A token by the provider's own token endpoint. */
  async clientCredentials(resource: string): Promise<string> {
    const response = await fetch(`${this.url}/token`, {
      method: "POST",
      headers: { authorization: `Basic ${Buffer.from("job:job-secret").toString("base64")}` },
      body: new URLSearchParams({ grant_type: "client_credentials", resource }),
    });
    const body = (await response.json()) as { access_token?: string };
    return body.access_token ?? "";
  }

  sign(claims: object = {}, header: object = {}, key = this.key): Promise<string> {
    const seconds = Math.floor(Date.now() / 1000);
    return new SignJWT({ iss: this.url, sub: "alice", aud: audience, exp: seconds + 60, ...claims })
      .setProtectedHeader({ alg: "RS256", kid: key.kid, ...header })
      .sign(key.privateKey);
  }

  keyFetches() {
    return this.requests.filter((url) => url === "/jwks").length;
  }

  async stop() {
    this.#server?.closeAllConnections();
    await new Promise((resolve) => this.#server?.close(resolve));
  }
}

function newKey(kid: string) {
  return { kid, ...generateKeyPairSync("rsa", { modulusLength: 2048 }) };
}

const issuer = new Issuer();
let now = Date.now();

function authenticator(oidc: object = {}, options: Partial<AuthenticatorOptions> = {}) {
  const document: IdentityProviderDocument = {
    metadata: { name: "corp" },
    spec: { type: "oidc", prefix: "corp:", oidc: { issuer: issuer.url, ...oidc } },
  };
  const made = createAuthenticator({
    providers: [document],
    clock: () => now,
    allowHttpLoopback: true,
    jwksCooldownMs: 0,
    // The provider is in this process: whatever holds it up holds up its answers.
    fetchTimeoutMs: 20_000,
    ...options,
  });
  expect(made.problems).toEqual([]);
  return async (token: string) => {
    const outcome = await made.authenticate({ kind: "token", token }, request);
    return outcome.kind === "refused" ? outcome.publicReason : outcome.identity.user;
  };
}

beforeEach(async () => {
  // The provider warns of its in-memory adapter for each instance; here that is the point.
  for (const level of ["warn", "info"] as const) vi.spyOn(console, level).mockImplementation(() => undefined);
  now = Date.now();
  issuer.requests.length = 0;
  await issuer.start();
});
afterEach(() => issuer.stop());

describe("tokens of a real OpenID Connect provider", () => {
  it("log in when the provider issued them for this resource, and not when for another", async () => {
    const login = authenticator();
    expect(await login(await issuer.clientCredentials("urn:orders"))).toBe("corp:job");
    expect(await login(await issuer.clientCredentials("urn:other"))).toMatch(/another audience/);
  });

  it("log in by an audience that the provider's manifest lists", async () => {
    const token = await issuer.sign({ aud: ["cli", "other"] });
    expect(await authenticator()(token)).toMatch(/another audience/);
    expect(await authenticator({ audiences: ["cli"] })(token)).toBe("corp:alice");
  });

  it("are checked with the new keys after a rotation, and no longer with the old ones", async () => {
    const login = authenticator();
    const before = await issuer.sign();
    expect(await login(before)).toBe("corp:alice");
    await issuer.rotate("k2");
    expect(await login(await issuer.sign())).toBe("corp:alice");
    expect(await login(before)).toMatch(/unknown key/);
  });

  it("share one discovery and one key fetch when many come at once", async () => {
    const login = authenticator({}, { jwksCooldownMs: 30_000 });
    const token = await issuer.sign();
    const outcomes = await Promise.all(Array.from({ length: 100 }, () => login(token)));
    expect(new Set(outcomes)).toEqual(new Set(["corp:alice"]));
    expect(issuer.requests.toSorted()).toEqual(["/.well-known/openid-configuration", "/jwks"]);
  });

  it("with invented key ids cannot make the gateway fetch keys over and over", async () => {
    const login = authenticator({}, { jwksCooldownMs: 30_000 });
    for (let index = 0; index < 20; index++)
      expect(await login(await issuer.sign({}, { kid: `guess-${index}` }))).toMatch(/unknown key/);
    expect(issuer.keyFetches()).toBe(1);
  });

  it("keep the fetched keys over a reload that does not touch the issuer", async () => {
    const document = (name: string): IdentityProviderDocument => ({
      metadata: { name: "corp" },
      spec: { type: "oidc", prefix: "corp:", oidc: { issuer: issuer.url }, claims: { user: name } },
    });
    const made = createAuthenticator({
      providers: [document("sub")],
      clock: () => now,
      allowHttpLoopback: true,
    });
    const credential = { kind: "token", token: await issuer.sign({ name: "Alice" }) } as const;
    await made.authenticate(credential, request);
    made.reload([document("name")]);
    const outcome = await made.authenticate(credential, request);
    expect(outcome).toMatchObject({ identity: { user: "corp:Alice" } });
    expect(issuer.keyFetches()).toBe(1);
  });

  it("are refused when forged, expired, without expiry, or of another issuer", async () => {
    const login = authenticator();
    const seconds = Math.floor(now / 1000);
    expect(await login(await issuer.sign({}, {}, { ...newKey("x"), kid: issuer.key.kid }))).toMatch(
      /signature/,
    );
    expect(await login(await issuer.sign({ exp: seconds - 31 }))).toMatch(/expired/);
    expect(await login(await issuer.sign({ exp: undefined }))).toMatch(/no expiry/);
    expect(await login(await issuer.sign({ iss: `${issuer.url}/` }))).toMatch(/not trusted/);
    expect(await login(await issuer.sign({ nbf: seconds + 60 }))).toMatch(/not valid yet/);
    expect(await login(await issuer.sign({}, { typ: "logout+jwt" }))).toMatch(/grants no access/);
  });
});

describe("an identity provider that fails", () => {
  it("refuses logins with a reason the user understands, and lets them in once it is back", async () => {
    const login = authenticator();
    const token = await issuer.sign();
    const url = issuer.url;
    issuer.answerWith((_, response) => response.writeHead(503).end());
    expect(await login(token)).toMatch(/cannot be reached/);
    await issuer.rotate("k3");
    expect(await login(await issuer.sign())).toMatch(/cannot be reached/);
    now += 1001;
    expect(await login(await issuer.sign())).toBe("corp:alice");
    expect(issuer.url).toBe(url);
  });

  it("is not asked once for each login while it is down", async () => {
    const login = authenticator();
    const token = await issuer.sign();
    issuer.answerWith((_, response) => response.writeHead(503).end());
    for (let index = 0; index < 20; index++) expect(await login(token)).toMatch(/cannot be reached/);
    expect(issuer.requests).toHaveLength(1);
  });

  it("that never answers is given up on", async () => {
    issuer.answerWith(() => undefined);
    const login = authenticator({}, { fetchTimeoutMs: 100 });
    expect(await login(await issuer.sign())).toMatch(/cannot be reached/);
  });

  const discovery = (document: object): RequestListener => {
    return (_, response) => response.end(JSON.stringify(document));
  };
  it.each([
    [
      "a redirect",
      () => ((_, response) => response.writeHead(302, { location: "/x" }).end()) as RequestListener,
    ],
    ["an endless answer", () => ((_, response) => response.end(" ".repeat(300_000))) as RequestListener],
    ["text that is not JSON", () => ((_, response) => response.end("<html>")) as RequestListener],
    ["another issuer's document", () => discovery({ issuer: "https://evil.example", jwks_uri: issuer.url })],
    [
      "keys at a plain http address",
      () => discovery({ issuer: issuer.url, jwks_uri: "http://10.0.0.1/jwks" }),
    ],
    ["keys in a file", () => discovery({ issuer: issuer.url, jwks_uri: "file:///etc/passwd" })],
    ["no place for keys", () => discovery({ issuer: issuer.url })],
  ])("with %s lets nobody in", async (_, answer) => {
    issuer.answerWith(answer());
    expect(await authenticator()(await issuer.sign())).toMatch(/cannot be reached/);
  });
});
