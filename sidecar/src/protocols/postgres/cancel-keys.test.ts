import { describe, expect, it } from "vitest";
import type { CancelRoutes } from "../protocol.ts";
import { CancelKeys } from "./cancel-keys.ts";

interface Calls {
  /** What another process or replica hands over comes in by this. */
  take: (processId: number, key: Buffer) => Promise<boolean>;
  readonly forwarded: { replica: number; process: number }[];
  missed: number;
}

function keysAt(
  replica: number,
  process: number,
  { mayTry = true, ...placed }: { mayTry?: boolean; mayShareNumber?: boolean; sealingSecret?: Buffer } = {},
): { keys: CancelKeys; calls: Calls } {
  const calls: Calls = { take: () => Promise.resolve(false), forwarded: [], missed: 0 };
  const routes: CancelRoutes = {
    replica,
    process,
    ...placed,
    receive: (take) => {
      calls.take = take;
    },
    forward: (to) => {
      calls.forwarded.push({ replica: to.replica, process: to.process });
      return Promise.resolve(true);
    },
    mayTry: () => Promise.resolve(mayTry),
    missed: () => {
      calls.missed += 1;
    },
  };
  return { keys: new CancelKeys(routes), calls };
}

describe("cancel keys", () => {
  it.each([
    [0, 0],
    [255, 63],
    [3, 1],
  ])(
    "lead from anywhere to replica %i, process %i, positive and larger than any process number",
    async (replica, process) => {
      const { keys } = keysAt(replica, process);
      const elsewhere = keysAt(7, 7);
      for (let count = 0; count < 100; count += 1) {
        const { processId, key } = keys.issue(4, () => Promise.resolve());
        expect(processId).toBeGreaterThan(2 ** 22);
        expect(processId).toBeLessThanOrEqual(0x7fffffff);
        await elsewhere.keys.cancel(processId, key, "10.0.0.1");
      }
      expect(new Set(elsewhere.calls.forwarded.map((to) => JSON.stringify(to)))).toEqual(
        new Set([JSON.stringify({ replica, process })]),
      );
    },
  );

  it("cancel their own session, once at a time, and nothing after it has ended", async () => {
    const { keys, calls } = keysAt(1, 2);
    let cancels = 0;
    let finish: () => void = () => undefined;
    const { processId, key } = keys.issue(32, () => {
      cancels += 1;
      return new Promise((resolve) => {
        finish = resolve;
      });
    });
    const both = [keys.cancel(processId, key, "a"), keys.cancel(processId, key, "a")];
    await Promise.resolve();
    await Promise.resolve();
    finish();
    expect(await Promise.all(both)).toEqual([true, true]);
    expect(cancels).toBe(1);
    keys.revoke(processId);
    expect(await keys.cancel(processId, key, "a")).toBe(false);
    expect(calls.missed).toBe(1);
  });

  it("do nothing where a byte is wrong, one is missing, or one too many", async () => {
    const { keys, calls } = keysAt(0, 0);
    const { processId, key } = keys.issue(4, () => Promise.reject(new Error("reached")));
    const wrong = Buffer.from(key);
    wrong[3] = (wrong[3] ?? 0) ^ 1;
    for (const bytes of [wrong, key.subarray(0, 3), Buffer.concat([key, Buffer.alloc(1)]), Buffer.alloc(0)])
      expect(await keys.cancel(processId, bytes, "a")).toBe(false);
    expect(await keys.cancel(processId + 0x80000000, key, "a")).toBe(false);
    expect(calls).toMatchObject({ forwarded: [], missed: 5 });
  });

  it("are not looked at where the address has missed too often", async () => {
    const { keys } = keysAt(0, 0, { mayTry: false });
    const { processId, key } = keys.issue(4, () => Promise.reject(new Error("reached")));
    expect(await keys.cancel(processId, key, "a")).toBe(false);
  });

  it("of a number that another replica may have too are looked for there, and only where they are not here", async () => {
    const { keys, calls } = keysAt(7, 0, { mayShareNumber: true });
    const own = keys.issue(4, () => Promise.resolve());
    const twin = keysAt(7, 0).keys.issue(4, () => Promise.resolve());
    expect(await keys.cancel(own.processId, own.key, "a")).toBe(true);
    expect(calls.forwarded).toEqual([]);
    expect(await keys.cancel(twin.processId, twin.key, "a")).toBe(true);
    expect(calls.forwarded).toEqual([{ replica: 7, process: 0 }]);
  });
});

it("a request that was handed over is not handed on, whomever it names", async () => {
  const { keys, calls } = keysAt(7, 0, { mayShareNumber: true });
  const own = keys.issue(4, () => Promise.resolve());
  const twin = keysAt(7, 0).keys.issue(4, () => Promise.resolve());
  const elsewhere = keysAt(8, 0).keys.issue(4, () => Promise.resolve());
  for (const { processId, key } of [twin, elsewhere]) expect(await calls.take(processId, key)).toBe(false);
  expect(await calls.take(own.processId, own.key)).toBe(true);
  expect(await calls.take(own.processId, Buffer.alloc(4, 1))).toBe(false);
  expect(calls.forwarded).toEqual([]);
});

describe("long keys that replicas seal with a secret of theirs", () => {
  const sealingSecret = Buffer.alloc(32, 7);
  const issued = keysAt(1, 0, { sealingSecret }).keys.issue(32, () => Promise.resolve());

  it("are handed to the replica that they name", async () => {
    const { keys, calls } = keysAt(2, 0, { sealingSecret });
    expect(issued.key).toHaveLength(32);
    expect(await keys.cancel(issued.processId, issued.key, "a")).toBe(true);
    expect(calls).toMatchObject({ forwarded: [{ replica: 1, process: 0 }], missed: 0 });
  });

  it("lead nowhere where they were not issued so, and no other replica hears of them", async () => {
    const { keys, calls } = keysAt(2, 0, { sealingSecret });
    const foreign = keysAt(1, 0, { sealingSecret: Buffer.alloc(32, 8) }).keys;
    const { processId, key } = foreign.issue(32, () => Promise.resolve());
    expect(await keys.cancel(processId, key, "a")).toBe(false);
    for (let at = 0; at < 32; at += 1) {
      const changed = Buffer.from(issued.key);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(await keys.cancel(issued.processId, changed, "a")).toBe(false);
    }
    expect(await keys.cancel(issued.processId ^ 1, issued.key, "a")).toBe(false);
    expect(await keys.cancel(issued.processId, issued.key.subarray(0, 16), "a")).toBe(false);
    expect(calls).toMatchObject({ forwarded: [], missed: 35 });
  });

  it("of protocol 3.0 have no room for a seal, and are handed on as they are", async () => {
    const { keys, calls } = keysAt(2, 0, { sealingSecret });
    expect(await keys.cancel(issued.processId, Buffer.alloc(4), "a")).toBe(true);
    expect(calls.forwarded).toEqual([{ replica: 1, process: 0 }]);
  });
});
