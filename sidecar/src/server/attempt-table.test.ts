import { describe, expect, it } from "vitest";
import { AttemptTable } from "./attempt-table.ts";

function table(options: { failuresMax?: number; keysMax?: number } = {}) {
  const clock = { ms: 0 };
  const attempts = new AttemptTable({
    failuresMax: 3,
    windowMs: 1000,
    keysMax: 10,
    monotonicMs: () => clock.ms,
    ...options,
  });
  return { clock, attempts };
}

describe("failed attempts", () => {
  it("lock a key out at the bound, for the window, and no other key", () => {
    const { clock, attempts } = table();
    expect([attempts.failed("a"), attempts.failed("a"), attempts.failed("a")]).toEqual([false, false, true]);
    expect(attempts.lockedMs("a")).toBe(1000);
    expect(attempts.lockedMs("b")).toBe(0);
    clock.ms = 999;
    expect(attempts.lockedMs("a")).toBe(1);
    clock.ms = 1000;
    expect(attempts.lockedMs("a")).toBe(0);
  });

  it("below the bound are forgotten with their window, and at a success", () => {
    const { clock, attempts } = table();
    attempts.failed("a");
    attempts.failed("a");
    clock.ms = 1001;
    expect(attempts.failed("a")).toBe(false);
    attempts.failed("a");
    attempts.succeeded("a");
    expect([attempts.failed("a"), attempts.failed("a")]).toEqual([false, false]);
  });

  it("during a lock-out do not make it longer", () => {
    const { clock, attempts } = table();
    for (let count = 0; count < 3; count += 1) attempts.failed("a");
    clock.ms = 500;
    expect(attempts.failed("a")).toBe(false);
    expect(attempts.lockedMs("a")).toBe(500);
  });

  it("of any number of keys, and keys of any length, stay within the table", () => {
    const { attempts } = table();
    for (let key = 0; key < 10_000; key += 1) attempts.failed(`${key} ${"x".repeat(100)}`);
    expect(attempts.size).toBe(10);
  });

  it("lock nobody out where the bound is 0", () => {
    const { attempts } = table({ failuresMax: 0 });
    for (let count = 0; count < 100; count += 1) expect(attempts.failed("a")).toBe(false);
    expect(attempts.size).toBe(0);
  });
});
