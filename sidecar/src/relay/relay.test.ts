import { connect, createServer, type Socket } from "node:net";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Relay, type RelayedSession } from "./relay.ts";

const open: Socket[] = [];
afterEach(() => {
  for (const socket of open.splice(0)) socket.destroy();
});

/** Both ends of one TCP connection on this machine. */
async function pair(): Promise<{ near: Socket; far: Socket }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("no address");
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  const far = connect(address.port, "127.0.0.1");
  const near = await accepted;
  server.close();
  open.push(near, far);
  for (const socket of [near, far]) socket.on("error", () => undefined);
  return { near, far };
}

async function relayed(session: (relay: Relay) => RelayedSession) {
  const client = await pair();
  const upstream = await pair();
  const relay = new Relay(client.near, upstream.near);
  const over = relay.run(session(relay));
  return { relay, over, client: client.far, upstream: upstream.far };
}

const passing = (relay: Relay): RelayedSession => ({
  fromClient: (chunk) => {
    relay.toUpstream(chunk);
    return undefined;
  },
  fromUpstream: (chunk) => relay.toClient(chunk),
  end: () => undefined,
});

describe("relay", () => {
  it("moves bytes both ways and ends when the client goes", async () => {
    const { over, client, upstream } = await relayed(passing);
    const heard: string[] = [];
    upstream.on("data", (chunk: Buffer) => {
      heard.push(chunk.toString());
      upstream.write("pong");
    });
    client.on("data", (chunk: Buffer) => heard.push(chunk.toString()));
    client.write("ping");
    await vi.waitFor(() => expect(heard).toEqual(["ping", "pong"]), { timeout: 20_000 });
    client.end();
    expect(await over).toEqual({ kind: "clientClosed" });
  });

  it("reads ahead of a session that holds as much as fits into little memory, single bytes or not", async () => {
    let release: () => void = () => undefined;
    let seenChunks = 0;
    let passed = 0;
    const { relay, client, over } = await relayed(() => ({
      fromClient: (chunk) => {
        passed += chunk.length;
        if (passed > 1) return undefined;
        return new Promise<void>((resolve) => {
          release = resolve;
        });
      },
      fromUpstream: () => undefined,
      end: () => undefined,
    }));
    client.setNoDelay(true);
    client.write("h");
    await vi.waitFor(() => expect(passed).toBe(1), { timeout: 20_000 });
    relay.readAhead(() => {
      seenChunks += 1;
    });
    for (let count = 0; count < 8_000; count += 1) {
      client.write("x");
      await new Promise((resolve) => setImmediate(resolve));
    }
    // A quarter of a megabyte, with what each chunk takes beside its bytes.
    expect(seenChunks).toBeGreaterThan(100);
    expect(seenChunks).toBeLessThan(2_100);
    release();
    await vi.waitFor(() => expect(passed).toBe(8_001), { timeout: 20_000 });
    client.destroy();
    await over;
  });

  it("reads nothing more of the client while a command is held", async () => {
    let release: () => void = () => undefined;
    const chunks: number[] = [];
    const { client, over } = await relayed(() => ({
      fromClient: (chunk) => {
        chunks.push(chunk.length);
        return new Promise<void>((resolve) => {
          release = resolve;
        });
      },
      fromUpstream: () => undefined,
      end: () => undefined,
    }));
    client.write("held");
    await vi.waitFor(() => expect(chunks).toEqual([4]), { timeout: 20_000 });
    client.write("behind");
    await new Promise((resolve) => setImmediate(resolve));
    expect(chunks).toEqual([4]);
    release();
    await vi.waitFor(() => expect(chunks).toEqual([4, 6]), { timeout: 20_000 });
    client.destroy();
    await over;
  });

  it("stops reading the server while the client does not take what it sends (C23)", async () => {
    const { relay, client, upstream } = await relayed(passing);
    client.pause();
    const chunk = Buffer.alloc(1024 * 1024, 1);
    let taken = 0;
    const fill = () => {
      while (taken < 64) {
        taken += 1;
        if (!upstream.write(chunk)) return;
      }
    };
    upstream.on("drain", fill);
    fill();
    let before = -1;
    await vi.waitFor(
      () => {
        const now = relay.bytesToClient;
        const isStill = now === before && now > 0;
        before = now;
        expect(isStill).toBe(true);
      },
      { timeout: 20_000, interval: 100 },
    );
    expect(relay.bytesToClient).toBeLessThan(32 * 1024 * 1024);
    let received = 0;
    client.on("data", (bytes: Buffer) => {
      received += bytes.length;
    });
    client.resume();
    await vi.waitFor(() => expect(received).toBe(64 * chunk.length), { timeout: 20_000 });
  });

  it("passes on what came while its memory is used again, whatever the client's pace", async () => {
    const { client, upstream } = await relayed((relay) => ({ ...passing(relay), hasPassed: () => true }));
    const sent = Buffer.alloc(8 * 1024 * 1024);
    for (let at = 0; at < sent.length; at += 4) sent.writeUInt32BE(at, at);
    const received: Buffer[] = [];
    let length = 0;
    client.on("data", (chunk: Buffer) => {
      received.push(chunk);
      length += chunk.length;
      // Stops now and then, so that writes of all kinds come up.
      if (received.length % 16 === 0) {
        client.pause();
        setImmediate(() => client.resume());
      }
    });
    for (let at = 0; at < sent.length; at += 1024 * 1024) upstream.write(sent.subarray(at, at + 1024 * 1024));
    await vi.waitFor(() => expect(length).toBe(sent.length), { timeout: 20_000 });
    expect(Buffer.concat(received).equals(sent)).toBe(true);
  });

  it("ends as failed when the session throws, and wakes what it holds", async () => {
    const end = vi.fn();
    const { over, client } = await relayed(() => ({
      fromClient: () => {
        throw new Error("broken");
      },
      fromUpstream: () => undefined,
      end,
    }));
    client.write("x");
    expect(await over).toMatchObject({ kind: "failed" });
    expect(end).toHaveBeenCalledOnce();
  });
});
