/**
 * Hosts that are not what they should be, or do what sshd rarely does: what they say reaches the client whole where it
 * may, and ends their own session where it may not. Nobody else notices. S1, S7, S9, S10, S19 and S22 of the cases.
 */
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { encoded, type Field, made, message, Reader } from "@sallyport/sidecar/ssh-testing";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { residentKilobytes } from "../bench/process-cost.ts";
import { testWith } from "../drivers/test-with.ts";
import { openSshClient } from "../targets/openssh.ts";
import { policyDocument } from "../targets/policies.ts";
import { type SshGateway, startSshGateway } from "../targets/ssh-gateway.ts";
import { type HostConnection, type ScriptedHost, startScriptedHost } from "../targets/ssh-host.ts";
import { type SshPeer, sessionOf, signedIn } from "../targets/ssh-peer.ts";

let host: ScriptedHost;
let gateway: SshGateway;
let hostKey = "";
const pem = () =>
  generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString();

/** A client and the host's end of the connection that the gateway made for it. */
async function both(user = "alice"): Promise<{ readonly client: SshPeer; readonly there: HostConnection }> {
  const arrives = host.connection();
  const client = await signedIn(gateway, hostKey, user);
  return { client, there: await arrives };
}

/** A session channel through both ends: its number at the host's side and at the client's. */
async function channelOf(
  client: SshPeer,
  there: HostConnection,
  window?: number,
): Promise<{ readonly own: number; readonly far: number }> {
  const [own, far] = await Promise.all([sessionOf(client, 0, window), there.channel()]);
  return { own, far };
}

async function running(client: SshPeer, there: HostConnection, window?: number): Promise<number> {
  const { own, far } = await channelOf(client, there, window);
  client.send(message.channelRequest, own, "exec", true, "run");
  await there.request("exec");
  await client.next(message.channelSuccess);
  return far;
}

/** Somebody else is served, whatever a host does to its own session. */
async function othersAreServed(): Promise<void> {
  const { client, there } = await both();
  const far = await running(client, there);
  there.send(message.channelData, far, "served");
  const data = await client.next(message.channelData);
  data.uint32();
  expect(data.string().toString()).toBe("served");
  client.transport.destroy();
}

beforeAll(async () => {
  host = await startScriptedHost(pem());
  gateway = await startSshGateway({
    server: host.server,
    policies: [
      policyDocument("web", "alice", "  profile: Admin"),
      policyDocument("web", "bob", "  rules:\n  - {name: run, match: {commands: [exec]}, action: Allow}\n"),
    ].join(""),
    options: { forwarding: { x11: true, agent: true, local: ["10.1.2.3:1", "10.1.2.3:2"] } },
    args: ["--failed-logins", "0", "--failed-logins-by-address", "0"],
  });
  const known = gateway.options.find((one) => one.startsWith("UserKnownHostsFile="))?.split("=")[1] ?? "";
  hostKey = (await readFile(known, "utf8")).trim();
}, 60_000);
afterAll(async () => {
  await gateway?.stop();
  await host?.server.stop();
});

