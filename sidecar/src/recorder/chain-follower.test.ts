import { generateKeyPairSync } from "node:crypto";
import { expect, test } from "vitest";
import { journalSeed, noHash, sealBlock, sessionJournal } from "../recording/journal-format.ts";
import { ChainFollower } from "./chain-follower.ts";

const { publicKey, privateKey } = generateKeyPairSync("ed25519");
const opening = '{"kind":"opening","sessionId":"s-1"}\n';
const closing = '{"kind":"closing","at":1,"reason":"left","commands":2,"refused":1,"rows":0,"bytes":0}\n';

/** A journal of three blocks, the last one closing it. */
function journal(session = "s-1", key = privateKey): Buffer {
  let previousLine = journalSeed(sessionJournal(session));
  let previous = noHash;
  const contents = [[opening, '{"kind":"command","n":1}\n'], ['{"kind":"response","n":1}\n'], [closing]];
  return Buffer.concat(
    contents.map((lines, number) => {
      const final = number === 2;
      const sealed = sealBlock({
        journal: sessionJournal(session),
        number,
        lines: lines.join(""),
        records: lines.length,
        previousLine,
        previous,
        final,
        key: final ? key : undefined,
      });
      previousLine = sealed.chainLine;
      previous = sealed.hash;
      return sealed.bytes;
    }),
  );
}

test("a journal is followed in pieces of any size", () => {
  const bytes = journal();
  for (const size of [1, 2, 7, 16, 17, 64, bytes.length]) {
    const follower = new ChainFollower("s-1", publicKey);
    for (let at = 0; at < bytes.length; at += size) follower.push(bytes.subarray(at, at + size));
    expect(follower).toMatchObject({ isFinal: true, head: { block: 2, bytes: bytes.length } });
    expect(follower.openingLine).toBe(opening.trimEnd());
    expect(follower.counts).toEqual({ commands: 2, refused: 1 });
  }
});

test("no byte of it can be another", () => {
  const bytes = journal();
  for (let at = 0; at < bytes.length; at++) {
    const changed = Buffer.from(bytes);
    changed.writeUInt8(changed.readUInt8(at) ^ 1, at);
    const follower = new ChainFollower("s-1", publicKey);
    const isTaken = () => {
      follower.push(changed);
      // A newline that is none leaves the last line open: no block was closed by it.
      if (!follower.isFinal) throw new Error("not closed");
    };
    expect(isTaken, `byte ${at}`).toThrow();
  }
});

test("another session's journal, another gateway's signature, and what follows the end are refused", () => {
  const other = generateKeyPairSync("ed25519").privateKey;
  expect(() => new ChainFollower("s-2", publicKey).push(journal())).toThrow("does not follow");
  expect(() => new ChainFollower("s-1", publicKey).push(journal("s-1", other))).toThrow("not signed");
  const follower = new ChainFollower("s-1", publicKey);
  follower.push(journal());
  expect(() => follower.push(Buffer.from(opening))).toThrow("follows the closing block");
});

test("lines that never end are not kept", () => {
  const follower = new ChainFollower("s-1", publicKey, 1_000);
  expect(() => follower.push(Buffer.from(`{"kind":"opening","x":"${"x".repeat(2_000)}`))).toThrow("too long");
  const chain = new ChainFollower("s-1", publicKey);
  chain.push(Buffer.from(opening));
  expect(() => chain.push(Buffer.from(`{"chain":0${"0".repeat(5_000)}`))).toThrow("too long");
});
