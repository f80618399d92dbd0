/** S20 Hosts that are known by a certificate of an authority that the resource pins: real certificates, a real sshd. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import {
  hostKeysFrom,
  judgeHostKey,
  logIn,
  made,
  message,
  signingKeyOf,
  type Transport,
} from "@sallyport/sidecar/ssh-testing";
import { afterAll, beforeAll, expect, test } from "vitest";
import { describeWith } from "../drivers/test-with.ts";
import { type OpenSshServer, startOpenSsh } from "../targets/openssh.ts";
import { policyDocument } from "../targets/policies.ts";
import { startSshGateway } from "../targets/ssh-gateway.ts";

const run = promisify(execFile);
const found = await startOpenSsh();
const server = found as OpenSshServer;
let folder = "";
const listeners: Server[] = [];
const children: ChildProcess[] = [];

const path = (name: string) => join(folder, name);
const publicKey = async (name: string) => (await readFile(path(`${name}.pub`), "utf8")).trim();
const keygen = (...args: readonly string[]) => run("ssh-keygen", ["-q", ...args], { timeout: 30_000 });
const newKey = (name: string, ...kind: readonly string[]) =>
  keygen("-t", ...kind, "-N", "", "-C", "", "-f", path(name));
/** Certifies a copy of a key, so that one key may have several certificates. */
async function certify(certificate: string, key: string, authority: string, ...args: readonly string[]) {
  await writeFile(path(`${certificate}.pub`), await publicKey(key));
  await keygen("-s", path(authority), "-I", certificate, ...args, path(`${certificate}.pub`));
}

/** A host with these keys; each connection is a process of sshd (`-i`), as inetd would start it. */
async function host(key: string, certificate?: string, ...more: readonly string[]): Promise<number> {
  const settings = [`HostKey ${path(key)}`];
  if (certificate !== undefined) settings.push(`HostCertificate ${path(`${certificate}-cert.pub`)}`);
  settings.push(`AuthorizedKeysFile ${path("authorized_keys")}`, "StrictModes no", "UsePAM no", ...more);
  const file = path(`sshd-${listeners.length}`);
  await writeFile(file, `${settings.join("\n")}\n`);
  const listener = createServer({ pauseOnConnect: true }, (socket) => {
    socket.on("error", () => undefined);
    const child = spawn("/usr/sbin/sshd", ["-i", "-f", file], { stdio: [socket, socket, "ignore"] });
    children.push(child);
    // The process has it now.
    child.once("spawn", () => socket.destroy());
  });
  listeners.push(listener);
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  return (listener.address() as AddressInfo).port;
}

const dayMs = 86_400_000;

async function reach(port: number, lines: readonly string[], name = "host.test"): Promise<Transport> {
  return logIn({
    socket: connect(port, "127.0.0.1"),
    user: server.user,
    key: signingKeyOf(server.privateKey) as NonNullable<ReturnType<typeof signingKeyOf>>,
    hostKeys: hostKeysFrom(lines),
    expected: { host: name, port, nowMs: () => Date.now() },
    signal: AbortSignal.timeout(20_000),
  });
}

/** The error that `reach` ends with. */
async function refusal(port: number, lines: readonly string[], name?: string): Promise<string> {
  const error = await reach(port, lines, name).then(
    (transport) => {
      transport.destroy();
      return new Error("it was let in");
    },
    (cause: Error) => cause,
  );
  return error.message;
}

/** Keys are exchanged anew, and what was sent behind them is answered. */
async function goesOnWithNewKeys(transport: Transport): Promise<void> {
  const opened = new Promise<void>((resolve, reject) => {
    transport.receiver = {
      message: (payload) => {
        if (payload[0] === message.channelOpenConfirmation) resolve();
      },
      ended: (error) => reject(error ?? new Error("the connection ended")),
    };
  });
  transport.exchangeKeys();
  transport.send(made(message.channelOpen, "session", 0, 1 << 20, 32_768));
  await opened;
  transport.destroy();
}

const refusedBecause = (reason: string) =>
  `the host certificate of the server behind the gateway is refused: ${reason}`;

