import { expect, test } from "vitest";
import { MalformedMessage, message, Reader } from "./messages.ts";
import { Allowance, Lane, Pipe, windowBytes } from "./pipe.ts";
import type { Transport } from "./transport.ts";

/** A transport that keeps what it is given. */
function kept() {
  const sent: Buffer[] = [];
  const transport = {
    send: (payload: Uint8Array, more = new Uint8Array()) => void sent.push(Buffer.concat([payload, more])),
  } as Transport;
  const data = () =>
    sent.map((payload) => {
      const reader = new Reader(payload);
      const type = reader.byte();
      reader.uint32();
      return type === message.channelData ? reader.string().toString() : type;
    });
  return { transport, sent, data };
}

test("what is sent keeps within the window, and the sender is paid when it has gone on", () => {
  const { transport, data } = kept();
  let credit = 0;
  const pipe = new Pipe({ transport, remote: 1, window: 4, packetMax: 3 }, (bytes) => {
    credit += bytes;
  });
  pipe.data(Buffer.from("abcdef"));
  expect(data()).toEqual(["abc", "d"]);
  expect(credit).toBe(0);
  pipe.grant(100);
  expect(data()).toEqual(["abc", "d", "ef"]);
  expect(credit).toBe(6);
});

test("a window of single bytes is put together, in order and by stream, and paid for once", () => {
  const { transport, sent, data } = kept();
  let credit = 0;
  const pipe = new Pipe({ transport, remote: 1, window: 0, packetMax: 32_768 }, (bytes) => {
    credit += bytes;
  });
  const text = Array.from({ length: 10_000 }, (_, index) => String(index % 10)).join("");
  for (const byte of text) pipe.data(Buffer.from(byte));
  pipe.grant(1_000_000);
  expect(data().join("")).toBe(text);
  expect(sent.length).toBeLessThan(10);
  expect(credit).toBe(10_000);
});

test("a piece that was sent in part is not mixed with what comes after", () => {
  const { transport, data } = kept();
  const pipe = new Pipe({ transport, remote: 1, window: 1, packetMax: 32_768 }, () => undefined);
  for (const byte of "abc") pipe.data(Buffer.from(byte));
  pipe.grant(1);
  for (const byte of "de") pipe.data(Buffer.from(byte));
  pipe.data(Buffer.from("!"), 1);
  pipe.data(Buffer.from("f"));
  pipe.grant(100);
  expect(data()).toEqual(["a", "b", "cde", message.channelExtendedData, "f"]);
});

test("messages that wait behind data which nobody takes are bounded", () => {
  const { transport } = kept();
  const pipe = new Pipe({ transport, remote: 1, window: 0, packetMax: 32_768 }, () => undefined);
  pipe.data(Buffer.from("stuck"));
  expect(() => {
    for (let index = 0; index < 100_000; index += 1) pipe.message(Buffer.of(message.channelRequest));
  }).toThrow(MalformedMessage);
});

test("pieces of alternating streams that nobody takes are bounded", () => {
  const { transport } = kept();
  const pipe = new Pipe({ transport, remote: 1, window: 0, packetMax: 32_768 }, () => undefined);
  expect(() => {
    for (let index = 0; index < 100_000; index += 1) pipe.data(Buffer.of(1), index % 2);
  }).toThrow(MalformedMessage);
});

test("a side may send its window and no byte more until it is given back", () => {
  const { transport, sent } = kept();
  const allowance = new Allowance({ transport, remote: 3 });
  expect(allowance.take(windowBytes)).toBe(true);
  expect(allowance.take(1)).toBe(false);
  const other = new Allowance({ transport, remote: 3 });
  other.take(windowBytes);
  other.giveBack(windowBytes);
  expect(sent.length).toBe(1);
  expect(other.take(windowBytes)).toBe(true);
});

test("tasks run one after the other, and none after a failure or the end", async () => {
  const done: number[] = [];
  const failures: unknown[] = [];
  const lane = new Lane((error) => failures.push(error));
  const gate = Promise.withResolvers<void>();
  lane.push(() => gate.promise.then(() => void done.push(1)));
  lane.push(() => void done.push(2) as undefined);
  expect(done).toEqual([]);
  gate.resolve();
  await gate.promise;
  await new Promise(setImmediate);
  expect(done).toEqual([1, 2]);
  lane.push(() => {
    throw new Error("broken");
  });
  expect(failures.length).toBe(1);
  lane.close();
  lane.push(() => void done.push(3) as undefined);
  expect(done).toEqual([1, 2]);
});
