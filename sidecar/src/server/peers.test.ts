import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Peers } from "./peers.ts";
import type { CancelOrder } from "./shared-state.ts";

const order: CancelOrder = {
  resource: "default/shop",
  replica: 1,
  process: 0,
  processId: 5,
  keyHex: "00ff00ff",
};
let folder: string;
let taken: CancelOrder[];
let receiver: Peers;
let port: number;
let now: number;

const fileOf = async (name: string, key: string, peers: Record<string, string>) => {
  const file = join(folder, name);
  await writeFile(file, JSON.stringify({ key, peers }));
  return file;
};
const key = "ab".repeat(32);
const sender = async (file: string) =>
  new Peers({ file, replica: 0, clock: () => now, take: () => Promise.resolve(false) });

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "sallyport-peers-"));
  taken = [];
  now = 1_000_000;
  receiver = new Peers({
    file: await fileOf("receiver", key, {}),
    replica: 1,
    clock: () => 1_000_000,
    take: (given) => {
      taken.push(given);
      return Promise.resolve(given.processId === 5);
    },
  });
  port = await receiver.listen("127.0.0.1", 0);
});
afterEach(async () => {
  receiver.close();
  await rm(folder, { recursive: true });
});

describe("cancel orders between replicas", () => {
  it("reach the replica that they name, and its answer comes back", async () => {
    const peers = await sender(await fileOf("sender", key, { 1: `127.0.0.1:${port}` }));
    expect(await peers.send(order)).toBe(true);
    expect(await peers.send({ ...order, processId: 6 })).toBe(false);
    expect(taken).toMatchObject([order, { ...order, processId: 6 }]);
  });

  it("are not taken under another key, from another time, or meant for another replica", async () => {
    const stranger = await sender(await fileOf("stranger", "cd".repeat(32), { 1: `127.0.0.1:${port}` }));
    expect(await stranger.send(order)).toBe(false);
    const peers = await sender(
      await fileOf("sender", key, { 1: `127.0.0.1:${port}`, 2: `127.0.0.1:${port}` }),
    );
    now = 1_031_000;
    expect(await peers.send(order)).toBe(false);
    now = 1_000_000;
    expect(await peers.send({ ...order, replica: 2 })).toBe(false);
    expect(await peers.send({ ...order, replica: 3 })).toBe(false);
    expect(taken).toEqual([]);
  });

  it("count once: bytes that are sent again are not taken", async () => {
    const wire: Buffer[] = [];
    const tap = (await import("node:net")).createServer((socket) => {
      const onward = connect(port, "127.0.0.1");
      socket.on("data", (bytes: Buffer) => {
        wire.push(bytes);
        onward.write(bytes);
      });
      onward.pipe(socket);
    });
    await new Promise<void>((resolve) => tap.listen(0, "127.0.0.1", resolve));
    const { port: tapPort } = tap.address() as { port: number };
    const peers = await sender(await fileOf("sender", key, { 1: `127.0.0.1:${tapPort}` }));
    expect(await peers.send(order)).toBe(true);
    tap.close();
    const bytes = Buffer.concat(wire);
    for (const [, change] of [0, 20, bytes.length - 1].entries()) {
      const forged = Buffer.from(bytes);
      if (change > 0) forged[change] = (forged[change] ?? 0) ^ 1;
      const answer = await new Promise<number>((resolve) => {
        const socket = connect(port, "127.0.0.1", () => socket.write(forged));
        let got = 0;
        socket.on("data", (data: Buffer) => {
          got += data.length;
        });
        socket.on("close", () => resolve(got));
      });
      expect(answer).toBe(0);
    }
    expect(taken).toHaveLength(1);
  });

  it.each([
    ["no file", undefined],
    ["no key", "{}"],
    ["a short key", '{"key":"ab"}'],
    ["an address without a port", `{"key":"${key}","peers":{"1":"host"}}`],
  ])("are not sent with %s, and nothing is listened for", async (_, text) => {
    const file = join(folder, "broken");
    if (text !== undefined) await writeFile(file, text);
    const peers = await sender(file);
    expect(await peers.send(order)).toBe(false);
    await expect(peers.listen("127.0.0.1", 0)).rejects.toThrow();
  });
});
