/** The gateway's own login at a real server. */
import { randomBytes, X509Certificate } from "node:crypto";
import { connect, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import {
  sslRequest,
  startupMessage,
  UpstreamLogin,
  type UpstreamLoginOptions,
  type UpstreamLoginStep,
} from "@sallyport/sidecar/postgres-login";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type PostgresServer, startPostgres, versionsUnderTest } from "../targets/postgres.ts";

let server: PostgresServer;
const unicodePassword = "I\u00adX\u00a0\u2168 ключ";

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    hba: [
      "host all old 127.0.0.1/32 md5",
      "host all plain 127.0.0.1/32 password",
      "host all trusted 127.0.0.1/32 trust",
    ],
    initSql: `CREATE ROLE app LOGIN PASSWORD 'app-secret';
      CREATE ROLE letters LOGIN PASSWORD '${unicodePassword}';
      CREATE ROLE plain LOGIN PASSWORD 'plain-secret';
      CREATE ROLE trusted LOGIN;
      SET password_encryption = 'md5';
      CREATE ROLE old LOGIN PASSWORD 'old-secret';`,
  });
});
afterAll(() => server.stop());

interface Attempt extends Partial<UpstreamLoginOptions> {
  readonly tls?: boolean;
  readonly database?: string;
  readonly minor?: 0 | 2;
}

async function login(attempt: Attempt): Promise<UpstreamLoginStep> {
  const { tls = true, database = "postgres", minor = 2, user = "app", ...rest } = attempt;
  let socket: Socket = connect(server.port, server.host);
  try {
    let certificate: Uint8Array | undefined;
    if (tls) {
      socket.write(sslRequest);
      await new Promise((resolve) => socket.once("data", resolve));
      const secured: TLSSocket = connectTls({ socket, ca: server.caPem, servername: "localhost" });
      await new Promise((resolve, reject) => secured.once("secureConnect", resolve).once("error", reject));
      certificate = secured.getPeerX509Certificate()?.raw;
      socket = secured;
    }
    const options = { user, password: "app-secret", randomBytes, ...rest };
    const machine = new UpstreamLogin(
      certificate === undefined ? options : { serverCertificate: certificate, ...options },
      minor,
    );
    socket.write(
      startupMessage(
        [
          ["user", user],
          ["database", database],
        ],
        minor,
      )!,
    );
    let bytes = Buffer.alloc(0);
    for await (const chunk of socket) {
      bytes = Buffer.concat([bytes, chunk as Buffer]);
      while (bytes.length >= 5 && bytes.length > bytes.readInt32BE(1)) {
        const length = bytes.readInt32BE(1);
        const step = await machine.receive(bytes[0]!, bytes.subarray(5, 1 + length));
        bytes = bytes.subarray(1 + length);
        if (step.kind !== "continue") return step;
        for (const message of step.send) socket.write(message);
      }
    }
    throw new Error("the server closed the connection");
  } finally {
    socket.destroy();
  }
}

const { newest, keyBytes } =
  (versionsUnderTest[0] ?? 18) >= 18 ? { newest: 2, keyBytes: 32 } : { newest: 0, keyBytes: 4 };

describe(`a login at PostgreSQL ${versionsUnderTest[0]}`, () => {
  it.each([
    ["bound to the server's certificate", { channelBinding: "require" }],
    ["over TLS without binding", { channelBinding: "disable" }],
    ["without TLS", { tls: false }],
  ] as const)("succeeds with SCRAM %s", async (_, attempt) => {
    const step = await login(attempt);
    if (step.kind !== "done") throw new Error(JSON.stringify(step));
    expect(step.session.parameters.get("server_version")).toMatch(new RegExp(`^${server.version}\\b`));
    expect(step.session.minor).toBe(newest);
    expect(step.session.cancelKey?.key).toHaveLength(keyBytes);
  });

  it("gets a cancel key of four bytes with protocol 3.0", async () => {
    const step = await login({ minor: 0 });
    expect(step.kind === "done" && step.session.cancelKey?.key.length).toBe(4);
  });

  it("prepares passwords as the server does", async () => {
    expect((await login({ user: "letters", password: unicodePassword })).kind).toBe("done");
    expect((await login({ user: "letters", password: "IX IX ключ" })).kind).toBe("done");
    expect((await login({ user: "letters", password: "IX IX ключи" })).kind).toBe("failed");
  });

  it("fails with a wrong password, and tells the client neither account nor reason", async () => {
    const step = await login({ password: "wrong" });
    expect(step).toMatchObject({ kind: "failed", sqlstate: "08006", serverSqlstate: "28P01" });
    expect(step.kind === "failed" && step.publicText).not.toContain("app");
  });

  it("tells the client that a database does not exist", async () => {
    expect(await login({ database: "nowhere" })).toMatchObject({ kind: "failed", sqlstate: "3D000" });
  });

  it("refuses md5 and clear text unless they are allowed", async () => {
    for (const [user, password] of [
      ["old", "old-secret"],
      ["plain", "plain-secret"],
    ] as const) {
      expect((await login({ user, password })).kind).toBe("failed");
      expect((await login({ user, password, allowed: { md5: true, cleartext: true } })).kind).toBe("done");
    }
  });

  it("takes a server's trust, but not where binding is required", async () => {
    expect((await login({ user: "trusted" })).kind).toBe("done");
    expect((await login({ user: "trusted", channelBinding: "require" })).kind).toBe("failed");
  });

  it("refuses binding to another certificate than the server's", async () => {
    const other = await server.clientCertificate("app");
    const step = await login({ serverCertificate: new X509Certificate(other.certPem).raw });
    expect(step.kind).toBe("failed");
  });
});
