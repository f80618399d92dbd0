/**
 * How people get in by SSH, with OpenSSH's own client: device codes of a real OpenID Connect provider, certificates of
 * the gateway, and what an attacker tries at the door. S18, S20, S21 and S22 of the cases for SSH.
 */
import { type ChildProcess, execFile } from "node:child_process";
import { mkdtemp, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { made, message, Reader, Transport } from "@sallyport/sidecar/ssh-testing";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { describeWith } from "../drivers/test-with.ts";
import { type DeviceProvider, startDeviceProvider } from "../targets/device-provider.ts";
import { sallyportCommand } from "../targets/gateway.ts";
import { type OpenSshServer, startOpenSsh } from "../targets/openssh.ts";
import { type SshGateway, startSshGateway } from "../targets/ssh-gateway.ts";
import { until } from "../targets/until.ts";

const found = await startOpenSsh();
const server = found as OpenSshServer;
let provider: DeviceProvider;
let gateway: SshGateway;
/** Connections that were begun before all tests, and what they wait for. */
let halfWay: readonly Promise<void>[] = [];

const manifests = (issuer: string) => `
apiVersion: sallyport.dev/v1alpha1
kind: IdentityProvider
metadata: {name: corp}
spec: {type: oidc, prefix: "corp:", oidc: {issuer: "${issuer}"}}
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: admin, namespace: default}
spec:
  resources: {names: [web]}
  subjects: [{user: "local:alice"}, {user: "corp:alice"}, {user: "local:bob"}]
  profile: Admin
`;

interface Door {
  readonly transport: Transport;
  readonly next: () => Promise<Reader>;
  readonly isOver: () => boolean;
  readonly ended: Promise<void>;
}

/** A client that has exchanged keys and asked for the login service, and says what it likes from there. */
async function door(): Promise<Door> {
  const arrived: Buffer[] = [];
  let [wake, isOver] = [() => {}, false];
  const over = Promise.withResolvers<void>();
  const transport = new Transport({
    socket: connect(gateway.port, "127.0.0.1"),
    role: { kind: "client", expectedKey: (shown) => shown, keyAlgorithms: ["ssh-ed25519"] },
    receiver: {
      message: (payload) => {
        arrived.push(payload);
        wake();
      },
      ready: () => transport.send(made(message.serviceRequest, "ssh-userauth")),
      ended: () => {
        isOver = true;
        over.resolve();
        wake();
      },
    },
  });
  const next = async (): Promise<Reader> => {
    for (;;) {
      const payload = arrived.shift();
      if (payload !== undefined) return new Reader(payload);
      if (isOver) throw new Error("the connection ended");
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  expect((await next()).byte()).toBe(message.serviceAccept);
  return { transport, next, isOver: () => isOver, ended: over.promise };
}

const auth = (user: string, method: string, ...rest: readonly (string | boolean)[]) =>
  made(message.userauthRequest, user, "ssh-connection", method, ...rest);

/** Clients that stop: silent, after a name, after keys, after a refusal. */
async function stopHalfWay(): Promise<readonly Promise<void>[]> {
  const left = (said: string) =>
    new Promise<void>((resolve) => {
      const socket = connect(gateway.port, "127.0.0.1", () => socket.write(said));
      socket.on("error", () => undefined).resume();
      socket.once("close", () => resolve());
    });
  const afterRefusal = await door();
  afterRefusal.transport.send(auth("app%web", "none"));
  expect((await afterRefusal.next()).byte()).toBe(message.userauthFailure);
  const { ended } = await door();
  return [left(""), left("SSH-2.0-half\r\n"), ended, afterRefusal.ended];
}

describeWith("at the door", found, () => {
  beforeAll(async () => {
    provider = await startDeviceProvider("sallyport:default/web");
    gateway = await startSshGateway({
      server,
      policies: manifests(provider.issuer),
      resource: { identity: { providers: ["local", "corp"] } },
      options: { deviceLogin: { clientId: provider.clientId } },
      args: ["--failed-logins", "0", "--failed-logins-by-address", "0", "--login-timeout", "15"],
    });
    halfWay = await stopHalfWay();
  });
  afterAll(async () => {
    const alive = await gateway?.ssh([], ["echo alive"]);
    await gateway?.stop();
    await provider?.stop();
    await server.stop();
    // Whatever was tried: the same process lets the next one in.
    expect(alive?.stdout).toBe("alive\n");
  });

  /** ssh at the prompt; `prompt` is what it was asked, which a script keeps in the file `asked`. */
  function atPrompt(asked: string): { readonly child: ChildProcess; readonly prompt: () => Promise<string> } {
    // On a terminal, as people are: into a pipe OpenSSH would print the instruction only at its end.
    const words = [
      // The first value of an option counts.
      ...["ssh", "-o", "PreferredAuthentications=keyboard-interactive", ...gateway.options],
      ...[gateway.destination, "echo in"],
    ];
    const line = words.map((word) => `'${word}'`).join(" ");
    const child = gateway.start("script", ["-qfec", line, "/dev/null"], {
      environment: { SSH_ASKPASS: join(gateway.home, "wait-for-me"), ASKED: asked, SHELL: "/bin/sh" },
    });
    const prompt = async () => until(() => readFile(asked, "utf8").catch(() => ""));
    return { child, prompt };
  }

  test("S18 a device code that somebody confirms in a browser opens the session", async () => {
    // Types Enter once the file says that the person has come back from the browser.
    await writeFile(
      join(gateway.home, "wait-for-me"),
      '#!/bin/sh\nprintf "%s" "$1" > "$ASKED.new"; mv "$ASKED.new" "$ASKED"\n' +
        'n=0; while [ ! -e "$ASKED.done" ] && [ $n -lt 200 ]; do sleep 0.1; n=$((n+1)); done; echo\n',
      { mode: 0o700 },
    );
    const asked = join(gateway.home, "asked");
    const { child, prompt } = atPrompt(asked);
    let [out, err] = ["", ""];
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      out += text;
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      err += text;
    });
    const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
    await prompt();
    // OpenSSH prints the instruction and asks the script for the answer alone.
    const text = await until(() => /[\s\S]*press Enter[\s\S]*/.exec(`${out}${err}`)?.[0]);
    const url = /http:\/\/127\.0\.0\.1:\d+\/device\S*/.exec(text)?.[0] ?? "";
    const code = /confirm the code ([A-Z-]+)/.exec(text)?.[1] ?? "none";
    expect(url).toContain(code);
    await provider.confirm(url, "alice");
    await writeFile(`${asked}.done`, "");
    expect(await ended, err).toBe(0);
    expect(out).toMatch(/\nin\r?\n$/);
  });

  test("S21 what is asked at the prompt is the same for a resource that is there and for one that is not", async () => {
    const asked = async (user: string) => {
      const one = await door();
      one.transport.send(auth(user, "keyboard-interactive", "", ""));
      const question = await one.next();
      expect(question.byte()).toBe(message.userauthInfoRequest);
      const text = `${question.text()}\n${question.text()}`;
      one.transport.destroy();
      return text.replaceAll(/[A-Z]{4}-[A-Z]{4}/g, "CODE");
    };
    const known = await asked("app%web");
    expect(known).toContain("confirm the code CODE");
    for (const user of ["app%nothing", "app%other/web", "%"]) expect(await asked(user), user).toBe(known);
  });

  test("S18 a token pasted at the same prompt is taken too, and each question is asked for one user alone", async () => {
    const one = await door();
    one.transport.send(auth("app%web", "keyboard-interactive", "", ""));
    expect((await one.next()).byte()).toBe(message.userauthInfoRequest);
    one.transport.send(made(message.userauthInfoResponse, 1, gateway.issuer.token({ user: "alice" })));
    expect((await one.next()).byte()).toBe(message.userauthSuccess);
    one.transport.destroy();

    // Another user name between question and answer: the answer belongs to nobody.
    const two = await door();
    two.transport.send(auth("app%web", "keyboard-interactive", "", ""));
    expect((await two.next()).byte()).toBe(message.userauthInfoRequest);
    two.transport.send(auth("app%nothing", "none"));
    expect((await two.next()).byte()).toBe(message.userauthFailure);
    two.transport.send(made(message.userauthInfoResponse, 1, gateway.issuer.token({ user: "alice" })));
    await two.ended;
  });

  test("S21 whoever has no good token is not told which resources there are", async () => {
    const expired = gateway.issuer.token({ user: "alice", lifetimeSeconds: -100 });
    const foreign = gateway.issuer.token({ user: "alice", claims: { aud: "sallyport:default/other" } });
    const told = async (user: string, token: string) => {
      const one = await door();
      one.transport.send(auth(user, "password", false, token));
      const banner = await one.next();
      expect(banner.byte()).toBe(message.userauthBanner);
      expect((await one.next()).byte()).toBe(message.userauthFailure);
      one.transport.destroy();
      return banner.text();
    };
    for (const token of ["nonsense", expired, foreign]) {
      const known = await told("app%web", token);
      for (const user of ["app%nothing", "app%other/web", "%", "a b%web"])
        expect(await told(user, token), user).toBe(known);
    }
    // Whoever has one for the resource that answers here learns of a slip of the pen.
    const good = gateway.issuer.token({ user: "alice" });
    expect(await told("app%wep", good)).toContain("no resource of this gateway that the token is for");
  });

  test("S18 no number of answers but one is taken, and an answer nobody asked for ends the connection", async () => {
    for (const count of [0, 2, 0xffff_ffff]) {
      const one = await door();
      one.transport.send(auth("app%web", "keyboard-interactive", "", ""));
      await one.next();
      one.transport.send(made(message.userauthInfoResponse, count, "x"));
      expect((await one.next()).byte()).toBe(message.userauthFailure);
      one.transport.destroy();
    }
    const two = await door();
    two.transport.send(made(message.userauthInfoResponse, 1, "x"));
    await two.ended;
  });

  test.each([
    ["none", auth("app%web", "none")],
    ["an empty password", auth("app%web", "password", false, "")],
    ["prompts that are never answered", auth("app%web", "keyboard-interactive", "", "")],
    ["a change of the password", auth("app%web", "password", true, "a", "b")],
    ["an unknown method", auth("app%web", "gssapi-with-mic", "x")],
  ])("S18 a flood of %s ends after a bound", async (_, request) => {
    const one = await door();
    let answers = 0;
    while (!one.isOver()) {
      one.transport.send(request);
      const answer = await one.next().catch(() => undefined);
      if (answer === undefined) break;
      if (answer.byte() !== message.userauthBanner) answers += 1;
      expect(answers).toBeLessThan(25);
    }
    expect(answers).toBeGreaterThanOrEqual(10);
  });

  test("S18 device codes are bounded: who floods the prompt makes the provider work a few times only", async () => {
    const texts: string[] = [];
    for (let index = 0; index < 16; index += 1) {
      const one = await door();
      one.transport.send(auth("app%web", "keyboard-interactive", "", ""));
      const asked = await one.next();
      asked.byte();
      asked.text();
      texts.push(asked.text());
      one.transport.destroy();
    }
    expect(texts.some((text) => !text.includes("confirm the code"))).toBe(true);
  });

  test("S18 what is no login is refused before one: channels, another service, success in the client's name", async () => {
    for (const bad of [
      made(message.channelOpen, "session", 0, 1, 1),
      made(message.userauthSuccess),
      made(message.globalRequest, "certify@sallyport.dev", true, ""),
      made(message.userauthRequest, "app%web", "ssh-userauth", "none"),
      made(message.serviceRequest, "ssh-connection"),
      Buffer.of(message.userauthRequest, 255, 255, 255, 255),
    ]) {
      const one = await door();
      one.transport.send(bad);
      await one.ended;
    }
  });

  test("S19 keys exchanged again and again before any login end the connection", async () => {
    const one = await door();
    const { isOver, ended, transport } = one;
    const again = setInterval(() => {
      if (!isOver()) transport.exchangeKeys();
    }, 20);
    try {
      await ended;
    } finally {
      clearInterval(again);
    }
  });

  test("S19 key exchange is strict (Terrapin): offered so, and a packet slipped in before new keys ends it", async () => {
    const { stderr } = await promisify(execFile)(
      "ssh",
      [...["-vv", ...gateway.options, "-o", "BatchMode=yes", gateway.destination, "true"]],
      { timeout: 15_000, env: { PATH: process.env.PATH, HOME: gateway.home } },
    ).catch((error) => error);
    expect(stderr).toContain("kex-strict-s-v00@openssh.com");
    expect(stderr).toContain("resetting send seqnr");
    // Without it clients sign by SHA-1 with RSA keys, or not at all.
    expect(stderr).toMatch(/server-sig-algs=<[^>]*\brsa-sha2-512,rsa-sha2-256\b/);
    const replies = await slipIn();
    // Nothing of the encrypted part was reached.
    expect(replies).toBe("closed");
  });

  /** Sends an identification, a KEXINIT that asks for strict order, and then SSH_MSG_IGNORE. */
  function slipIn(): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket: Socket = connect(gateway.port, "127.0.0.1");
      const timer = setTimeout(() => reject(new Error("still open")), 40_000);
      socket.on("error", () => undefined);
      socket.once("close", () => {
        clearTimeout(timer);
        resolve("closed");
      });
      socket.resume();
      const names = (text: string) => text;
      const kexinit = made(
        20,
        { raw: Buffer.alloc(16) },
        names("curve25519-sha256,kex-strict-c-v00@openssh.com"),
        names("ssh-ed25519"),
        ...["aes128-gcm@openssh.com", "aes128-gcm@openssh.com", "hmac-sha2-256", "hmac-sha2-256"],
        ...["none", "none", "", ""],
        false,
        0,
      );
      const packet = (payload: Buffer) => {
        const padding = 8 - ((payload.length + 5) % 8) + 8;
        const head = Buffer.alloc(5);
        head.writeUInt32BE(payload.length + 1 + padding);
        head[4] = padding;
        return Buffer.concat([head, payload, Buffer.alloc(padding)]);
      };
      socket.write(Buffer.concat([Buffer.from("SSH-2.0-slip\r\n"), packet(kexinit), packet(made(2, "x"))]));
    });
  }

  test.each([
    ["an identification without end", Buffer.alloc(300_000, "S")],
    ["lines before it", Buffer.from("hello\r\nSSH-2.0-x\r\n")],
    ["SSH 1", Buffer.from("SSH-1.5-old\r\n")],
    [
      "a packet that claims to be huge",
      Buffer.concat([Buffer.from("SSH-2.0-x\r\n"), Buffer.alloc(64, 0x7f)]),
    ],
    ["a packet of length zero", Buffer.concat([Buffer.from("SSH-2.0-x\r\n"), Buffer.alloc(64)])],
    ["HTTP", Buffer.from("GET / HTTP/1.1\r\nhost: x\r\n\r\n")],
    ["nothing but line ends", Buffer.alloc(100_000, "\n")],
  ])("S19 %s ends that connection", async (_, bytes) => {
    await new Promise<void>((resolve, reject) => {
      const socket = connect(gateway.port, "127.0.0.1", () => socket.write(bytes));
      const timer = setTimeout(() => reject(new Error("still open")), 40_000);
      socket.on("error", () => undefined).resume();
      socket.once("close", () => {
        clearTimeout(timer);
        resolve();
      });
    });
  });

  test("S21 control characters in what a client says of itself reach no log or list as they came", async () => {
    const socket = connect(gateway.port, "127.0.0.1");
    await new Promise<void>((resolve) => {
      socket.on("error", () => undefined).once("close", () => resolve());
      socket.resume();
      socket.write("SSH-2.0-evil\u001b]0;owned\u0007\r\n");
      socket.end();
    });
    expect(gateway.logs()).not.toContain("\u001b]0;owned");
  });

  describe("certificates", () => {
    let folder = "";
    const file = () => join(folder, "default_web");
    const bare = () =>
      gateway.options.map((one) =>
        one === "PreferredAuthentications=password" ? "PreferredAuthentications=publickey" : one,
      );
    const withKey = (key: string, more: readonly string[] = []) =>
      gateway.run("ssh", [...bare(), ...more, "-i", key, gateway.destination, "echo in"]);

    beforeAll(async () => {
      folder = join(gateway.home, "login");
      expect(await gateway.login(folder)).toMatchObject({ code: 0 });
    });

    test("S18 a certificate of the gateway lets its key in", async () => {
      expect(await withKey(file())).toMatchObject({ code: 0, stdout: "in\n" });
    });

    test("S19 the stanza of `sallyport login` leads to the gateway, by AES-GCM", async () => {
      const done = await gateway.run("ssh", ["-v", "-F", join(folder, "config"), "web", "echo in"]);
      expect(done).toMatchObject({ code: 0, stdout: "in\n" });
      for (const way of ["server->client", "client->server"])
        expect(done.stderr).toContain(`kex: ${way} cipher: aes128-gcm@openssh.com`);
    });

    test("S18 somebody else's key with my certificate, and mine with somebody else's, let nobody in", async () => {
      const other = join(gateway.home, "login-bob");
      expect(await gateway.login(other, { user: "bob" })).toMatchObject({ code: 0 });
      const mixed = join(gateway.home, "mixed");
      await writeFile(mixed, await readFile(join(other, "default_web")), { mode: 0o600 });
      await writeFile(`${mixed}-cert.pub`, await readFile(`${file()}-cert.pub`));
      expect((await withKey(mixed, ["-o", `CertificateFile=${mixed}-cert.pub`])).code).toBe(255);
    });

    test("S18 a certificate does not buy another one: it ends with the token that it was given for", async () => {
      const renewed = await gateway.run("ssh", [
        ...bare(),
        "-i",
        file(),
        "-l",
        ".certify%default/web",
        "127.0.0.1",
      ]);
      expect(renewed.code).toBe(255);
      expect(renewed.stderr).toContain("Permission denied");
    });

    test("S18 certificates of another authority are refused, whatever principals they name", async () => {
      const own = join(gateway.home, "own-ca");
      const keygen = (...args: string[]) => promisify(execFile)("ssh-keygen", args, { timeout: 10_000 });
      await keygen("-q", "-t", "ed25519", "-N", "", "-f", own);
      const key = join(gateway.home, "forged");
      await keygen("-q", "-t", "ed25519", "-N", "", "-f", key);
      await keygen("-q", "-s", own, "-I", "local:alice", "-n", "default/web,app,root", `${key}.pub`);
      const refused = await withKey(key);
      expect(refused.code).toBe(255);
      expect(refused.stderr).toContain("a certificate is refused: it is another authority's certificate");
      expect(refused.stderr).toContain("sallyport login");
      // Told alike for what does not exist, and once however many there are.
      const [type = "", base64 = ""] = (await readFile(`${key}-cert.pub`, "utf8")).split(" ");
      const blob = Buffer.from(base64, "base64");
      for (const user of ["app%web", "app%nothing"]) {
        const one = await door();
        const offer = made(message.userauthRequest, user, "ssh-connection", "publickey", false, type, blob);
        const answers: number[] = [];
        for (let time = 0; time < 3; time += 1) one.transport.send(offer);
        while (answers.length < 4) answers.push((await one.next()).byte());
        const { userauthBanner: banner, userauthFailure: failure } = message;
        expect(answers, user).toEqual([banner, failure, failure, failure]);
        one.transport.destroy();
      }
    });

    test("S18 `sallyport login` writes a key for its owner alone, whatever lies where it goes", async () => {
      const other = await mkdtemp(join(gateway.home, "crowded-"));
      const [elsewhere, key] = [join(other, "elsewhere"), join(other, "default_web")];
      await writeFile(key, "old", { mode: 0o666 });
      await writeFile(elsewhere, "mine");
      await symlink(elsewhere, `${key}-cert.pub`);
      await symlink(elsewhere, join(other, "config"));
      expect(await gateway.login(other)).toMatchObject({ code: 0 });
      for (const name of ["default_web", "default_web-cert.pub", "config"])
        expect((await stat(join(other, name))).mode & 0o777, name).toBe(0o600);
      expect(await readFile(elsewhere, "utf8")).toBe("mine");
      expect(await withKey(key)).toMatchObject({ code: 0, stdout: "in\n" });
    });

    test("S20 `sallyport login` sends no token to a gateway whose key known_hosts revokes", async () => {
      const [line = ""] = (await readFile(join(gateway.home, "known_hosts"), "utf8")).trim().split("\n");
      const key = line.split(" ").slice(1).join(" ");
      const others = `@revoked * ${server.hostKey}\n@revoked |1|x|y ssh-dss AAAA\n@revoked\n`;
      const logIn = async (...revoked: readonly string[]) => {
        const known = join(gateway.home, "known_hosts_revoked");
        await writeFile(known, [line, others, ...revoked].join("\n"));
        const words = ["login", "--ssh", `127.0.0.1:${gateway.port}`, "--resource", "default/web"];
        const files = ["--known-hosts", known, "--folder", join(gateway.home, "revoked")];
        return gateway.run(process.execPath, [...sallyportCommand, ...words, "--account", "app", ...files]);
      };
      expect(await logIn()).toMatchObject({ code: 0 });
      for (const names of ["*", "another.example.com", "|1|c2FsdA==|aGFzaA=="]) {
        expect(await logIn(`@revoked ${names} ${key}`), names).toMatchObject({
          code: 1,
          stderr: expect.stringContaining("issued no certificate"),
        });
      }
    });

    test("S20 the key that clients meet is the one that the gateway announces", async () => {
      const [line = ""] = (await readFile(join(gateway.home, "known_hosts"), "utf8")).trim().split("\n");
      const { stdout } = await promisify(execFile)(
        "ssh-keyscan",
        ["-p", String(gateway.port), "-T", "5", "127.0.0.1"],
        { timeout: 15_000 },
      );
      expect(stdout).toContain(line.split(" ").slice(1).join(" "));
    });
  });

  test("S22 whoever stops half way is let go in the time of a login", async () => {
    expect(halfWay).toHaveLength(4);
    await Promise.all(halfWay);
  }, 45_000);
});
