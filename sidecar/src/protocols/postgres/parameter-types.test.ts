import { expect, test } from "vitest";
import { frame } from "./frames.ts";
import { typesText, unreadableTypes, userTypesIn } from "./parameter-types.ts";
import { client, nonce, openSession } from "./testing.ts";

test("types of the server's own are passed over, and each of a user's is told once", () => {
  const counted = Buffer.alloc(2 + 4 * 5);
  counted.writeUInt16BE(5, 0);
  for (const [index, oid] of [23, 16384, 0, 0xffffffff, 16384].entries())
    counted.writeUInt32BE(oid, 2 + 4 * index);
  expect(userTypesIn(counted, 0)).toEqual([16384, 0xffffffff]);
  expect(userTypesIn(Buffer.from([0, 0]), 0)).toEqual([]);
});

test("names of types are quoted, and a type that has none is code that nobody can read", async () => {
  const names = (found: readonly (readonly [string, string])[]) =>
    ({ typeNames: () => Promise.resolve(found) }) as unknown as Parameters<typeof typesText>[1];
  expect(await typesText([1], names([["s", 'a"b']]))).toBe('SELECT NULL::"s"."a""b"');
  expect(await typesText([1, 2], names([["s", "a"]]))).toBe(unreadableTypes);
});

test("where code that nobody can read is closed, so is a Parse with a type that is not known", async () => {
  const session = openSession([{ name: "no-code", match: { operations: ["execute"] }, action: "Deny" }]);
  const typed = frame(
    0x50,
    Buffer.concat([client.parse("", "SELECT $1").subarray(5, -2), Buffer.from([0, 1, 0, 1, 0, 0])]),
  );
  await session.send(typed, client.bind("", "", ["x"]), client.sync());
  const sent = session.upstreamBytes().toString("latin1");
  expect(sent).toContain(nonce);
  expect(sent).not.toContain("SELECT $1");
});

test("where it is open, the Parse leaves as it came", async () => {
  const session = openSession([]);
  const typed = frame(
    0x50,
    Buffer.concat([client.parse("", "SELECT $1").subarray(5, -2), Buffer.from([0, 1, 0, 1, 0, 0])]),
  );
  await session.send(typed, client.bind("", "", ["x"]), client.execute(""), client.sync());
  expect(session.upstreamBytes().subarray(0, typed.length)).toEqual(typed);
});
