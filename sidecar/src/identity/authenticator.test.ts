import { createHmac, createPrivateKey, generateKeyPairSync, sign, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import type { IdentityProvider } from "@sallyport/crds";
import { anyCharacter } from "@sallyport/crds/testing";
import fc from "fast-check";
import { exportJWK, SignJWT } from "jose";
import { describe, expect, it } from "vitest";
import { type AuthenticatorOptions, createAuthenticator, tokenBytesMax } from "./authenticator.ts";
import type { IdentityProviderDocument, IdentityProviderSpec } from "./documents.ts";
import { audienceOf, generateLocalKey, issueLocalToken, type LocalTokenRequest } from "./local-token.ts";
import type { Authentication } from "./model.ts";

const now = Date.parse("2026-06-01T12:00:00Z");
const seconds = now / 1000;
const audience = audienceOf({ namespace: "shop", name: "orders" });
const keys = generateLocalKey();

function local(spec: Partial<IdentityProviderSpec> = {}, name = "ci"): IdentityProviderDocument {
  return {
    metadata: { name },
    spec: { type: "local", prefix: `${name}:`, local: { publicKeys: [keys.publicKey] }, ...spec },
  };
}

function authenticatorOf(providers: IdentityProviderDocument[], options: Partial<AuthenticatorOptions> = {}) {
  return createAuthenticator({ providers, clock: () => now, ...options });
}

function token(request: Partial<LocalTokenRequest> = {}) {
  return issueLocalToken({
    key: keys.privateKey,
    subject: "alice",
    groups: ["analysts"],
    audience,
    lifetimeSeconds: 600,
    now,
    ...request,
  });
}

async function login(text: string, providers = [local()], clock = now) {
  const authenticator = authenticatorOf(providers, { clock: () => clock });
  const names = providers.map(({ metadata }) => metadata.name);
  return await authenticator.authenticate({ kind: "token", token: text }, { audience, providers: names });
}

function reason(outcome: Authentication): string {
  return outcome.kind === "refused" ? outcome.publicReason : `authenticated ${outcome.identity.user}`;
}

function unsigned(header: object, claims: object, signature = "AAAA"): string {
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${encode(header)}.${encode(claims)}.${signature}`;
}

const goodClaims = { iss: "sallyport", sub: "alice", aud: audience, exp: seconds + 600 };

describe("tokens of a local provider", () => {
  it("gives the user and groups behind the provider's prefix", async () => {
    const outcome = await login(await token({ kind: "Agent", scope: "read" }));
    expect(outcome).toMatchObject({
      kind: "authenticated",
      identity: {
        provider: "ci",
        user: "ci:alice",
        groups: ["ci:analysts"],
        kind: "Agent",
        expiresAt: seconds + 600,
        claims: { scope: "read" },
      },
    });
  });

  it("adds the provider's grace to the token's expiry", async () => {
    const outcome = await login(await token(), [local({ session: { grace: "1m30s" } })]);
    expect(outcome).toMatchObject({ identity: { expiresAt: seconds + 690 } });
  });

  it.each([
    ["another resource's audience", { audience: "sallyport:shop/other" }, /another audience/],
    ["an expiry in the past", { lifetimeSeconds: -60 }, /expired/],
    ["another issuer", { issuer: "somebody" }, /not trusted/],
    ["an issue time in the future", { now: now + 120_000 }, /not valid yet/],
    ["an empty subject", { subject: "" }, /does not name its user/],
    ["a subject with a control character", { subject: "ali\u0000ce" }, /does not name its user/],
    ["a subject with a direction mark", { subject: "ali\u202ece" }, /does not name its user/],
    ["a key nobody knows", { key: generateLocalKey().privateKey }, /does not verify/],
  ] as const)("refuses %s", async (_, request, expected) => {
    expect(reason(await login(await token(request)))).toMatch(expected);
  });

  it("accepts a clock that is half a minute off, and no more, while the session would still live", async () => {
    const graceful = [local({ session: { grace: "5m" } })];
    const text = await token();
    expect(reason(await login(text, graceful, now + 629_000))).toBe("authenticated ci:alice");
    expect(reason(await login(text, graceful, now + 631_000))).toMatch(/expired/);
    expect(reason(await login(text, [local()], now + 601_000))).toMatch(/expired/);
    expect(reason(await login(text, graceful, now - 29_000))).toBe("authenticated ci:alice");
    expect(reason(await login(text, graceful, now - 31_000))).toMatch(/not valid yet/);
  });

  it("accepts ES256 and RS256 keys, from PEM and from JWKS, and picks by kid", async () => {
    const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const jwk = { ...(await exportJWK(rsa.publicKey)), kid: "r1", alg: "RS256", use: "sig" };
    const pem = ec.publicKey.export({ type: "spki", format: "pem" }).toString();
    const provider = [local({ local: { publicKeys: [pem], jwks: { keys: [jwk] } } })];
    expect(reason(await login(await token({ key: ec.privateKey }), provider))).toBe("authenticated ci:alice");
    expect(reason(await login(await token({ key: rsa.privateKey }), provider))).toBe(
      "authenticated ci:alice",
    );
    const wrongKid = await new SignJWT(goodClaims)
      .setProtectedHeader({ alg: "RS256", kid: "../../r1" })
      .sign(rsa.privateKey);
    expect(reason(await login(wrongKid, provider))).toMatch(/unknown key/);
  });

  it("lets two local providers share an issuer and tells them apart by key", async () => {
    const other = generateLocalKey();
    const both = [local(), local({ local: { publicKeys: [other.publicKey] } }, "people")];
    expect(reason(await login(await token(), both))).toBe("authenticated ci:alice");
    expect(reason(await login(await token({ key: other.privateKey }), both))).toBe(
      "authenticated people:alice",
    );
  });

  it("uses only the providers that the resource names", async () => {
    const authenticator = authenticatorOf([local()]);
    const credential = { kind: "token", token: await token() } as const;
    const outcome = await authenticator.authenticate(credential, { audience, providers: ["okta"] });
    expect(reason(outcome)).toMatch(/not trusted/);
    expect(reason(await authenticator.authenticate(credential, { audience, providers: [] }))).toMatch(
      /not trusted/,
    );
  });
});

describe("forged tokens", () => {
  it.each(["none", "None", "nOnE", "HS256", "HS512", "PS256", "RS1", ""])("refuses alg %j", async (alg) => {
    expect(reason(await login(unsigned({ alg }, goodClaims)))).toMatch(/not accepted|signed|does not verify/);
    expect((await login(unsigned({ alg, kid: "x" }, goodClaims, "_"))).kind).toBe("refused");
  });

  it("refuses an unsigned token with its signature left out", async () => {
    expect((await login(unsigned({ alg: "none" }, goodClaims, ""))).kind).toBe("refused");
  });

  it("refuses HS256 keyed with the public key, in every form of it", async () => {
    const input = unsigned({ alg: "HS256", typ: "JWT" }, goodClaims).split(".").slice(0, 2).join(".");
    for (const secret of [keys.publicKey, keys.publicKey.trim(), keys.publicKey.replaceAll("\n", "")]) {
      const forged = `${input}.${createHmac("sha256", secret).update(input).digest("base64url")}`;
      expect((await login(forged)).kind).toBe("refused");
    }
  });

  it("ignores keys that the token brings along", async () => {
    const mine = generateKeyPairSync("ed25519");
    const jwk = await exportJWK(mine.publicKey);
    for (const header of [
      { jwk },
      { jku: "https://attacker.example/keys" },
      { x5u: "https://attacker.example" },
    ]) {
      const forged = await new SignJWT(goodClaims)
        .setProtectedHeader({ alg: "EdDSA", ...header })
        .sign(mine.privateKey);
      expect((await login(forged)).kind).toBe("refused");
    }
  });

  it("refuses a token whose claims were changed after signing", async () => {
    const [header, , signature] = (await token()).split(".");
    const claims = Buffer.from(JSON.stringify({ ...goodClaims, sub: "admin" })).toString("base64url");
    expect(reason(await login(`${header}.${claims}.${signature}`))).toMatch(/does not verify/);
  });

  it.each([
    ["no expiry", { exp: undefined }, {}],
    ["an expiry that is not a number", { exp: "soon" }, {}],
    ["no audience", { aud: undefined }, {}],
    ["an empty list of audiences", { aud: [] }, {}],
    ["groups that are not names", { groups: [{ name: "admins" }] }, {}],
    ["too many groups", { groups: Array.from({ length: 1001 }, (_, i) => `g${i}`) }, {}],
    ["the type of a logout token", {}, { typ: "logout+jwt" }],
    [
      "the events of a logout token",
      { events: { "http://schemas.openid.net/event/backchannel-logout": {} } },
      {},
    ],
    ["an unknown critical header", {}, { crit: ["exp"], exp: 1 }],
  ])("refuses a well signed token with %s", async (_, claims, header) => {
    const payload = Object.fromEntries(
      Object.entries({ ...goodClaims, ...claims }).filter(([, value]) => value !== undefined),
    );
    // Signed by hand: jose would not produce some of these.
    const input = unsigned({ alg: "EdDSA", ...header }, payload)
      .split(".")
      .slice(0, 2)
      .join(".");
    const signature = sign(null, Buffer.from(input), createPrivateKey(keys.privateKey)).toString("base64url");
    expect((await login(`${input}.${signature}`)).kind).toBe("refused");
  });

  it.each([
    "",
    ".",
    "..",
    "a.b.c",
    "e30.e30.e30",
    "null.null.null",
    "\u0000",
    `${"A".repeat(tokenBytesMax)}`,
    "a.b.c.d.e",
  ])("refuses text that is no token without throwing (case %#)", async (text) => {
    expect((await login(text)).kind).toBe("refused");
  });

  it("never throws, and lets nobody in, for altered tokens", async () => {
    const authenticator = authenticatorOf([local()]);
    const good = await token();
    const altered = fc
      .tuple(fc.nat(good.length - 1), fc.string({ maxLength: 3, unit: anyCharacter }), fc.nat(3))
      .map(([at, inserted, removed]) => good.slice(0, at) + inserted + good.slice(at + removed));
    // The last character of a base64url text may hold bits that decoding drops: those say the same signature.
    const signatureOf = (text: string) => Buffer.from(text.split(".")[2] ?? "", "base64url").toString("hex");
    await fc.assert(
      fc.asyncProperty(fc.oneof(altered, fc.string({ unit: anyCharacter })), async (text) => {
        fc.pre(text !== good);
        const isSameSignature = signatureOf(text) === signatureOf(good);
        fc.pre(!(isSameSignature && text.startsWith(good.slice(0, good.lastIndexOf(".") + 1))));
        const outcome = await authenticator.authenticate(
          { kind: "token", token: text },
          { audience, providers: ["ci"] },
        );
        expect(outcome.kind).toBe("refused");
      }),
      { numRuns: 1000 },
    );
  });

  it("does not look at a token above the size limit", async () => {
    const huge = await token({ groups: ["x".repeat(tokenBytesMax)] });
    expect(reason(await login(huge))).toBe("the token is larger than 16 KiB");
  });

  it("never repeats the token or a claim in what the client is told or the log gets", async () => {
    const outcome = await login(await token({ subject: "s3cret-subject", audience: "s3cret-audience" }));
    expect(outcome.kind).toBe("refused");
    const cause = outcome.kind === "refused" ? outcome.cause : undefined;
    const said = JSON.stringify([outcome, cause?.message, { ...cause }, cause?.cause ?? null]);
    expect(said).not.toContain("s3cret");
  });
});

describe("claim mapping", () => {
  const map = async (spec: Partial<IdentityProviderSpec>, claims: object) => {
    const text = await new SignJWT({ ...goodClaims, ...claims })
      .setProtectedHeader({ alg: "EdDSA" })
      .sign(createPrivateKey(keys.privateKey));
    return await login(text, [local(spec)]);
  };

  it("reads user and groups from the claims that the provider names", async () => {
    const claims = { user: "email", groups: "roles" };
    const outcome = await map({ claims }, { email: "a@example.com", email_verified: true, roles: "dba" });
    expect(outcome).toMatchObject({ identity: { user: "ci:a@example.com", groups: ["ci:dba"] } });
  });

  it("refuses an e-mail address that is not verified", async () => {
    const outcome = await map(
      { claims: { user: "email" } },
      { email: "a@example.com", email_verified: false },
    );
    expect(reason(outcome)).toMatch(/not verified/);
  });

  it("classifies by claim and lets the most restricted kind win", async () => {
    const kind = { claim: "t", values: { bot: "Agent", job: "Workload" }, default: "Human" } as const;
    expect(await map({ claims: { kind } }, { t: "job" })).toMatchObject({ identity: { kind: "Workload" } });
    expect(await map({ claims: { kind } }, { t: ["job", "bot"] })).toMatchObject({
      identity: { kind: "Agent" },
    });
    expect(await map({ claims: { kind } }, { t: "constructor" })).toMatchObject({
      identity: { kind: "Human" },
    });
  });

  it.each([
    ["an aggregated claim", { _claim_names: { groups: "src1" } }],
    ["an aggregated claim, beside some of them", { groups: ["a"], _claim_names: { groups: "src1" } }],
    ["Entra's mark of too many", { hasgroups: true }],
  ])("refuses a token whose groups are told elsewhere: %s", async (_, claims) => {
    // A rule that denies a group would not find its members.
    expect(reason(await map({}, claims))).toMatch(/does not hold its groups/);
  });

  it("minds only what is told elsewhere of claims that it reads", async () => {
    const outcome = await map({ claims: { groups: "roles" } }, { roles: ["a"], hasgroups: true });
    expect(outcome).toMatchObject({ identity: { groups: ["ci:a"] } });
    expect(await map({}, { _claim_names: { photo: "src1" } })).toMatchObject({ identity: { groups: [] } });
    expect(await map({}, { _claim_names: "groups" })).toMatchObject({ identity: { groups: [] } });
  });

  it("takes a service account of a cluster for nobody's person, whatever a mapping says", async () => {
    const sub = "system:serviceaccount:shop:job";
    const kind = { claim: "t", values: { bot: "Agent", person: "Human" }, default: "Human" } as const;
    for (const claims of [{ sub }, { sub: "job", "kubernetes.io": { namespace: "shop" } }]) {
      expect(await map({}, claims)).toMatchObject({ identity: { kind: "Workload" } });
      expect(await map({ claims: { kind } }, { ...claims, t: "person" })).toMatchObject({
        identity: { kind: "Workload" },
      });
      expect(await map({ claims: { kind } }, { ...claims, t: "bot" })).toMatchObject({
        identity: { kind: "Agent" },
      });
    }
  });

  it.each(["\u3164", "\uffa0", "\u115f", "\u034f", "\u17b4", "\u2800"])(
    "refuses names with a letter that nobody sees: %j",
    async (letter) => {
      expect((await map({}, { sub: `alice${letter}` })).kind).toBe("refused");
      expect((await map({}, { groups: [`dba${letter}`] })).kind).toBe("refused");
    },
  );

  it("records whom an agent acts for, behind the prefix", async () => {
    const outcome = await map({ claims: { onBehalfOf: "owner" } }, { owner: "bob" });
    expect(outcome).toMatchObject({ identity: { onBehalfOf: "ci:bob" } });
    expect((await map({ claims: { onBehalfOf: "owner" } }, { owner: 7 })).kind).toBe("refused");
  });
});

describe("revocation", () => {
  it.each([
    ["subject", { subject: "alice" }],
    ["prefixed subject", { subject: "ci:alice" }],
    ["issue time", { notBefore: "2026-06-01T12:00:01Z" }],
    ["subject and issue time", { subject: "alice", notBefore: "2026-06-01T12:00:01Z" }],
  ])("by %s ends live sessions and refuses new ones", async (_, revocation) => {
    const authenticator = authenticatorOf([local()]);
    const credential = { kind: "token", token: await token() } as const;
    const outcome = await authenticator.authenticate(credential, { audience, providers: ["ci"] });
    if (outcome.kind !== "authenticated") throw new Error(outcome.publicReason);
    expect(authenticator.isRevoked(outcome.identity)).toBe(false);
    expect(authenticator.reload([local({ revocations: [revocation] })])).toEqual([]);
    expect(authenticator.isRevoked(outcome.identity)).toBe(true);
    expect(reason(await authenticator.authenticate(credential, { audience, providers: ["ci"] }))).toMatch(
      /revoked/,
    );
  });

  it("by token id ends that token's sessions only", async () => {
    const authenticator = authenticatorOf([local()]);
    const identities = [];
    for (const text of [await token(), await token()]) {
      const outcome = await authenticator.authenticate(
        { kind: "token", token: text },
        { audience, providers: ["ci"] },
      );
      if (outcome.kind === "authenticated") identities.push(outcome.identity);
    }
    const [one, two] = identities;
    authenticator.reload([local({ revocations: [{ tokenId: one!.tokenId! }] })]);
    expect(identities.map(authenticator.isRevoked)).toEqual([true, false]);
    authenticator.reload([local({ revocations: [{ subject: "bob", tokenId: two!.tokenId! }] })]);
    expect(authenticator.isRevoked(two!)).toBe(false);
  });

  it("holds for everyone of a provider that is gone", async () => {
    const outcome = await login(await token());
    const authenticator = authenticatorOf([]);
    expect(outcome.kind === "authenticated" && authenticator.isRevoked(outcome.identity)).toBe(true);
  });
});

describe("provider manifests", () => {
  const { privateKey } = keys;
  const symmetric = { local: { jwks: { keys: [{ kty: "oct", k: "c2VjcmV0" }] } } };
  it.each([
    ["spec.prefix", { prefix: "system:" }, "Invalid"],
    ["spec.prefix", { prefix: "okta" }, "Invalid"],
    ["spec.prefix", { prefix: "System:" }, "Invalid"],
    ["spec.local", { local: { publicKeys: [privateKey] } }, "Invalid"],
    ["spec.local", { local: { publicKeys: ["nonsense"] } }, "Invalid"],
    ["spec.local", { local: {} }, "Invalid"],
    ["spec.local", symmetric, "Invalid"],
    ["spec.session.grace", { session: { grace: "soon" } }, "Invalid"],
    ["spec.revocations[0].notBefore", { revocations: [{ notBefore: "yesterday" }] }, "Invalid"],
    ["spec.clientCertificates.caBundle", { clientCertificates: { caBundle: "x" } }, "Invalid"],
    ["spec.type", { type: "saml", local: undefined }, "NotEnforceable"],
    ["spec.type", { type: "kubernetes", local: undefined }, "NotEnforceable"],
    [
      "spec.oidc.issuer",
      { type: "oidc", local: undefined, oidc: { issuer: "http://idp.example" } },
      "Invalid",
    ],
    [
      "spec.oidc.issuer",
      { type: "oidc", local: undefined, oidc: { issuer: "http://127.0.0.1:1" } },
      "Invalid",
    ],
    ["spec.oidc.issuer", { type: "oidc", local: undefined, oidc: { issuer: "file:///etc" } }, "Invalid"],
  ] as const)("finds a problem at %s (case %#)", (path, spec, expected) => {
    const { problems } = authenticatorOf([local(spec as Partial<IdentityProviderSpec>)]);
    expect(problems).toMatchObject([{ provider: "ci", path, reason: expected }]);
    expect(JSON.stringify(problems)).not.toContain("PRIVATE KEY-----");
  });

  it("says what to do where a key was not pasted", () => {
    const publicKeys = ["-----BEGIN PUBLIC KEY-----\npaste it here\n-----END PUBLIC KEY-----"];
    const [problem] = authenticatorOf([local({ local: { publicKeys } })]).problems;
    expect(problem?.message).toContain("is no public key; paste the whole file");
  });

  it("keeps a broken provider's last accepted form, and its new revocations hold all the same", async () => {
    const authenticator = authenticatorOf([local()]);
    const credential = { kind: "token", token: await token() } as const;
    const request = { audience, providers: ["ci"] };
    expect(authenticator.reload([local({ local: { publicKeys: ["broken"] } })])).toHaveLength(1);
    expect((await authenticator.authenticate(credential, request)).kind).toBe("authenticated");
    authenticator.reload([local({ prefix: "system:", revocations: [{ subject: "alice" }] })]);
    expect(reason(await authenticator.authenticate(credential, request))).toMatch(/revoked/);
  });

  it.each([
    ["prefix", local({ prefix: "ci:" }, "other"), "spec.prefix"],
    ["keys", local({}, "other"), "spec.local"],
  ])("refuses two providers with the same %s", async (_, other, path) => {
    const authenticator = authenticatorOf([local(), other]);
    expect(authenticator.problems.map((found) => found.path)).toEqual([path, path]);
    const credential = { kind: "token", token: await token() } as const;
    const outcome = await authenticator.authenticate(credential, { audience, providers: ["ci", "other"] });
    expect(outcome.kind).toBe("refused");
  });

  it("refuses two providers with one authority under two certificates", () => {
    const pem = (name: string) => readFileSync(new URL(`testdata/${name}.pem`, import.meta.url), "utf8");
    const certified = (name: string, bundle: string): IdentityProviderDocument => ({
      metadata: { name },
      spec: {
        type: "local",
        prefix: `${name}:`,
        local: { publicKeys: [generateLocalKey().publicKey] },
        clientCertificates: { caBundle: pem(bundle) },
      },
    });
    const rolled = [certified("one", "rolled-ca-1"), certified("other", "rolled-ca-2")];
    const path = "spec.clientCertificates.caBundle";
    expect(authenticatorOf(rolled).problems.map((found) => found.path)).toEqual([path, path]);
    const apart = [certified("one", "rolled-ca-1"), certified("other", "user-ca")];
    expect(authenticatorOf(apart).problems).toEqual([]);
  });

  it("are read as the custom resource's own type", () => {
    const asDocument = (provider: IdentityProvider): IdentityProviderDocument => provider;
    const provider: IdentityProvider = {
      apiVersion: "sallyport.dev/v1alpha1",
      kind: "IdentityProvider",
      metadata: { name: "ci" },
      spec: {
        type: "local",
        prefix: "ci:",
        local: { issuer: "sallyport", publicKeys: [keys.publicKey] },
        claims: { user: "sub", groups: "groups" },
        session: { grace: "0s" },
      },
    };
    expect(authenticatorOf([asDocument(provider)]).problems).toEqual([]);
  });

  it("refuses everyone once closed", async () => {
    const authenticator = authenticatorOf([local()]);
    authenticator.close();
    const outcome = await authenticator.authenticate(
      { kind: "token", token: await token() },
      { audience, providers: ["ci"] },
    );
    expect(outcome.kind).toBe("refused");
  });
});

describe("client certificates", () => {
  const pem = (name: string) => readFileSync(new URL(`testdata/${name}.pem`, import.meta.url), "utf8");
  const provider = local({ clientCertificates: { caBundle: pem("user-ca") } });
  const present = async (name: string, clock = Date.parse("2030-01-01T00:00:00Z")) => {
    const authenticator = authenticatorOf([provider], { clock: () => clock });
    const { raw, subject } = new X509Certificate(pem(name));
    return await authenticator.authenticate(
      { kind: "certificate", subject, raw, isVerified: true },
      { audience, providers: ["ci"] },
    );
  };

  it("name the user by CN and the groups by O and OU, and end the session with their validity", async () => {
    const { validToDate, serialNumber } = new X509Certificate(pem("alice"));
    expect(await present("alice")).toMatchObject({
      identity: {
        user: "ci:alice",
        groups: ["ci:analysts", "ci:night"],
        expiresAt: validToDate.getTime() / 1000,
        tokenId: serialNumber.toLowerCase(),
      },
    });
  });

  it("name the user by URI where there is no CN", async () => {
    expect(await present("workload")).toMatchObject({
      identity: { user: "ci:spiffe://example.org/ns/shop/sa/job", groups: ["ci:jobs"] },
    });
  });

  it.each([
    ["forged", /issuer is not trusted/],
    ["server", /not meant for client authentication/],
    ["two-names", /exactly one user/],
    ["injected", /exactly one user/],
    ["sub-ca", /an authority's/],
    ["user-ca", /an authority's|not trusted/],
    ["expired", /expired/],
  ])("are refused when %s", async (name, expected) => {
    expect(reason(await present(name))).toMatch(expected);
  });

  it("are refused where TLS found something wrong with them", async () => {
    const { raw, subject } = new X509Certificate(pem("alice"));
    const authenticator = authenticatorOf([provider], { clock: () => Date.parse("2030-01-01T00:00:00Z") });
    const shown = { kind: "certificate", subject, raw, isVerified: false } as const;
    const outcome = await authenticator.authenticate(shown, { audience, providers: ["ci"] });
    expect(reason(outcome)).toMatch(/may issue/);
  });

  it("are refused before and after their dates, and when they are not certificates", async () => {
    expect(reason(await present("alice", 0))).toMatch(/not trusted|not valid yet/);
    const authenticator = authenticatorOf([provider]);
    const raw = new Uint8Array([1, 2, 3]);
    const garbage = { kind: "certificate", subject: "CN=alice", raw, isVerified: true } as const;
    expect((await authenticator.authenticate(garbage, { audience, providers: ["ci"] })).kind).toBe("refused");
  });
});
