/**
 * The gateway's server under bytes that nobody would send: streams of a real client that are changed on their way, from
 * the first byte on, and messages of a signed-in client made of whatever fields. SALLYPORT_SSH_FUZZ is how many
 * connections each test makes (12), SALLYPORT_SEED where chance begins.
 */
import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { encoded, type Field, hostKeysFrom, logIn, made, message } from "@sallyport/sidecar/ssh-testing";
import { afterAll, beforeAll, expect, test } from "vitest";
import { residentKilobytes } from "../bench/process-cost.ts";
import { describeWith } from "../drivers/test-with.ts";
import { type OpenSshServer, startOpenSsh } from "../targets/openssh.ts";
import { policyDocument } from "../targets/policies.ts";
import { type SshGateway, startSshGateway } from "../targets/ssh-gateway.ts";
import { peerOf, sessionOf, signedIn } from "../targets/ssh-peer.ts";

const found = await startOpenSsh();
const server = found as OpenSshServer;
const runs = Number(process.env.SALLYPORT_SSH_FUZZ ?? 12);
const seed = Number(process.env.SALLYPORT_SEED ?? 9);
let gateway: SshGateway;
let hostKey = "";

/** Chance that can be had again (mulberry32). */
function chance(from: number) {
  let state = from >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
  const below = (end: number) => Math.floor(next() * end);
  const one = <T>(of: readonly T[]): T => of[below(of.length)] as T;
  const bytes = (length: number) => Buffer.from(Array.from({ length }, () => below(256)));
  return { below, one, bytes };
}
type Chance = ReturnType<typeof chance>;

/** A chunk with one thing wrong. */
function changed(chunk: Buffer, { below, one, bytes }: Chance): Buffer {
  const at = below(chunk.length);
  const [before, after] = [chunk.subarray(0, at), chunk.subarray(at)];
  switch (one(["flip", "set", "cut", "drop", "twice", "more"])) {
    case "flip": {
      const other = Buffer.from(chunk);
      other[at] = (other[at] ?? 0) ^ (1 << below(8));
      return other;
    }
    case "set": {
      const other = Buffer.from(chunk);
      other.fill(one([0, 0x7f, 0xff]), at, Math.min(chunk.length, at + 1 + below(8)));
      return other;
    }
    case "cut":
      return before;
    case "drop":
      return Buffer.concat([before, after.subarray(1 + below(64))]);
    case "twice":
      return Buffer.concat([chunk, chunk]);
    default:
      return Buffer.concat([before, bytes(1 + below(200)), after]);
  }
}

