/** A signed-in client that speaks SSH as no honest one would: refused in the protocol's form, and nobody else notices. */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { encoded, type Field, made, message, Reader } from "@sallyport/sidecar/ssh-testing";
import { afterAll, beforeAll, expect, test } from "vitest";
import { residentKilobytes } from "../bench/process-cost.ts";
import { describeWith } from "../drivers/test-with.ts";
import { type OpenSshServer, startOpenSsh } from "../targets/openssh.ts";
import { policyDocument } from "../targets/policies.ts";
import { type SshGateway, startSshGateway } from "../targets/ssh-gateway.ts";
import { type SshPeer, signedIn } from "../targets/ssh-peer.ts";
import { until } from "../targets/until.ts";

const found = await startOpenSsh(["AllowAgentForwarding yes"]);
const server = found as OpenSshServer;
const policies =
  policyDocument("web", "mallory", "  profile: ReadOnly") +
  policyDocument("web", "alice", "  profile: Admin");
let gateway: SshGateway;
let hostKey = "";

interface Client extends SshPeer {
  /** Whether the next answer to a channel request is a success. */
  readonly answer: () => Promise<boolean>;
}

async function client(user: string): Promise<Client> {
  const peer = await signedIn(gateway, hostKey, user);
  const { channelSuccess, channelFailure } = message;
  const answer = async () => (await peer.nextOf(channelSuccess, channelFailure))[0] === channelSuccess;
  return { ...peer, answer };
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

describeWith("a hostile client", found, () => {
  beforeAll(async () => {
    gateway = await startSshGateway({ server, policies, options: { forwarding: { agent: true } } });
    const known = gateway.options.find((one) => one.startsWith("UserKnownHostsFile="))?.split("=")[1] ?? "";
    hostKey = (await readFile(known, "utf8")).trim();
  });
  afterAll(async () => {
    const alive = await gateway.ssh([], ["echo alive"]);
    await gateway.stop();
    await server.stop();
    // Whatever was sent above: the same process serves others still.
    expect(alive.stdout).toBe("alive\n");
  });

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

  /** Starts a command in a channel of those measures. */
  async function started(one: Client, line: string, window: number, packetMax: number): Promise<number> {
    one.transport.send(openSession(0, window, packetMax));
    const confirmed = await one.next(message.channelOpenConfirmation);
    confirmed.uint32();
    const channel = confirmed.uint32();
    one.transport.send(made(message.channelRequest, channel, "exec", true, line));
    await one.next(message.channelSuccess);
    return channel;
  }

  test("S9 an agent that is confirmed only after policy has come to deny it is not reached", async () => {
    const agents = (action: string) =>
      policyDocument(
        "web",
        "agnes",
        `  profile: Admin\n  rules:\n  - {name: a, match: {commands: [forward.agent]}, action: ${action}}`,
      );
    const asks = async (one: Client, channel: number) => {
      one.transport.send(made(message.channelRequest, channel, "auth-agent-req@openssh.com", true));
      return await one.answer();
    };
    await gateway.write("agents.yaml", agents("Allow"));
    await until(async () => (await gateway.ssh([], ["echo in"], { user: { user: "agnes" } })).code === 0);
    const one = await client("agnes");
    const channel = await session(one);
    expect(await asks(one, channel)).toBe(true);
    one.transport.send(made(message.channelRequest, channel, "exec", true, "ssh-add -l; echo listed"));
    const opened = await one.next(message.channelOpen);
    expect(opened.text()).toBe("auth-agent@openssh.com");
    const asked = opened.uint32();
    await gateway.write("agents.yaml", agents("Deny"));
    await until(async () => {
      const other = await client("agnes");
      const isAllowed = await asks(other, await session(other));
      other.transport.destroy();
      return !isAllowed;
    });
    one.transport.send(made(message.channelOpenConfirmation, asked, 7, 1 << 20, 32_768));
    expect((await one.next(message.channelClose)).uint32()).toBe(7);
    // ssh-add asked nobody and the session goes on: what comes is its own channel's.
    const data = await one.next(message.channelData);
    expect([data.uint32(), data.string().toString()]).toEqual([0, "listed\n"]);
    one.transport.destroy();
  });

  test("S19 a window of nothing gets nothing, and what is granted comes in packets no larger than wanted", async () => {
    const one = await client("alice");
    const channel = await started(one, "printf 0123456789abcdef", 0, 4);
    let text = "";
    for (const grant of [3, 6, 100]) {
      const before = text.length;
      one.transport.send(made(message.channelWindowAdjust, channel, grant));
      while (text.length < Math.min(16, before + grant)) {
        const data = await one.next(message.channelData);
        data.uint32();
        const piece = data.string();
        expect(piece.length).toBeLessThanOrEqual(4);
        text += piece.toString();
      }
      expect(text.length).toBe(Math.min(16, before + grant));
    }
    expect(text).toBe("0123456789abcdef");
    one.transport.destroy();
  });

  test("S19 windows that add up beyond 32 bits stay windows", async () => {
    const one = await client("alice");
    const channel = await started(one, "echo fine", 0xffff_ffff, 32_768);
    for (let index = 0; index < 20; index += 1)
      one.transport.send(made(message.channelWindowAdjust, channel, 0xffff_ffff));
    const data = await one.next(message.channelData);
    data.uint32();
    expect(data.string().toString()).toBe("fine\n");
    one.transport.destroy();
  });

  test("S19 a client that never reads holds no more of the gateway's memory than a window", async () => {
    const before = await residentKilobytes(gateway.pid);
    const one = await client("alice");
    await started(one, "head -c 300000000 /dev/zero", 0, 32_768);
    // Whatever the host sends, somebody else is served meanwhile.
    for (let index = 0; index < 3; index += 1)
      expect((await gateway.ssh([], ["echo served"])).stdout).toBe("served\n");
    expect((await residentKilobytes(gateway.pid)) - before).toBeLessThan(100_000);
    one.transport.destroy();
  });

  test("S19 single bytes that the host does not take, and requests behind them, are bounded", async () => {
    const before = await residentKilobytes(gateway.pid);
    const one = await client("alice");
    const channel = await started(one, "sleep 60", 1 << 20, 32_768);
    for (let index = 0; index < 40_000; index += 1)
      one.transport.send(made(message.channelData, channel, Buffer.of(1)));
    for (let index = 0; index < 10_000; index += 1)
      one.transport.send(made(message.channelRequest, channel, "signal", false, "USR1"));
    expect((await gateway.ssh([], ["echo served"])).stdout).toBe("served\n");
    expect((await residentKilobytes(gateway.pid)) - before).toBeLessThan(150_000);
    one.transport.destroy();
  });

  test("S19 a storm of key exchanges slows the one that makes it, and nobody else", async () => {
    const one = await client("alice");
    let isOver = false;
    void one.ended.then(() => {
      isOver = true;
    });
    const storm = setInterval(() => {
      if (!isOver) one.transport.exchangeKeys();
    }, 5);
    try {
      for (let index = 0; index < 3; index += 1)
        expect((await gateway.ssh([], ["echo served"])).stdout).toBe("served\n");
    } finally {
      clearInterval(storm);
      one.transport.destroy();
    }
  });

  test("S20 host keys are proven to nobody by the host's name, and what is not known is refused in its turn", async () => {
    const one = await client("alice");
    for (const name of [
      "hostkeys-prove-00@openssh.com",
      "streamlocal-forward@openssh.com",
      "keepalive@openssh.com",
    ]) {
      one.transport.send(made(message.globalRequest, name, true, "x"));
      await one.next(message.requestFailure);
    }
    one.transport.destroy();
  });

  test("S8 a port that was never listened on is not cancelled, and none is listened on that was not offered", async () => {
    const one = await client("alice");
    for (const [name, address, port] of [
      ["cancel-tcpip-forward", "127.0.0.1", 22],
      ["tcpip-forward", "0.0.0.0", 0],
      ["tcpip-forward", "127.0.0.1", 1],
      ["tcpip-forward", "*", 0xffff_ffff],
    ] as const) {
      one.transport.send(made(message.globalRequest, name, true, address, port));
      await one.next(message.requestFailure);
    }
    one.transport.destroy();
  });

  test.each([["sftp "], [" sftp"], ["sftp/../x"], ["SFTP"], ["internal-sftp"], ["sftp\n"], [""]])(
    "S14 the subsystem %j is not sftp",
    async (name) => {
      const one = await client("alice");
      const channel = await session(one);
      one.transport.send(made(message.channelRequest, channel, "subsystem", true, name));
      await one.next(message.channelFailure);
      one.transport.destroy();
    },
  );

  test("S14 requests out of order do nothing: signals, sizes and terminals of nothing, twice, and after the end", async () => {
    const one = await client("alice");
    const channel = await session(one);
    const ask = async (name: string, answer: number, ...fields: readonly Field[]) => {
      one.transport.send(made(message.channelRequest, channel, name, true, ...fields));
      await one.next(answer);
    };
    await ask("signal", message.channelFailure, "KILL");
    await ask("window-change", message.channelFailure, 1, 1, 1, 1);
    await ask("pty-req", message.channelFailure, "../../tmp/x", 80, 24, 0, 0, "");
    await ask("pty-req", message.channelSuccess, "xterm", 0xffff_ffff, 0xffff_ffff, 0, 0, "");
    await ask("pty-req", message.channelFailure, "xterm", 80, 24, 0, 0, "");
    await ask("exec", message.channelSuccess, "cat");
    await ask("subsystem", message.channelFailure, "sftp");
    await ask("auth-agent-req@openssh.com", message.channelFailure);
    await ask("x11-req", message.channelFailure, false, "MIT-MAGIC-COOKIE-1", "00", 0);
    one.transport.send(made(message.channelClose, channel));
    await one.next(message.channelClose);
    // Whatever comes for a channel that is over goes nowhere.
    one.transport.send(made(message.channelRequest, channel, "exec", true, "touch /tmp/after"));
    one.transport.send(made(message.channelData, channel, "late"));
    expect(await session(one, 7)).toBeGreaterThan(0);
    one.transport.destroy();
  });

  test("S11 variables that load code, or name files, or hide bytes reach no host", async () => {
    const one = await client("alice");
    const channel = await session(one);
    for (const [name, value] of [
      ["LD_PRELOAD", "/tmp/x.so"],
      ["BASH_ENV", "/tmp/x"],
      ["PROMPT_COMMAND", "id"],
      ["GIT_SSH_COMMAND", "id"],
      ["LANGUAGE", "../../../tmp/x"],
      ["TZ", "/etc/shadow"],
      ["LC_ALL", "a\nb"],
      ["LC_ALL=x\nLD_PRELOAD", "x"],
      ["", ""],
    ] as const) {
      one.transport.send(made(message.channelRequest, channel, "env", true, name, value));
      expect((await one.next(message.channelFailure)).uint32(), name).toBe(0);
    }
    one.transport.send(made(message.channelRequest, channel, "env", true, "LC_ALL", "C.UTF-8"));
    await one.next(message.channelSuccess);
    one.transport.destroy();
  });

  test("S13 what is no text is refused in its channel, and the other channels go on", async () => {
    const one = await client("alice");
    const other = await session(one);
    one.transport.send(made(message.channelRequest, other, "exec", true, "sleep 60"));
    expect(await one.answer()).toBe(true);
    const notText = Buffer.from([0x63, 0x61, 0x74, 0xe4]);
    const withNul = Buffer.from("id\0 x");
    let number = 1;
    for (const bytes of [notText, withNul]) {
      const channel = await session(one, number);
      for (const [name, ...fields] of [
        ["env", "LC_ALL", bytes],
        ["env", bytes, "x"],
        ["subsystem", bytes],
        ["pty-req", bytes, 80, 24, 0, 0, ""],
      ] as const) {
        one.transport.send(made(message.channelRequest, channel, name, true, ...fields));
        expect((await one.next(message.channelFailure)).uint32(), name).toBe(number);
      }
      // Told like any command that is refused: an exit status, and why.
      one.transport.send(made(message.channelRequest, channel, "exec", true, bytes));
      expect(await one.answer()).toBe(true);
      const told = await one.next(message.channelExtendedData);
      expect([told.uint32(), told.uint32()]).toEqual([number, 1]);
      expect(told.text()).toContain("the command is no UTF-8 text");
      expect((await one.next(message.channelClose)).uint32()).toBe(number);
      one.transport.send(made(message.channelOpen, "direct-tcpip", 40, 1 << 20, 32_768, bytes, 22, "::1", 1));
      expect((await one.next(message.channelOpenFailure)).uint32()).toBe(40);
      number += 1;
    }
    one.transport.send(made(message.channelRequest, other, "window-change", true, 1, 1, 1, 1));
    expect((await one.next(message.channelFailure)).uint32()).toBe(0);
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
