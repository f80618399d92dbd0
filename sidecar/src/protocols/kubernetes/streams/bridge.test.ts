import { PassThrough } from "node:stream";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { HeldInput, Message, messageMax } from "./bridge.ts";
import { ChannelBridge } from "./channel-bridge.ts";
import { SpdyBridge } from "./spdy-bridge.ts";
import { controlFrame, dataFrame, frameTypes, HeaderStorer } from "./spdy-frames.ts";
import { frame } from "./websocket-frames.ts";

test("a message is the same wherever it is cut", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 20 }), (slices) => {
      const message = new Message();
      for (const _ of [1, 2]) {
        const found = slices.map((slice, index) =>
          message.push(Buffer.from(slice), index === slices.length - 1),
        );
        expect(found.slice(0, -1).every((one) => one === undefined)).toBe(true);
        expect(found.at(-1)?.equals(Buffer.concat(slices))).toBe(true);
      }
    }),
  );
});

test("what was collected is not changed by what comes behind it", () => {
  const message = new Message();
  message.push(Buffer.from("a"), false);
  const first = message.push(Buffer.from("b"), true);
  message.push(Buffer.from("c"), false);
  message.push(Buffer.from("d"), true);
  expect(first?.toString()).toBe("ab");
});

test("a message that is too long is refused, in one slice and in the smallest", () => {
  expect(() => new Message().push(Buffer.alloc(messageMax + 1), true)).toThrow("too long");
  const message = new Message();
  for (let at = 0; at < messageMax; at += 1) message.push(Buffer.alloc(1), false);
  expect(() => message.push(Buffer.alloc(1), false)).toThrow("too long");
});

describe("what a client sends before its command may run takes little memory, even where it is nothing", () => {
  const tooMuch = "too much was sent before the command may run";
  const most = 5_000;

  test("kept things count beside their bytes", () => {
    const held = new HeldInput<number>();
    expect(() => {
      for (let count = 0; count < most; count += 1) held.push(count, 0);
    }).toThrow(tooMuch);
  });

  test.each([
    ["empty messages", 2, 0],
    ["messages of a byte", 2, 1],
    ["pongs", 10, 0],
  ])("over WebSocket: %s", (_what, opcode, bytes) => {
    const client = new PassThrough();
    const form = { isBase64: false, hasPlainStatus: false };
    const bridge = new ChannelBridge(client, () => undefined, form);
    const one = Buffer.concat(frame(opcode, [Buffer.alloc(bytes)], true));
    expect(() => bridge.fromClient(Buffer.concat(Array(most).fill(one)))).toThrow(tooMuch);
  });

  test.each([
    ["empty data", () => dataFrame(1, Buffer.alloc(0), false)],
    ["the smallest resets", () => controlFrame(frameTypes.rstStream, 0, Buffer.alloc(0))],
  ])("over SPDY: %s", (_what, made) => {
    const bridge = new SpdyBridge(() => undefined, true);
    const one = Buffer.concat(made());
    expect(() => bridge.fromClient(Buffer.concat(Array(most).fill(one)))).toThrow(tooMuch);
    bridge.close();
  });

  test("over SPDY: headers without a name", async () => {
    const bridge = new SpdyBridge(() => undefined, true);
    const store = new HeaderStorer();
    const one = () =>
      Buffer.concat(
        controlFrame(frameTypes.headers, 0, Buffer.concat([Buffer.alloc(4), store.write(Buffer.alloc(4))])),
      );
    await expect(bridge.fromClient(Buffer.concat(Array.from({ length: most }, one)))).rejects.toThrow(
      tooMuch,
    );
    bridge.close();
  });
});