/** Stands between client and gateway, and changes what the client sends from a certain byte on. */
async function between(
  from: number,
  luck: Chance,
): Promise<{ readonly port: number; readonly close: () => void }> {
  const sockets = new Set<Socket>();
  const listener = createServer((client) => {
    const upstream = connect(gateway.port, "127.0.0.1");
    let passed = 0;
    let isChanged = false;
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket
        .on("error", () => undefined)
        .once("close", () => {
          client.destroy();
          upstream.destroy();
        });
    }
    client.on("data", (chunk: Buffer) => {
      passed += chunk.length;
      const isMeant = !isChanged && passed > from;
      isChanged ||= isMeant;
      upstream.write(isMeant ? changed(chunk, luck) : chunk);
    });
    upstream.pipe(client);
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  return {
    port: (listener.address() as { port: number }).port,
    close: () => {
      listener.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

describeWith("under what nobody would send", found, () => {
  let before = 0;
  let kept: readonly string[] = [];

  beforeAll(async () => {
    const rest =
      "  profile: ReadOnly\n  rules:\n  - {name: one, match: {commands: [exec], objects: [echo]}, action: Allow}\n";
    gateway = await startSshGateway({
      server,
      policies: policyDocument("web", "alice", "  profile: Admin") + policyDocument("web", "mallory", rest),
      options: { forwarding: { local: ["127.0.0.1:1"], remote: ["127.0.0.1:0"], agent: true, x11: true } },
      args: ["--failed-logins", "0", "--failed-logins-by-address", "0"],
    });
    const known = gateway.options.find((one) => one.startsWith("UserKnownHostsFile="))?.split("=")[1] ?? "";
    hostKey = (await readFile(known, "utf8")).trim();
    await mkdir(join(server.folder, "folder"));
    await writeFile(join(server.folder, "file"), "kept\n");
    kept = (await readdir(server.folder)).sort();
    // The first sessions compile what they need.
    for (let index = 0; index < 3; index += 1) (await signedIn(gateway, hostKey)).transport.destroy();
    before = await residentKilobytes(gateway.pid);
  }, 60_000);
  afterAll(async () => {
    await gateway?.stop();
    await server.stop();
  });

  /** The same process serves others, has not grown, and nothing has happened at the host. */
  async function nothingHasHappened(): Promise<void> {
    expect((await gateway.ssh([], ["echo served"])).stdout).toBe("served\n");
    expect((await readdir(server.folder)).sort()).toEqual(kept);
    expect(await readFile(join(server.folder, "file"), "utf8")).toBe("kept\n");
    expect((await residentKilobytes(gateway.pid)) - before).toBeLessThan(200_000);
  }

  test("S19 a client's stream that is changed anywhere gets no further than what was whole", async () => {
    for (let run = 0; run < runs; run += 1) {
      const luck = chance(seed * 1000 + run);
      // Identification, key exchange, login, or what comes behind: a login takes some two thousand bytes.
      const from = luck.below(luck.one([30, 1200, 3000]));
      const way = await between(from, luck);
      const asked = `touch ${join(server.folder, `from-${run}`)}`;
      try {
        const transport = await logIn({
          socket: connect(way.port, "127.0.0.1"),
          user: "app%web",
          password: gateway.issuer.token({ user: "mallory" }),
          hostKeys: hostKeysFrom([hostKey]),
          // Where bytes are missing both wait for each other.
          signal: AbortSignal.timeout(1_500),
        });
        const peer = peerOf(transport);
        peer.send(message.channelOpen, "session", 0, 1 << 20, 32_768);
        peer.send(message.channelRequest, 1, "exec", true, asked);
        setTimeout(() => transport.destroy(), 200).unref();
        await peer.ended;
      } catch {
        // Refused, as it should be.
      } finally {
        way.close();
      }
    }
    await nothingHasHappened();
  }, 240_000);

  test("S19 messages of whatever fields, in whatever order, do nothing that policy does not allow", async () => {
    const types = [
      ...Object.values(message).filter((type) => type >= message.globalRequest),
      0,
      2,
      4,
      192,
      255,
    ];
    for (let run = 0; run < runs; run += 1) {
      const luck = chance(seed * 2000 + run);
      const numbers = [0, 1, 2, 63, 0x7fff_ffff, 0xffff_ffff, 1 << 20, 32_768];
      const file = join(server.folder, `made-${run}`);
      const names = [
        ...["session", "direct-tcpip", "forwarded-tcpip", "x11", "auth-agent@openssh.com", "tun@openssh.com"],
        ...[
          "direct-streamlocal@openssh.com",
          "tcpip-forward",
          "cancel-tcpip-forward",
          "exec",
          "shell",
          "env",
        ],
        ...[
          "streamlocal-forward@openssh.com",
          "subsystem",
          "sftp",
          "pty-req",
          "signal",
          "window-change",
          "break",
        ],
        ...[
          "x11-req",
          "auth-agent-req@openssh.com",
          "exit-status",
          "eow@openssh.com",
          "xterm",
          "KILL",
          "LC_ALL",
        ],
        ...[
          "no-more-sessions@openssh.com",
          "certify@sallyport.dev",
          "127.0.0.1",
          "localhost",
          "",
          "\u0000",
          "%n%s",
        ],
        ...[`touch ${file}`, `echo; touch ${file}`, `scp -t ${file}`, `echo $(touch ${file})`],
      ];
      const field = (): Field =>
        luck.one([
          () => luck.one(numbers),
          () => luck.one(names),
          () => luck.below(2) === 0,
          () => luck.bytes(luck.below(40)),
          () => ({ raw: luck.bytes(luck.below(20)) }),
        ])();
      const peer = await signedIn(gateway, hostKey, "mallory");
      const channel = await sessionOf(peer);
      for (let sent = 0; sent < 40; sent += 1) {
        const type = luck.one(types);
        const isOfChannel = type >= message.channelWindowAdjust && type <= message.channelFailure;
        const head: Field[] = isOfChannel ? [luck.below(4) > 0 ? channel : luck.one(numbers)] : [];
        if (type === message.channelRequest || type === message.globalRequest || type === message.channelOpen)
          head.push(luck.one(names));
        if (type === message.channelRequest || type === message.globalRequest) head.push(luck.below(2) === 0);
        const payload = made(type, ...head, ...Array.from({ length: luck.below(5) }, field));
        peer.transport.send(
          luck.below(12) === 0 ? payload.subarray(0, 1 + luck.below(payload.length)) : payload,
        );
      }
      // Whatever is left of it still answers, or is over.
      peer.send(message.globalRequest, "is-anybody-there", true);
      await Promise.race([peer.next(message.requestFailure).catch(() => undefined), peer.ended]);
      peer.transport.destroy();
    }
    await nothingHasHappened();
  }, 240_000);

  test("S4 S19 packets of sftp of whatever fields change nothing for whoever may only read", async () => {
    for (let run = 0; run < runs; run += 1) {
      const luck = chance(seed * 3000 + run);
      const file = join(server.folder, "file");
      const names: readonly Field[] = [
        ...[
          file,
          `${file}.new`,
          join(server.folder, "folder"),
          join(server.folder, "folder/../file"),
          "~",
          ".",
        ],
        ...["posix-rename@openssh.com", "hardlink@openssh.com", "lsetstat@openssh.com", "copy-data", ""],
        ...["fsync@openssh.com", "statvfs@openssh.com", "limits@openssh.com", "expand-path@openssh.com"],
        randomBytes(4),
        "h0",
        "\u0000\u0000\u0000\u0000",
      ];
      const numbers = [0, 1, 2, 8, 16, 26, 59, 0x7fff_ffff, 0xffff_ffff, 0xf000_0000];
      const peer = await signedIn(gateway, hostKey, "mallory");
      const channel = await sessionOf(peer);
      peer.send(message.channelRequest, channel, "subsystem", true, "sftp");
      await peer.next(message.channelSuccess);
      const packet = (type: number, ...fields: readonly Field[]) => {
        const body = encoded(...fields);
        return Buffer.concat([encoded(body.length + 1), Buffer.of(type), body]);
      };
      const stream = [packet(1, 3)];
      for (let sent = 1; sent < 40; sent += 1) {
        const type = luck.one([
          3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 200, 200, 255,
        ]);
        const field = () => (luck.below(2) === 0 ? luck.one(names) : luck.one(numbers));
        const id = luck.below(10) === 0 ? luck.one(numbers) : sent;
        stream.push(packet(type, id, luck.one(names), ...Array.from({ length: luck.below(4) }, field)));
      }
      const whole = Buffer.concat(stream);
      // One in three has something wrong in its frames, too.
      const sent = luck.below(3) === 0 ? changed(whole, luck) : whole;
      for (let at = 0; at < sent.length; ) {
        const piece = sent.subarray(at, at + 1 + luck.below(4000));
        peer.send(message.channelData, channel, piece);
        at += piece.length;
      }
      peer.send(message.channelEof, channel);
      await Promise.race([peer.next(message.channelClose).catch(() => undefined), peer.ended]);
      peer.transport.destroy();
    }
    await nothingHasHappened();
  }, 240_000);
});
