import { afterEach, beforeEach, expect, test } from "vitest";
import { type Condition, kubeClient, resourceType, type UntypedObject } from "../kube/index.ts";
import { type FakeApi, startFakeApi } from "../kube/testing.ts";
import { isTrue, mergedConditions, progressConditions, writeStatus } from "./status.ts";

const type = resourceType("sallyport.dev/v1alpha1", "ProtectedResource", "protectedresources");
const path = "/apis/sallyport.dev/v1alpha1/namespaces/demo/protectedresources/shop";

let api: FakeApi;
beforeEach(async () => {
  api = await startFakeApi();
});
afterEach(() => api.close());

const client = () => kubeClient({ connection: api.connection });
const read = () => client().get(type, { namespace: "demo", name: "shop" });
const made = (more: object = {}) =>
  api.put(path, { metadata: { name: "shop", namespace: "demo" }, ...more }) as UntypedObject;

const early = new Date("2026-01-01T00:00:00.123Z");
const late = new Date("2026-01-02T00:00:00.456Z");
const wanted = (status: "True" | "False", message = "") =>
  [{ type: "Ready", status, reason: status === "True" ? "AllReady" : "Waiting", message }] as const;

test("O3 a condition keeps its time until its status flips, and always says what it was observed for", () => {
  const first = mergedConditions(undefined, wanted("False", "one"), { generation: 1, now: early });
  expect(first).toEqual([
    {
      type: "Ready",
      status: "False",
      reason: "Waiting",
      message: "one",
      observedGeneration: 1,
      lastTransitionTime: "2026-01-01T00:00:00Z",
    },
  ]);
  const second = mergedConditions(first, wanted("False", "two"), { generation: 2, now: late });
  expect(second[0]).toMatchObject({
    message: "two",
    observedGeneration: 2,
    lastTransitionTime: "2026-01-01T00:00:00Z",
  });
  const third = mergedConditions(second, wanted("True"), { generation: 2, now: late });
  expect(third[0]).toMatchObject({ status: "True", lastTransitionTime: "2026-01-02T00:00:00Z" });
  expect(isTrue(third, "Ready")).toBe(true);
  expect(isTrue(second, "Ready")).toBe(false);
});

test("conditions that are no longer wanted go, and a message is bounded", () => {
  const before: Condition[] = [
    { type: "Stalled", status: "True", reason: "X", message: "", lastTransitionTime: "2026-01-01T00:00:00Z" },
  ];
  const after = mergedConditions(before, wanted("True", "x".repeat(40_000)), { generation: 1, now: late });
  expect(after.map((condition) => condition.type)).toEqual(["Ready"]);
  expect(after[0]?.message).toHaveLength(32_768);
});

test("O6 kstatus can tell working from stuck", () => {
  expect(progressConditions({ kind: "ready" })).toEqual([]);
  const because = { reason: "UnsupportedProtocol", message: "no" };
  expect(progressConditions({ kind: "stalled", ...because })).toEqual([
    { type: "Stalled", status: "True", ...because },
  ]);
  expect(progressConditions({ kind: "reconciling", ...because })[0]?.type).toBe("Reconciling");
});

test("O27 a status is written once, and not again while nothing changes, however often and in whatever order", async () => {
  made({ spec: { protocol: "postgres" } });
  const write = async (now: Date) => {
    const object = (await read()) as UntypedObject & { status?: { conditions?: readonly Condition[] } };
    const all = [
      ...wanted("True"),
      { type: "Accepted", status: "True", reason: "Valid", message: "" } as const,
    ];
    if (now === late) all.reverse();
    const status = {
      observedGeneration: object.metadata.generation,
      address: undefined,
      conditions: mergedConditions(object.status?.conditions, all, {
        generation: object.metadata.generation,
        now,
      }),
    };
    return writeStatus({ client: client(), type, object, status, fieldManager: "m-status" });
  };
  expect(await write(early)).toBeDefined();
  for (let times = 0; times < 5; times += 1) expect(await write(late)).toBeUndefined();
  const patches = api.requests.filter(({ method }) => method === "PATCH");
  expect(patches).toHaveLength(1);
  expect(patches[0]?.path).toBe(`${path}/status`);
  expect(patches[0]?.query.get("fieldManager")).toBe("m-status");
  expect(patches[0]?.body).toMatchObject({ metadata: { name: "shop", resourceVersion: expect.any(String) } });
  expect(patches[0]?.body).not.toHaveProperty("spec");
});

test("a new generation is reason enough to write", async () => {
  made({ spec: {}, status: { observedGeneration: 1 } });
  const object = await read();
  const write = { client: client(), type, object, fieldManager: "m" };
  expect(await writeStatus({ ...write, status: { observedGeneration: 1 } })).toBeUndefined();
  expect(await writeStatus({ ...write, status: { observedGeneration: 2 } })).toBeDefined();
});
