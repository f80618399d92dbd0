import { expect, test } from "vitest";
import { type KubeClient, KubeError } from "../../kube/index.ts";
import { ApprovalAdmission } from "./admission.ts";

/** Admission as the probe meets it, which somebody may take away. */
function admission() {
  const state = { isThere: true, asked: 0, isReachable: true };
  const told: boolean[] = [];
  const create = async () => {
    state.asked += 1;
    if (!state.isReachable) throw new Error("the API server cannot be reached");
    const message = "an Approval begins without decisions; people append theirs, each for the policies";
    if (state.isThere) throw new KubeError({ status: 403, reason: "Forbidden", message });
    return {};
  };
  const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
  const client = { create } as unknown as KubeClient;
  const onChange = (isInForce: boolean) => void told.push(isInForce);
  return { state, told, admission: new ApprovalAdmission({ client, namespace: "system", log, onChange }) };
}

const { signal } = new AbortController();

test("is asked once for many requests within a second", async () => {
  const { state, admission: tried } = admission();
  expect(await Promise.all([tried.check(signal), tried.check(signal), tried.check(signal)])).toEqual([
    ...[true, true, true],
  ]);
  expect(state.asked).toBe(1);
});

test("what was found after a decision counts for whoever asks next, at once", async () => {
  const { state, told, admission: tried } = admission();
  expect(await tried.check(signal)).toBe(true);
  state.isThere = false;
  expect(await tried.checkAnew(signal)).toBe(false);
  expect(await tried.check(signal)).toBe(false);
  state.isThere = true;
  expect(await tried.checkAnew(signal)).toBe(true);
  expect(await tried.check(signal)).toBe(true);
  expect(told).toEqual([true, false, true]);
});

test("an API server that cannot be asked is no answer, and is asked again", async () => {
  const { state, admission: tried } = admission();
  state.isReachable = false;
  await expect(tried.check(signal)).rejects.toThrow("cannot be reached");
  state.isReachable = true;
  expect(await tried.check(signal)).toBe(true);
});
