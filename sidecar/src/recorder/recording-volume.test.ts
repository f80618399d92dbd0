import { createPublicKey, generateKeyPairSync } from "node:crypto";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { RecordingVolume, type VolumeOptions } from "./recording-volume.ts";
import type { StoredSession } from "./stored-session.ts";
import { testVolume } from "./testing.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

async function opened(change: Partial<VolumeOptions> = {}) {
  const place = await testVolume(change);
  cleanups.push(place.remove);
  const volume = await RecordingVolume.open(place.options);
  cleanups.push(() => volume.close());
  const key = createPublicKey(generateKeyPairSync("ed25519").privateKey);
  const open = (sessionId: string, namespace = "shop") => {
    const path = `sessions/${namespace}/orders-db/2026-01-02/${sessionId}.journal`;
    const name = { namespace, resource: "orders-db", podUid: "pod-1" };
    return volume.openSession({ name, key }, path, 1_000, {});
  };
  return { place, volume, open };
}

const openingOf = (sessionId: string, user = "alice") =>
  `${JSON.stringify({ kind: "opening", at: 1, sessionId, namespace: "shop", resource: "orders-db", user })}\n`;

function append(session: StoredSession, at: number, text: string): Promise<void> {
  return session.inOrder(() => session.append(at, Buffer.from(text)));
}

test("a namespace is charged what its recordings take on the disk, in however small pieces they come", async () => {
  const { place, volume, open } = await opened({ quotaBytes: 4_000 });
  const session = await open("s-1");
  const text = openingOf("s-1");
  await append(session, 0, text);
  const record = `{"kind":"command","text":"${"x".repeat(200)}`;
  const pieces = async () => {
    for (let at = 0; at < record.length; at++) await append(session, text.length + at, record.charAt(at));
  };
  await expect(pieces()).rejects.toThrow("quota");
  const { size } = await stat(join(place.folder, session.place.path));
  expect(size).toBeLessThanOrEqual(4_000);
  expect(volume.used("shop")).toBe(size);
});

test("what was refused is not charged", async () => {
  const { volume, open } = await opened();
  const session = await open("s-1");
  await append(session, 0, openingOf("s-1"));
  const used = volume.used("shop");
  await expect(append(session, session.bytes, "no record of ours\n")).rejects.toThrow("no record");
  expect(volume.used("shop")).toBe(used);
});

test.each([
  ["is another session's", `","sessionId":"s-2"}\n`],
  ["is no line of ours", `"}\n{"no":"record of ours"}\n`],
  ["never ends", undefined],
])("an opening that %s is not charged, in however many pieces it came", async (_, rest) => {
  const { volume, open } = await opened();
  const session = await open("s-1");
  const begin = `{"kind":"opening","user":"${"x".repeat(10_000)}`;
  await append(session, 0, begin);
  await append(session, begin.length, "y".repeat(10_000));
  expect(volume.used("shop")).toBeGreaterThan(20_000);
  const at = begin.length + 10_000;
  if (rest === undefined) await session.release();
  else await expect(append(session, at, rest)).rejects.toThrow();
  expect(volume.used("shop")).toBe(0);
});

test("the journals of one namespace leave the others their places", async () => {
  const { open } = await opened({ limits: { openMax: 6, openByNamespaceMax: 4 } });
  for (let count = 0; count < 4; count++) await open(`s-${count}`);
  await expect(open("s-4")).rejects.toThrow("the namespace has too many journals open");
  for (let count = 0; count < 2; count++) await open(`o-${count}`, "other");
  await expect(open("o-2", "other")).rejects.toThrow("too many journals are open");
});

test("openings that never end wait in a bounded room, and give it back", async () => {
  const { volume, open } = await opened({ limits: { waitingBytesMax: 1_000 } });
  const [first, second] = [await open("s-1"), await open("s-2")];
  await append(first, 0, `{"kind":"opening","user":"${"x".repeat(800)}`);
  await expect(append(second, 0, `{"kind":"opening","user":"${"x".repeat(800)}`)).rejects.toThrow("openings");
  // One that the recorder does not take has no place any more.
  await expect(append(first, first.bytes + 826, '"}\n')).rejects.toThrow();
  const third = await open("s-3");
  await append(third, 0, openingOf("s-3", "y".repeat(700)));
  expect(volume.find("shop", "s-3")?.facts.user).toBe("y".repeat(700));
});

test("what a journal says of itself takes no more memory than names do", async () => {
  const { volume, open } = await opened();
  const session = await open("s-1");
  await append(session, 0, openingOf("s-1", "z".repeat(100_000)));
  expect(volume.find("shop", "s-1")?.facts.user).toBe("z".repeat(1024));
});
