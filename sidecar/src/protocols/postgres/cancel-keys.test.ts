import { describe, expect, it } from "vitest";
import type { CancelRoutes } from "../protocol.ts";
import { CancelKeys } from "./cancel-keys.ts";

interface Calls {
  readonly forwarded: { replica: number; process: number }[];
  missed: number;
}

function keysAt(replica: number, process: number, mayTry = true): { keys: CancelKeys; calls: Calls } {
  const calls: Calls = { forwarded: [], missed: 0 };
  const routes: CancelRoutes = {
    replica,
    process,
    receive: () => undefined,
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
    expect(calls).toEqual({ forwarded: [], missed: 5 });
  });

  it("are not looked at where the address has missed too often", async () => {
    const { keys } = keysAt(0, 0, false);
    const { processId, key } = keys.issue(4, () => Promise.reject(new Error("reached")));
    expect(await keys.cancel(processId, key, "a")).toBe(false);
  });
});