describe("what a host does", () => {
  test("S1 requests for a terminal, its size and signals arrive byte for byte", async () => {
    const { client, there } = await both();
    const { own } = await channelOf(client, there);
    const modes = randomBytes(200);
    const terminal = encoded("xterm-256color", 80, 24, 640, 480, modes);
    client.send(message.channelRequest, own, "pty-req", true, { raw: terminal });
    expect(await there.request("pty-req")).toEqual(terminal);
    client.send(message.channelRequest, own, "shell", true);
    expect(await there.request("shell")).toEqual(Buffer.alloc(0));
    for (const [name, fields] of [
      ["window-change", encoded(132, 43, 1, 2)],
      ["signal", encoded("INT")],
      ["break", encoded(500)],
    ] as const) {
      client.send(message.channelRequest, own, name, false, { raw: fields });
      expect(await there.request(name), name).toEqual(fields);
    }
    client.transport.destroy();
  });

  test("S1 a signal that ended a command is told with its core, its text and its language", async () => {
    const { client, there } = await both();
    const far = await running(client, there);
    const fields = encoded("ABRT", true, "dumped \u00fc", "de");
    there.send(message.channelRequest, far, "exit-signal", false, { raw: fields });
    const told = await client.next(message.channelRequest);
    expect([told.uint32(), told.text(), told.boolean()]).toEqual([0, "exit-signal", false]);
    expect(told.rest).toEqual(fields);
    client.transport.destroy();
  });

  test("S1 what a host sends behind its end of output is not put before it", async () => {
    const { client, there } = await both();
    const far = await running(client, there);
    there.send(message.channelData, far, "last");
    there.send(message.channelEof, far);
    there.send(message.channelRequest, far, "exit-status", false, 5);
    there.send(message.channelClose, far);
    const order: number[] = [];
    while (order.at(-1) !== message.channelClose) {
      const { channelData, channelEof, channelRequest, channelClose } = message;
      order.push((await client.nextOf(channelData, channelEof, channelRequest, channelClose))[0] ?? 0);
    }
    expect(order).toEqual([
      message.channelData,
      message.channelEof,
      message.channelRequest,
      message.channelClose,
    ]);
    client.transport.destroy();
  });

  test("S10 X11 is forwarded where it is offered and allowed, and the host opens none before or beside it", async () => {
    const { client, there } = await both();
    const { own } = await channelOf(client, there);
    const origin = encoded("127.0.0.1", 4711);
    const open = (type: string) =>
      there.send(message.channelOpen, type, 50, 1 << 20, 32_768, { raw: origin });
    open("x11");
    expect((await there.next(message.channelOpenFailure)).uint32()).toBe(50);
    const wish = encoded(false, "MIT-MAGIC-COOKIE-1", "00ff", 0);
    client.send(message.channelRequest, own, "x11-req", true, { raw: wish });
    expect(await there.request("x11-req")).toEqual(wish);
    await client.next(message.channelSuccess);
    open("x11");
    const opened = await client.next(message.channelOpen);
    expect(opened.text()).toBe("x11");
    const number = opened.uint32();
    opened.uint32();
    opened.uint32();
    expect(opened.rest).toEqual(origin);
    client.send(message.channelOpenConfirmation, number, 9, 1 << 20, 32_768);
    await there.next(message.channelOpenConfirmation);
    there.send(message.channelData, number, "draw");
    const drawn = await client.next(message.channelData);
    expect([drawn.uint32(), drawn.string().toString()]).toEqual([9, "draw"]);
    // What was allowed is X11 and nothing else.
    for (const type of [
      "auth-agent@openssh.com",
      "forwarded-tcpip",
      "session",
      "direct-tcpip",
      "x11-other",
    ]) {
      open(type);
      expect((await there.next(message.channelOpenFailure)).uint32(), type).toBe(50);
    }
    client.transport.destroy();
  });

  test("S9 S10 agent and X11 that no policy allows reach no host, and the session goes on", async () => {
    const { client, there } = await both("bob");
    const { own } = await channelOf(client, there);
    client.send(message.channelRequest, own, "auth-agent-req@openssh.com", true);
    await client.next(message.channelFailure);
    client.send(message.channelRequest, own, "x11-req", true, false, "MIT-MAGIC-COOKIE-1", "00ff", 0);
    await client.next(message.channelFailure);
    client.send(message.channelRequest, own, "exec", true, "run");
    // The first that the host hears of in this channel.
    const heard = await there.take((payload) => payload[0] === message.channelRequest);
    expect(new Reader(heard, 5).text()).toBe("exec");
    client.transport.destroy();
  });

  test("S7 a destination that does not answer keeps no other waiting, and no command", async () => {
    const { client, there } = await both();
    const open = (number: number, port: number) =>
      client.send(
        message.channelOpen,
        "direct-tcpip",
        number,
        1 << 20,
        32_768,
        "10.1.2.3",
        port,
        "127.0.0.1",
        1,
      );
    const asked = async () => {
      const payload = await there.take(
        (one) => one[0] === message.channelOpen && new Reader(one, 1).text() === "direct-tcpip",
      );
      const reader = new Reader(payload, 1);
      reader.text();
      const number = reader.uint32();
      reader.uint32();
      reader.uint32();
      return { number, host: reader.text(), port: reader.uint32() };
    };
    open(1, 1);
    // It is never answered.
    expect(await asked()).toMatchObject({ host: "10.1.2.3", port: 1 });
    open(2, 2);
    const two = await asked();
    expect(two.port).toBe(2);
    there.send(message.channelOpenConfirmation, two.number, 70, 1 << 20, 32_768);
    expect((await client.next(message.channelOpenConfirmation)).uint32()).toBe(2);
    there.send(message.channelData, two.number, "through");
    const data = await client.next(message.channelData);
    expect([data.uint32(), data.string().toString()]).toEqual([2, "through"]);
    await running(client, there);
    client.transport.destroy();
  });

  testWith(
    "S9 the gateway logs in with its own key alone: a host that refuses it is asked for nothing else",
    openSshClient,
    async () => {
      const requests: Buffer[] = [];
      host.onLogin((transport, payload) => {
        requests.push(payload);
        transport.send(made(message.userauthFailure, "publickey,password,keyboard-interactive", true));
      });
      try {
        const refused = await gateway.ssh(["-A"], ["true"], { environment: { SSH_AUTH_SOCK: "/nowhere" } });
        expect(refused).toMatchObject({ code: 255, stdout: "" });
        expect(refused.stderr).toContain("sallyport:");
      } finally {
        host.onLogin(undefined);
      }
      expect(requests).toHaveLength(1);
      await othersAreServed();
    },
  );
});

