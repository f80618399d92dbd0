import { createHash, createHmac, pbkdf2Sync, randomBytes, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { endpointBinding } from "./channel-binding.ts";
import { errorFrame } from "./frames.ts";
import { saslPrepared } from "./saslprep.ts";
import {
  startupMessage,
  UpstreamLogin,
  type UpstreamLoginOptions,
  type UpstreamLoginStep,
} from "./upstream-login.ts";

const options: UpstreamLoginOptions = {
  user: "s3cret-account",
  password: "pencil",
  randomBytes: (size) => Buffer.alloc(size, 7),
};
const letter = (type: string) => type.charCodeAt(0);

function request(code: number, data: Buffer | string = ""): Buffer {
  const head = Buffer.alloc(4);
  head.writeInt32BE(code, 0);
  return Buffer.concat([head, Buffer.from(data)]);
}

const mechanisms = (...names: string[]) => request(10, `${names.map((name) => `${name}\0`).join("")}\0`);

/** The server's half of SCRAM, written from RFC 5802 section 3. */
function scramServer(password: string, iterations = 4096, nonceEnd = "srv") {
  const salt = Buffer.from("0123456789abcdef");
  const salted = pbkdf2Sync(password, salt, iterations, 32, "sha256");
  const hmac = (key: Buffer, text: string) => createHmac("sha256", key).update(text).digest();
  const storedKey = createHash("sha256").update(hmac(salted, "Client Key")).digest();
  let bare = "";
  let first = "";
  let header = "";
  return {
    first(sent: Buffer) {
      const response = sent.subarray(sent.indexOf(0, 5) + 5).toString();
      const at = response.indexOf("n=,r=");
      header = response.slice(0, at);
      bare = response.slice(at);
      first = `r=${bare.slice("n=,r=".length)}${nonceEnd},s=${salt.toString("base64")},i=${iterations}`;
      return request(11, first);
    },
    header: () => header,
    final(sent: Buffer, binding: Buffer = Buffer.alloc(0)) {
      const message = sent.subarray(5).toString();
      const [withoutProof = "", proof = ""] = message.split(",p=");
      const authMessage = `${bare},${first},${withoutProof}`;
      const clientSignature = hmac(storedKey, authMessage);
      const clientKey = Buffer.from(proof, "base64").map((byte, index) => byte ^ clientSignature[index]!);
      const isProven = createHash("sha256").update(clientKey).digest().equals(storedKey);
      const expected = Buffer.concat([Buffer.from(header), binding]).toString("base64");
      const isBound = withoutProof.startsWith(`c=${expected},r=`);
      const signature = hmac(hmac(salted, "Server Key"), authMessage).toString("base64");
      return { isProven, isBound, message: request(12, `v=${signature}`) };
    },
  };
}

async function sent(step: UpstreamLoginStep | Promise<UpstreamLoginStep>): Promise<Buffer> {
  const result = await step;
  if (result.kind !== "continue") throw new Error(JSON.stringify(result));
  return Buffer.concat(result.send);
}

async function failure(step: UpstreamLoginStep | Promise<UpstreamLoginStep>) {
  const result = await step;
  if (result.kind !== "failed") throw new Error(`not a failure: ${result.kind}`);
  expect(result.publicText).not.toContain("s3cret");
  return result;
}

async function loggedIn(login: UpstreamLogin) {
  expect(await login.receive(letter("R"), request(0))).toEqual({ kind: "continue", send: [] });
  return login;
}

const ok = request(0);
const ready = Buffer.from("I");

describe("SCRAM at the server", () => {
  it("proves the password and verifies the server", async () => {
    const login = new UpstreamLogin(options);
    const server = scramServer("pencil");
    const first = await sent(login.receive(letter("R"), mechanisms("SCRAM-SHA-256")));
    expect(first.subarray(5, 19).toString()).toBe("SCRAM-SHA-256\0");
    const final = server.final(await sent(login.receive(letter("R"), server.first(first))));
    expect(final).toMatchObject({ isProven: true, isBound: true });
    expect(server.header()).toBe("n,,");
    await sent(login.receive(letter("R"), final.message));
    await loggedIn(login);
    expect(await login.receive(letter("Z"), ready)).toMatchObject({ kind: "done" });
  });

  const certificate = new X509Certificate(
    readFileSync(new URL("../../identity/testdata/server.pem", import.meta.url), "utf8"),
  ).raw;

  it.each([[["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]], [["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]]])(
    "is bound to the server's certificate where the server offers it (%j)",
    async (offered) => {
      const login = new UpstreamLogin({ ...options, serverCertificate: certificate });
      const server = scramServer("pencil");
      const first = await sent(login.receive(letter("R"), mechanisms(...offered)));
      expect(first.subarray(5, 23).toString()).toBe("SCRAM-SHA-256-PLUS");
      const answer = await sent(login.receive(letter("R"), server.first(first)));
      const binding = createHash("sha256").update(certificate).digest();
      expect(server.final(answer, binding)).toMatchObject({ isProven: true, isBound: true });
      expect(server.header()).toBe("p=tls-server-end-point,,");
    },
  );

  it("tells the server that it could have been bound, so that a stripped offer is noticed", async () => {
    const login = new UpstreamLogin({ ...options, serverCertificate: certificate });
    const first = await sent(login.receive(letter("R"), mechanisms("SCRAM-SHA-256")));
    expect(first.toString()).toContain("y,,n=,r=");
  });

  it("refuses to go on unbound where binding is required", async () => {
    const required = { ...options, channelBinding: "require" } as const;
    for (const more of [{}, { serverCertificate: certificate }])
      await failure(
        new UpstreamLogin({ ...required, ...more }).receive(letter("R"), mechanisms("SCRAM-SHA-256")),
      );
    await failure(new UpstreamLogin(required).receive(letter("R"), ok));
  });

  it("refuses a server that does not know the secret, or skips the proof", async () => {
    for (const step of ["wrong", "skipped", "early"] as const) {
      const login = new UpstreamLogin(options);
      const server = scramServer("pencil");
      const first = await sent(login.receive(letter("R"), mechanisms("SCRAM-SHA-256")));
      if (step === "early") {
        await failure(login.receive(letter("R"), ok));
        continue;
      }
      await sent(login.receive(letter("R"), server.first(first)));
      const message = step === "wrong" ? request(12, `v=${Buffer.alloc(32).toString("base64")}`) : ok;
      await failure(login.receive(letter("R"), message));
      await failure(login.receive(letter("R"), ok));
    }
  });

  it.each([
    ["a nonce that is not ours", "r=other,s=AAAA,i=4096"],
    ["our nonce alone", `r=${Buffer.alloc(18, 7).toString("base64")},s=AAAA,i=4096`],
    ["too many iterations", `r=${Buffer.alloc(18, 7).toString("base64")}x,s=AAAA,i=1000001`],
    ["no iterations", `r=${Buffer.alloc(18, 7).toString("base64")}x,s=AAAA,i=0`],
    ["a mandatory extension", "m=x,r=y,s=AAAA,i=1"],
    ["no salt", `r=${Buffer.alloc(18, 7).toString("base64")}x,s=,i=4096`],
  ])("refuses %s", async (_, serverFirst) => {
    const login = new UpstreamLogin(options);
    await sent(login.receive(letter("R"), mechanisms("SCRAM-SHA-256")));
    await failure(login.receive(letter("R"), request(11, serverFirst)));
  });

  it("refuses messages that come while it derives the key", async () => {
    const login = new UpstreamLogin(options);
    const server = scramServer("pencil");
    const first = await sent(login.receive(letter("R"), mechanisms("SCRAM-SHA-256")));
    const pending = login.receive(letter("R"), server.first(first));
    await failure(login.receive(letter("R"), ok));
    await failure(pending);
  });
});

describe("weaker methods", () => {
  it("never give a server the password unless they are allowed", async () => {
    await failure(new UpstreamLogin(options).receive(letter("R"), request(3)));
    await failure(new UpstreamLogin(options).receive(letter("R"), request(5, "salt")));
    const bound = { ...options, allowed: { cleartext: true, md5: true }, channelBinding: "require" } as const;
    await failure(new UpstreamLogin(bound).receive(letter("R"), request(3)));
  });

  it("work where they are allowed", async () => {
    const allowed = { ...options, allowed: { cleartext: true, md5: true } };
    const clear = await sent(new UpstreamLogin(allowed).receive(letter("R"), request(3)));
    expect(clear.subarray(5).toString()).toBe("pencil\0");
    const hashed = await sent(new UpstreamLogin(allowed).receive(letter("R"), request(5, "salt")));
    const md5 = (text: string) => createHash("md5").update(text).digest("hex");
    expect(hashed.subarray(5).toString()).toBe(`md5${md5(`${md5("pencils3cret-account")}salt`)}\0`);
    await failure(new UpstreamLogin(allowed).receive(letter("R"), request(5, "long salt")));
  });

  it.each([2, 6, 7, 8, 9, 13, -1])("refuse authentication request %i", async (code) => {
    await failure(new UpstreamLogin(options).receive(letter("R"), request(code)));
  });
});

describe("what follows authentication", () => {
  it("collects parameters, notices and the cancel key until the server is ready", async () => {
    const login = await loggedIn(new UpstreamLogin(options, 2));
    const notice = errorFrame({ severity: "NOTICE", sqlstate: "00000", message: "hello" }).subarray(5);
    await sent(login.receive(letter("N"), notice));
    await sent(login.receive(letter("S"), Buffer.from("server_version\x0018.1\0")));
    await sent(login.receive(letter("K"), Buffer.concat([request(4242), Buffer.alloc(32, 1)])));
    const step = await login.receive(letter("Z"), ready);
    expect(step).toMatchObject({
      kind: "done",
      session: { cancelKey: { processId: 4242, key: Buffer.alloc(32, 1) }, notices: [notice], minor: 2 },
    });
    expect(step.kind === "done" && step.session.parameters.get("server_version")).toBe("18.1");
  });

  it("takes an older minor version that the server negotiates, and no newer one", async () => {
    const body = (version: number, unknown = 0) => {
      const bytes = Buffer.alloc(8);
      bytes.writeInt32BE(version, 0);
      bytes.writeInt32BE(unknown, 4);
      return bytes;
    };
    const login = new UpstreamLogin(options, 2);
    await sent(login.receive(letter("v"), body(3 << 16)));
    await loggedIn(login);
    expect(await login.receive(letter("Z"), ready)).toMatchObject({ session: { minor: 0 } });
    await failure(new UpstreamLogin(options).receive(letter("v"), body((3 << 16) | 2)));
    await failure(new UpstreamLogin(options, 2).receive(letter("v"), body(3 << 16, 1)));
  });

  it.each([
    ["a short cancel key", "K", Buffer.alloc(7)],
    ["a long cancel key", "K", Buffer.alloc(261)],
    ["rows", "D", Buffer.alloc(2)],
    ["a second authentication", "R", ok],
    ["an unknown message", "!", Buffer.alloc(0)],
    ["a parameter without end", "S", Buffer.from("a\0b")],
    ["readiness inside a transaction", "Z", Buffer.from("T")],
  ])("refuses %s", async (_, type, body) => {
    await failure((await loggedIn(new UpstreamLogin(options))).receive(letter(type), body));
  });

  it.each(["S", "K", "Z", "D", "T"])("refuses %s before authentication", async (type) => {
    await failure(new UpstreamLogin(options).receive(letter(type), Buffer.from("I")));
  });

  it("gives up on a server that never becomes ready", async () => {
    const login = await loggedIn(new UpstreamLogin(options));
    let step: UpstreamLoginStep = { kind: "continue", send: [] };
    for (let count = 0; step.kind === "continue" && count < 2000; count++)
      step = await login.receive(letter("N"), Buffer.from("SNOTICE\0\0"));
    expect(step.kind).toBe("failed");
  });
});

describe("a server's refusal", () => {
  const refusal = (sqlstate: string) =>
    errorFrame({
      severity: "FATAL",
      sqlstate,
      message: 'password authentication failed for user "s3cret-account" at s3cret-host',
    }).subarray(5);

  it("reaches the log with its code and the client without account and host", async () => {
    const refused = await failure(new UpstreamLogin(options).receive(letter("E"), refusal("28P01")));
    expect(refused).toMatchObject({ sqlstate: "08006", serverSqlstate: "28P01" });
    expect(refused.logText).toContain("password authentication failed");
  });

  it.each(["3D000", "53300", "57P03"])("keeps the code %s, which helps the client", async (sqlstate) => {
    const refused = await failure(new UpstreamLogin(options).receive(letter("E"), refusal(sqlstate)));
    expect(refused.sqlstate).toBe(sqlstate);
  });
});

describe("hostile servers", () => {
  const type = fc.oneof(fc.constantFrom(..."REKSNZvDT").map(letter), fc.integer({ min: 0, max: 255 }));
  const body = fc.oneof(
    fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)),
    fc
      .tuple(fc.constantFrom(0, 3, 5, 10, 11, 12), fc.uint8Array({ maxLength: 40 }))
      .map(([code, bytes]) => request(code, Buffer.from(bytes))),
    fc.constant(mechanisms("SCRAM-SHA-256")),
    fc.constant(mechanisms("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")),
    fc.nat(3).map((count) => request(11, `r=${Buffer.alloc(18, 7).toString("base64")}x,s=AAAA,i=${count}`)),
    fc.constant(ready),
  );

  it("never make a login throw, and only a typed failure ends it early", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(type, body), { maxLength: 12 }),
        fc.uint8Array(),
        async (messages, der) => {
          const login = new UpstreamLogin({ ...options, serverCertificate: der }, 2);
          let hasEnded = false;
          for (const [kind, bytes] of messages) {
            const step = await login.receive(kind, bytes);
            expect(["continue", "done", "failed"]).toContain(step.kind);
            if (hasEnded) expect(step.kind).toBe("failed");
            hasEnded ||= step.kind !== "continue";
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  it("cannot make the certificate reader throw", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        endpointBinding(bytes);
      }),
    );
  });
});

