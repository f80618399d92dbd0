/** A signed-in client that speaks SSH as no honest one would: refused in the protocol's form, and nobody else notices. */

import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import {
  encoded,
  type Field,
  hostKeysFrom,
  logIn,
  made,
  message,
  Reader,
  type Transport,
} from "@sallyport/sidecar/ssh-testing";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { testWith } from "../drivers/test-with.ts";
import { type OpenSshServer, startOpenSsh } from "../targets/openssh.ts";
import { type SshGateway, startSshGateway } from "../targets/ssh-gateway.ts";

const found = await startOpenSsh();
const server = found as OpenSshServer;
const policies = `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: reader, namespace: default}
spec:
  resources: {names: [web]}
  subjects: [{user: "local:mallory"}]
  profile: ReadOnly
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: admin, namespace: default}
spec:
  resources: {names: [web]}
  subjects: [{user: "local:alice"}]
  profile: Admin
`;
let gateway: SshGateway;
let hostKey = "";

testWith("the machine has OpenSSH's server", found, async (ready) => {
  expect(ready.port).toBeGreaterThan(0);
});

interface Client {
  readonly transport: Transport;
  /** The next message of that type; rejects when the connection ends first. */
  readonly next: (type: number) => Promise<Reader>;
  readonly ended: Promise<void>;
}