describeWith("host certificates", found, () => {
  let authority = "";

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "sallyport-host-ca-"));
    for (const name of ["ca", "other-ca", "ed25519"]) await newKey(name, "ed25519");
    await newKey("ecdsa", "ecdsa", "-b", "384");
    await newKey("rsa", "rsa", "-b", "2048");
    await newKey("rsa-ca", "rsa", "-b", "2048");
    await writeFile(path("gateway"), server.privateKey, { mode: 0o600 });
    const { stdout } = await run("ssh-keygen", ["-y", "-f", path("gateway")], { timeout: 30_000 });
    await writeFile(path("authorized_keys"), stdout);
    for (const key of ["ed25519", "ecdsa", "rsa"])
      await certify(`${key}-good`, key, "ca", "-h", "-n", "host.test,127.0.0.1", "-V", "-1d:+1d");
    authority = `@cert-authority * ${await publicKey("ca")}`;
  });

  afterAll(async () => {
    for (const listener of listeners) listener.close();
    for (const child of children) if (child.exitCode === null) child.kill("SIGKILL");
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  });

  test.each(["ed25519", "ecdsa", "rsa"])(
    "S20 a host with a certificate for an %s key is known by its authority, through every exchange of keys",
    async (key) => {
      const transport = await reach(await host(key, `${key}-good`), [authority]);
      await goesOnWithNewKeys(transport);
    },
  );

  test("S20 an authority may have an RSA key, which signs with SHA-2 and not with SHA-1", async () => {
    const lines = [`@cert-authority * ${await publicKey("rsa-ca")}`];
    await certify("by-rsa", "ed25519", "rsa-ca", "-h", "-n", "host.test", "-t", "rsa-sha2-256");
    (await reach(await host("ed25519", "by-rsa"), lines)).destroy();
    await certify("by-sha1", "ed25519", "rsa-ca", "-h", "-n", "host.test", "-t", "ssh-rsa");
    expect(await refusal(await host("ed25519", "by-sha1"), lines)).toBe(
      refusedBecause("its signature is wrong"),
    );
  });

  test("S20 a certificate of another authority is refused, also where its key would be good for others", async () => {
    await certify("foreign", "ed25519", "other-ca", "-h", "-n", "host.test");
    const port = await host("ed25519", "foreign");
    expect(await refusal(port, [authority])).toBe(refusedBecause("it is another authority's certificate"));
  });

  test("S20 an authority certifies hosts of its names alone, by name or by port", async () => {
    const port = await host("ed25519", "ed25519-good");
    const key = await publicKey("ca");
    for (const names of ["*.example.com", "*,!host.*", `[host.test]:${port + 1}`]) {
      const lines = [`@cert-authority ${names} ${key}`];
      expect(await refusal(port, lines), names).toBe(refusedBecause("it is another authority's certificate"));
    }
    for (const names of ["HOST.test", "x,*.test", `[host.test]:${port}`])
      (await reach(port, [`@cert-authority ${names} ${key}`])).destroy();
    expect(() => hostKeysFrom([`@cert-authority |1|abc=|def= ${key}`])).toThrow("cannot be read");
    expect(() => hostKeysFrom([`@cert-authority ${key}`])).toThrow("cannot be read");
    expect(() => hostKeysFrom([`@unheard-of * ${key}`])).toThrow("cannot be read");
  });

  test("S20 a certificate that has expired, or is not valid yet, is refused", async () => {
    await certify("expired", "ed25519", "ca", "-h", "-n", "host.test", "-V", "-2d:-1d");
    await certify("early", "ed25519", "ca", "-h", "-n", "host.test", "-V", "+1d:+2d");
    for (const name of ["expired", "early"]) {
      expect(await refusal(await host("ed25519", name), [authority]), name).toBe(
        refusedBecause("it has expired or is not valid yet"),
      );
    }
  });

  test("S20 a certificate that expires while a session goes on ends it at no exchange of keys", async () => {
    const port = await host("ed25519", "ed25519-good");
    let nowMs = Date.now();
    const transport = await logIn({
      socket: connect(port, "127.0.0.1"),
      user: server.user,
      key: signingKeyOf(server.privateKey) as NonNullable<ReturnType<typeof signingKeyOf>>,
      hostKeys: hostKeysFrom([authority]),
      expected: { host: "host.test", port, nowMs: () => nowMs },
      signal: AbortSignal.timeout(20_000),
    });
    nowMs += 2 * dayMs;
    await goesOnWithNewKeys(transport);
  });

  test("S20 a certificate for another host, or for any, is refused", async () => {
    await certify("for-any", "ed25519", "ca", "-h");
    await certify("for-all", "ed25519", "ca", "-h", "-n", "*");
    const ports = [await host("ed25519", "for-any"), await host("ed25519", "for-all")];
    for (const port of ports)
      expect(await refusal(port, [authority])).toBe(refusedBecause("it is for another host"));
    const good = await host("ed25519", "ed25519-good");
    for (const name of ["other.test", "host", "host.test.evil", ""])
      expect(await refusal(good, [authority], name), name).toBe(refusedBecause("it is for another host"));
    (await reach(good, [authority], "Host.Test.")).destroy();
  });

  test("S20 a certificate of a user is none of a host, whoever signed it", async () => {
    await certify("user", "ed25519", "ca", "-n", "host.test");
    // sshd itself loads no such certificate, so it is shown to the judge of certificates as a host would show it.
    const [, blob = ""] = (await readFile(path("user-cert.pub"), "utf8")).split(" ");
    const asked = { keys: hostKeysFrom([authority]), host: "host.test", port: 22, nowMs: Date.now() };
    expect(judgeHostKey(Buffer.from(blob, "base64"), asked)).toEqual({
      kind: "refused",
      reason: "it is no host certificate",
    });
    const [, good = ""] = (await readFile(path("ed25519-good-cert.pub"), "utf8")).split(" ");
    const whole = Buffer.from(good, "base64");
    expect(judgeHostKey(whole, asked).kind).toBe("expected");
    // Any other byte in it makes it another certificate, which nobody has signed.
    for (let at = 0; at < whole.length; at += 1) {
      const other = Buffer.from(whole);
      other[at] = (other[at] ?? 0) ^ 1;
      expect(judgeHostKey(other, asked).kind, String(at)).toBe("refused");
      expect(judgeHostKey(whole.subarray(0, at), asked).kind, String(at)).toBe("refused");
    }
  });

  test("S20 what is revoked is refused: the key, in a certificate and alone, and the authority", async () => {
    const port = await host("ed25519", "ed25519-good");
    for (const revoked of ["ed25519", "ca"]) {
      const lines = [authority, `@revoked * ${await publicKey(revoked)}`];
      expect(await refusal(port, lines), revoked).toBe(refusedBecause("it is revoked"));
    }
    const plain = await host("ed25519");
    const pinned = await publicKey("ed25519");
    (await reach(plain, [pinned])).destroy();
    expect(await refusal(plain, [pinned, `@revoked elsewhere ${pinned}`])).toContain("not the expected one");
  });

  test("S20 a host that has no certificate is refused where only an authority is pinned, and says so", async () => {
    expect(await refusal(await host("ed25519"), [authority])).toBe(
      "the server behind the gateway has no host key or certificate of a kind that is pinned",
    );
    // Beside the authority its own key may be pinned.
    (await reach(await host("ed25519"), [authority, await publicKey("ed25519")])).destroy();
  });

  test("S20 the gateway reaches such a host, and tells its client why it does not reach another", async () => {
    const policies = policyDocument("web", "alice", "  profile: Admin");
    const port = await host("ed25519", "ed25519-good");
    const settings = path(`sshd-${listeners.length - 1}`);
    const gateway = await startSshGateway({ server: { ...server, port, hostKey: authority }, policies });
    try {
      expect(await gateway.ssh([], ["echo in"])).toMatchObject({ code: 0, stdout: "in\n", stderr: "" });
      // Each connection reads them anew.
      await certify("stale", "ed25519", "ca", "-h", "-n", "127.0.0.1", "-V", "-2d:-1d");
      const text = await readFile(settings, "utf8");
      await writeFile(settings, text.replace("ed25519-good-cert", "stale-cert"));
      const refused = await gateway.ssh([], ["echo in"]);
      expect(refused).toMatchObject({ code: 255, stdout: "" });
      expect(refused.stderr).toContain(refusedBecause("it has expired or is not valid yet"));
    } finally {
      await gateway.stop();
    }
  });
});