describe("a hostile host", () => {
  const garbage = (socket: Socket, bytes: Uint8Array) => {
    socket.on("error", () => undefined).resume();
    const more = () => {
      while (!socket.destroyed && socket.write(bytes)) {
        // As fast as it is taken, without end.
      }
    };
    socket.on("drain", more);
    more();
  };

  for (const [what, bytes] of [
    ["an identification without end", Buffer.alloc(16_384, "S")],
    ["lines before it without end", Buffer.from("welcome\r\n".repeat(1000))],
    ["packets of nonsense", Buffer.concat([Buffer.from("SSH-2.0-x\r\n"), Buffer.alloc(16_384, 0x5a)])],
  ] as const) {
    testWith(`${what}: the login ends within its time, and no memory is held`, openSshClient, async () => {
      const before = await residentKilobytes(gateway.pid);
      host.onSocket((socket) => garbage(socket, bytes));
      try {
        const refused = await gateway.ssh([], ["true"]);
        expect(refused).toMatchObject({ code: 255, stdout: "" });
      } finally {
        host.onSocket(undefined);
      }
      expect((await residentKilobytes(gateway.pid)) - before).toBeLessThan(100_000);
      await othersAreServed();
    });
  }

  testWith("banners without end end the login", openSshClient, async () => {
    host.onLogin((transport) => {
      for (let index = 0; index < 40; index += 1)
        transport.send(made(message.userauthBanner, "welcome\r\n".repeat(1000), ""));
      transport.send(made(message.userauthSuccess));
    });
    try {
      const refused = await gateway.ssh([], ["true"]);
      expect(refused).toMatchObject({ code: 255, stdout: "" });
      expect(refused.stderr).not.toContain("welcome");
    } finally {
      host.onLogin(undefined);
    }
    await othersAreServed();
  });

  test.each<readonly [string, (there: HostConnection, far: number) => void]>([
    [
      "more than the window",
      (there, far) => {
        for (let index = 0; index < 40; index += 1)
          there.send(message.channelData, far, Buffer.alloc(32_000));
      },
    ],
    ["data in a channel that nobody opened", (there) => there.send(message.channelData, 0x7fff_fff0, "x")],
    ["an answer that nobody asked for", (there, far) => there.send(message.channelSuccess, far)],
    [
      "a channel that nobody asked for, confirmed",
      (there) => there.send(message.channelOpenConfirmation, 0x7fff_fff0, 0, 1, 1),
    ],
    ["a message that is cut", (there) => there.transport.send(Buffer.of(message.channelData, 0, 0))],
    [
      "a string beyond its message",
      (there, far) => there.transport.send(made(message.channelData, far, 0xffff_fff0)),
    ],
    [
      "an exit status that is cut",
      (there, far) => there.send(message.channelRequest, far, "exit-status", false),
    ],
  ])("S19 %s ends that session, and no other", async (_, misbehave) => {
    const { client, there } = await both();
    // The client takes nothing, so that nothing is paid back meanwhile.
    misbehave(there, await running(client, there, 0));
    await client.ended;
    await othersAreServed();
  });

  test("what a host asks of its own accord is answered by the gateway, and nothing of it reaches the client", async () => {
    const { client, there } = await both();
    const far = await running(client, there);
    for (const name of ["hostkeys-00@openssh.com", "keepalive@openssh.com", "tcpip-forward", "unheard-of"]) {
      there.send(message.globalRequest, name, true, "x");
      await there.next(message.requestFailure);
    }
    for (const name of ["exec", "shell", "subsystem", "env", "auth-agent-req@openssh.com", "unheard-of"]) {
      there.send(message.channelRequest, far, name, true, "x");
      await there.next(message.channelFailure);
    }
    there.send(message.userauthBanner, "a banner in mid-session", "");
    there.send(message.channelData, far, "and on");
    const next = await client.take(() => true);
    expect(next[0]).toBe(message.channelData);
    client.transport.destroy();
  });

  test("a channel whose packets may hold nothing is refused to the host, and closed to the client", async () => {
    const { client, there } = await both();
    client.send(message.channelOpen, "session", 3, 1 << 20, 32_768);
    const payload = await there.take((one) => one[0] === message.channelOpen);
    const reader = new Reader(payload, 1);
    reader.text();
    const fields: readonly Field[] = [reader.uint32(), 0, 1 << 20, 0];
    there.send(message.channelOpenConfirmation, ...fields);
    await client.ended;
    await othersAreServed();
  });
});
