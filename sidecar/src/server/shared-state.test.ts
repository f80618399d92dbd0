import { describe, expect, it } from "vitest";
import { LocalState } from "./shared-state.ts";

const bounds = { failedLoginsMax: 2, failedLoginsByAddressMax: 5, lockOutMs: 1000 };
const attempt = (user: string, address: string) => ({ resource: "default/shop", user, address });

describe("what processes share", () => {
  it("gives no more places than there are, and a place that was left to the next", async () => {
    const state = new LocalState(bounds, () => 0);
    const entered = await Promise.all([1, 2, 3].map(() => state.enter("ann", 2)));
    expect(entered).toEqual([true, true, false]);
    state.leave("ann");
    expect(await state.enter("ann", 2)).toBe(true);
    expect(await state.enter("bob", 1)).toBe(true);
  });

  it("counts sessions that had no bound when they began", async () => {
    const state = new LocalState(bounds, () => 0);
    await state.enter("ann", undefined);
    expect(await state.enter("ann", 1)).toBe(false);
  });

  it("locks out a user at one address only, and then the address for everybody", async () => {
    const state = new LocalState(bounds, () => 0);
    expect(await state.loginFailed(attempt("ann", "10.0.0.1"))).toBeUndefined();
    expect(await state.loginFailed(attempt("ann", "10.0.0.1"))).toBe("user");
    expect(await state.lockOut(attempt("ann", "10.0.0.1"))).toEqual({ by: "user", leftMs: 1000 });
    expect(await state.lockOut(attempt("ann", "10.0.0.2"))).toBeUndefined();
    expect(await state.lockOut(attempt("bob", "10.0.0.1"))).toBeUndefined();
    for (const user of ["c", "d", "e"]) await state.loginFailed(attempt(user, "10.0.0.1"));
    expect(await state.lockOut(attempt("bob", "10.0.0.1"))).toEqual({ by: "address", leftMs: 1000 });
    expect(await state.lockOut(attempt("bob", "10.0.0.2"))).toBeUndefined();
  });

  it("a success forgives its user, not the address", async () => {
    const state = new LocalState(bounds, () => 0);
    for (let count = 0; count < 4; count += 1) {
      await state.loginFailed(attempt(`guess ${count}`, "10.0.0.1"));
      state.loginSucceeded(attempt("mallory", "10.0.0.1"));
    }
    expect(await state.loginFailed(attempt("guess 5", "10.0.0.1"))).toBe("address");
  });

  it("stops listening to an address that guesses cancel keys", async () => {
    const state = new LocalState(bounds, () => 0);
    for (let count = 0; count < 100; count += 1) state.cancelMissed("10.0.0.1");
    expect(await state.mayCancel("10.0.0.1")).toBe(false);
    expect(await state.mayCancel("10.0.0.2")).toBe(true);
  });
});