describe("startup messages", () => {
  it("hold the version and the parameters", () => {
    const message = startupMessage(
      [
        ["user", "u"],
        ["database", "d"],
      ],
      2,
    );
    expect(message?.toString("latin1")).toBe("\0\0\0\x1b\0\x03\0\x02user\0u\0database\0d\0\0");
  });

  it("cannot be made with a NUL that would smuggle in another parameter", () => {
    expect(startupMessage([["database", "d\0options\0-c role=admin"]], 0)).toBeUndefined();
    expect(startupMessage([["user\0x", "d"]], 0)).toBeUndefined();
    expect(startupMessage([["", "d"]], 0)).toBeUndefined();
  });
});

describe("password preparation", () => {
  it.each([
    ["plain ASCII", "pencil", "pencil"],
    ["ASCII control characters", "a\u0007b", "a\u0007b"],
    ["a soft hyphen, which vanishes (RFC 4013)", "I\u00adX", "IX"],
    ["compatibility characters", "\u00aa", "a"],
    ["a roman numeral", "\u2168", "IX"],
    ["a non-breaking space", "a\u00a0b", "a b"],
    ["mixed directions, used raw", "\u0627\u0031", "\u0627\u0031"],
    ["a soft hyphen alone, used raw", "\u00ad", "\u00ad"],
    ["a prohibited character, used raw", "\u2168\ufffd", "\u2168\ufffd"],
  ])("treats %s as PostgreSQL does", (_, password, expected) => {
    expect(saslPrepared(password).toString()).toBe(expected);
  });
});

it("two logins use different nonces when given real randomness", async () => {
  const random = { ...options, randomBytes };
  const first = await sent(new UpstreamLogin(random).receive(letter("R"), mechanisms("SCRAM-SHA-256")));
  const second = await sent(new UpstreamLogin(random).receive(letter("R"), mechanisms("SCRAM-SHA-256")));
  expect(first.equals(second)).toBe(false);
});
