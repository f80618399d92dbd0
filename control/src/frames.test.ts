import fc from "fast-check";
import { expect, test } from "vitest";
import { encodeFrame, type Frame, FrameReader } from "./frames.ts";

const joined = (header: object, body?: Uint8Array) => Buffer.concat([...encodeFrame(header, body)]);

test("frames come out as they went in, wherever the stream is cut", () => {
  const messages = fc.array(fc.tuple(fc.string(), fc.uint8Array({ maxLength: 300 })), { maxLength: 8 });
  fc.assert(
    fc.property(messages, fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), (sent, cuts) => {
      const bytes = Buffer.concat(sent.map(([text, body]) => joined({ kind: "x", text }, body)));
      const reader = new FrameReader(10_000);
      const got: Frame[] = [];
      for (let at = 0, turn = 0; at < bytes.length; turn++) {
        const end = at + (cuts[turn % cuts.length] ?? 1);
        got.push(...reader.push(Buffer.from(bytes.subarray(at, end))));
        at = end;
      }
      expect(got.map(({ header, body }) => [(header as { text: string }).text, [...body]])).toEqual(
        sent.map(([text, body]) => [text, [...body]]),
      );
    }),
  );
});

test("a frame beyond the bound is an error as soon as its length is known", () => {
  const reader = new FrameReader(1_000);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(1_001);
  expect(() => [...reader.push(length)]).toThrow("too long");
});

test("whatever bytes come, reading ends in frames or in a FrameError", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        for (const { header } of new FrameReader(500).push(Buffer.from(bytes))) expect(header).toBeDefined();
      } catch (error) {
        expect((error as Error).name).toBe("FrameError");
      }
    }),
  );
});
