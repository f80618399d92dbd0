import { expect, test } from "vitest";
import { type BindParts, readBind, recordedParameters } from "./bind.ts";
import { ProcessIds } from "./process-ids.ts";
import { RepeatedText } from "./repeated-text.ts";
import { client } from "./testing.ts";

const shown = 2 ** 30 + 77;
const other = 2 ** 30 + 78;

function twoSessions(): ProcessIds {
  const ids = new ProcessIds();
  ids.add(shown, 4242);
  ids.add(other, 17);
  return ids;
}

const bindOf = (frame: Buffer): BindParts => readBind(frame, 5, frame.length, new RepeatedText());

test("numbers that clients know become the server's, wherever they stand alone in a text", () => {
  expect(twoSessions().inText(`SELECT pg_terminate_backend(${shown}),pg_cancel_backend(-${other})`)).toBe(
    "SELECT pg_terminate_backend(4242),pg_cancel_backend(-17)",
  );
});

test.for([`$${shown}`, `a${shown}`, `${shown}0`, `${shown}.5`, `1.${shown}`, `${shown}_1`, `${shown + 9}`])(
  "what is not a whole number of a live session stays: %s",
  (text) => expect(twoSessions().inText(text)).toBe(text),
);

test("parameters of every form are found, and the others stay as they are", () => {
  const four = Buffer.alloc(4);
  four.writeInt32BE(shown);
  const eight = Buffer.alloc(8);
  eight.writeBigInt64BE(BigInt(other));
  const frame = client.bind("portal", "statement", [String(shown), null, "x", "0000000000"]);
  const changed = twoSessions().inBind(bindOf(frame), frame.length);
  expect(recordedParameters(bindOf(changed!), 1000)).toEqual(["4242", null, "x", "0000000000"]);
  expect(bindOf(changed!)).toMatchObject({ portal: "portal", statement: "statement" });
  const raw = Buffer.concat([
    Buffer.from([0, 0, 0, 1, 0, 1, 0, 2, 0, 0, 0, 4]),
    four,
    Buffer.from([0, 0, 0, 8]),
    eight,
    Buffer.from([0, 0]),
  ]);
  const binary = Buffer.concat([Buffer.from([0x42, 0, 0, 0, raw.length + 4]), raw]);
  const parts = bindOf(twoSessions().inBind(bindOf(binary), binary.length)!);
  expect(recordedParameters(parts, 1000)).toEqual([
    { binary: Buffer.from([0, 0, 0x10, 0x92]).toString("base64") },
    { binary: Buffer.from([0, 0, 0, 0, 0, 0, 0, 17]).toString("base64") },
  ]);
  const plain = client.bind("", "", ["12", null]);
  expect(twoSessions().inBind(bindOf(plain), plain.length)).toBeUndefined();
});

test("a session that is over is nobody, also where the server has given its number to another", () => {
  const ids = twoSessions();
  ids.add(other + 1, 4242);
  ids.delete(shown);
  expect([ids.inText(`${shown}`), ids.shown(4242), ids.shown(17)]).toEqual([`${shown}`, other + 1, other]);
});

test("a server that gives a client's number to a session of its own reaches no other session", () => {
  const ids = twoSessions();
  ids.add(other + 1, shown);
  expect([ids.inText(`${other + 1}`), ids.shown(shown)]).toEqual([`${other + 1}`, undefined]);
});

test("who sent a notification is known for a while after it has gone", () => {
  const ids = twoSessions();
  ids.delete(shown);
  expect([ids.shown(4242), ids.inText(`${shown}`)]).toEqual([shown, `${shown}`]);
  for (let more = 0; more < 100; more += 1) {
    ids.add(shown + 1000 + more, 5000 + more);
    ids.delete(shown + 1000 + more);
  }
  expect([ids.shown(4242), ids.shown(5099)]).toEqual([undefined, shown + 1099]);
});
