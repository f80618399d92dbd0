import { Duplex } from "node:stream";
import { expect, test } from "vitest";
import { flush, writeAll } from "./pump.ts";

/** A stream that notes how much it is given at once. */
function noted() {
  const writes: string[] = [];
  const stream = new Duplex({
    read: () => undefined,
    writev: (chunks, done) => {
      writes.push(Buffer.concat(chunks.map(({ chunk }) => chunk as Buffer)).toString());
      done();
    },
  });
  return { stream, writes };
}

const pieces = (...texts: readonly string[]) => texts.map((text) => Buffer.from(text));

test("what one round of events writes goes out at once, in order, and the next round is another", async () => {
  const { stream, writes } = noted();
  writeAll(stream, pieces("a", "b"));
  writeAll(stream, pieces("c"));
  expect(writes).toEqual([]);
  await new Promise((resolve) => setImmediate(resolve));
  expect(writes).toEqual(["abc"]);
  writeAll(stream, pieces("d"));
  await new Promise((resolve) => setImmediate(resolve));
  expect(writes).toEqual(["abc", "d"]);
});

test("what was gathered is sent before a stream ends or is destroyed", async () => {
  const ended = noted();
  writeAll(ended.stream, pieces("last"));
  ended.stream.end();
  expect(ended.writes).toEqual(["last"]);
  const destroyed = noted();
  writeAll(destroyed.stream, pieces("last"));
  flush(destroyed.stream);
  destroyed.stream.destroy();
  expect(destroyed.writes).toEqual(["last"]);
  await new Promise((resolve) => setImmediate(resolve));
  writeAll(destroyed.stream, pieces("nobody reads this"));
  expect(destroyed.writes).toEqual(["last"]);
});