async function client(user: string): Promise<Client> {
  const transport = await logIn({
    socket: connect(gateway.port, "127.0.0.1"),
    user: "app%web",
    password: gateway.issuer.token({ user }),
    hostKeys: hostKeysFrom([hostKey]),
    signal: AbortSignal.timeout(10_000),
  });
  const arrived: Buffer[] = [];
  let wake = () => {};
  let isOver = false;
  const ended = new Promise<void>((resolve) => {
    transport.receiver = {
      message: (payload) => {
        arrived.push(payload);
        wake();
      },
      ended: () => {
        isOver = true;
        resolve();
        wake();
      },
    };
  });
  const next = async (type: number): Promise<Reader> => {
    for (;;) {
      const at = arrived.findIndex((payload) => payload[0] === type);
      if (at >= 0) return new Reader(arrived.splice(at, 1)[0] as Buffer, 1);
      if (isOver) throw new Error("the connection ended");
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  return { transport, next, ended };
}

const openSession = (number: number, window = 1 << 20, packetMax = 32_768) =>
  made(message.channelOpen, "session", number, window, packetMax);

async function session(one: Client, number = 0): Promise<number> {
  one.transport.send(openSession(number));
  const confirmed = await one.next(message.channelOpenConfirmation);
  expect(confirmed.uint32()).toBe(number);
  return confirmed.uint32();
}

const sftpPacket = (type: number, ...fields: readonly Field[]) => {
  const body = encoded(...fields);
  return Buffer.concat([encoded(body.length + 1), Buffer.of(type), body]);
};

describe.runIf(found.kind === "ready")("a hostile client", () => {
  beforeAll(async () => {
    gateway = await startSshGateway({ server, policies });
    const known = gateway.options.find((one) => one.startsWith("UserKnownHostsFile="))?.split("=")[1] ?? "";
    hostKey = (await readFile(known, "utf8")).trim();
  }, 60_000);
  afterAll(async () => {
    const alive = await gateway.ssh([], ["echo alive"]);
    await gateway.stop();
    await server.stop();
    // Whatever was sent above: the same process serves others still.
    expect(alive.stdout).toBe("alive\n");
  }, 60_000);

  test("a channel with a packet size of 0 is refused", async () => {
    const one = await client("alice");
    one.transport.send(openSession(5, 1 << 20, 0));
    expect((await one.next(message.channelOpenFailure)).uint32()).toBe(5);
    one.transport.destroy();
  });

  test("a flood of channel opens is refused beyond a bound, and the connection goes on", async () => {
    const one = await client("alice");
    for (let number = 0; number < 500; number += 1)
      one.transport.send(openSession(number, 0xffff_ffff, 0xffff_ffff));
    let refused = 0;
    while (refused < 400) {
      await one.next(message.channelOpenFailure);
      refused += 1;
    }
    one.transport.destroy();
  });

  test("no data goes to the host in a channel in which nothing was permitted", async () => {
    const one = await client("alice");
    const channel = await session(one);
    one.transport.send(made(message.channelData, channel, "rm -rf /"));
    await one.ended;
  });

  test("a client cannot confirm a channel in the host's name, to reach one that is judged by its packets", async () => {
    const one = await client("mallory");
    const channel = await session(one);
    one.transport.send(openSession(9));
    for (let number = 0; number < 20; number += 1) {
      one.transport.send(made(message.channelOpenConfirmation, channel + 1, number, 1 << 20, 32_768));
    }
    await one.ended;
  });

  test("more than the window is a violation, not memory", async () => {
    const one = await client("alice");
    const channel = await session(one);
    one.transport.send(made(message.channelRequest, channel, "exec", true, "sleep 60"));
    await one.next(message.channelSuccess);
    const chunk = Buffer.alloc(32_000);
    for (let index = 0; index < 2000; index += 1)
      one.transport.send(made(message.channelData, channel, chunk));
    await one.ended;
  });

  test("a second command in a channel is refused, and so are unknown requests and messages", async () => {
    const one = await client("alice");
    const channel = await session(one);
    one.transport.send(made(message.channelRequest, channel, "exec", true, "sleep 60"));
    await one.next(message.channelSuccess);
    for (const [name, rest] of [
      ["exec", encoded("touch /tmp/second")],
      ["shell", Buffer.alloc(0)],
      ["pty-req", encoded("xterm", 80, 24, 0, 0, "")],
      ["unheard-of", Buffer.alloc(0)],
    ] as const) {
      one.transport.send(made(message.channelRequest, channel, name, true, { raw: rest }));
      expect((await one.next(message.channelFailure)).uint32(), name).toBe(0);
    }
    one.transport.send(Buffer.of(192));
    one.transport.send(made(message.globalRequest, "unheard-of@example.com", true));
    await one.next(message.requestFailure);
    one.transport.destroy();
  });

  test("malformed messages end the connection that sent them", async () => {
    for (const bad of [
      Buffer.of(message.channelOpen),
      Buffer.of(message.channelOpen, 255, 255, 255, 255, 1),
      made(message.channelRequest, 77, "exec", true),
      made(message.channelData, 0xffff_ffff, "x"),
      Buffer.concat([Buffer.of(message.globalRequest), encoded(0xffff_fff0)]),
      made(message.channelOpen, "direct-tcpip", 1, 1, 1, "host"),
    ]) {
      const one = await client("alice");
      one.transport.send(bad);
      await one.ended;
    }
  });

  test("an sftp stream is judged whatever its packets are cut into, and writing by a read handle is denied", async () => {
    const one = await client("mallory");
    const channel = await session(one);
    one.transport.send(made(message.channelRequest, channel, "subsystem", true, "sftp"));
    await one.next(message.channelSuccess);
    const path = join(server.folder, "victim");
    const { writeFile } = await import("node:fs/promises");
    await writeFile(path, "untouched");
    let rest = Buffer.alloc(0);
    const answer = async () => {
      while (rest.length < 4 || rest.length < 4 + rest.readUInt32BE(0)) {
        const data = await one.next(message.channelData);
        data.uint32();
        rest = Buffer.concat([rest, data.string()]);
      }
      const packet = rest.subarray(4, 4 + rest.readUInt32BE(0));
      rest = rest.subarray(4 + packet.length);
      return new Reader(Buffer.from(packet));
    };
    const send = (bytes: Buffer) => {
      for (const byte of bytes) one.transport.send(made(message.channelData, channel, Buffer.of(byte)));
    };
    send(sftpPacket(1, 6));
    expect((await answer()).byte()).toBe(2);
    const status = async () => {
      const found = await answer();
      expect(found.byte()).toBe(101);
      found.uint32();
      return found.uint32();
    };
    send(sftpPacket(3, 1, path, 0x2 | 0x8 | 0x10, 0));
    expect(await status()).toBe(3);
    send(sftpPacket(3, 2, path, 0x1, 0));
    const opened = await answer();
    expect(opened.byte()).toBe(102);
    opened.uint32();
    const handle = opened.string();
    send(sftpPacket(6, 3, handle, { raw: Buffer.alloc(8) }, "overwritten"));
    expect(await status()).toBe(3);
    send(sftpPacket(10, 4, handle, 1, { raw: Buffer.alloc(8) }));
    expect(await status()).toBe(3);
    send(sftpPacket(200, 5, "unknown@example.com", path));
    expect(await status()).toBe(8);
    send(sftpPacket(200, 6, "posix-rename@openssh.com", path, `${path}.x`));
    expect(await status()).toBe(3);
    expect(await readFile(path, "utf8")).toBe("untouched");
    one.transport.send(made(message.channelData, channel, encoded(0x7fff_ffff)));
    await one.ended;
  });
});
