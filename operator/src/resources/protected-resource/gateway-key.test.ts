import { beforeEach, expect, test } from "vitest";
import { KubeError, type KubeObject } from "../../kube/index.ts";
import { testResource } from "../../placement/testing.ts";
import { GatewayKeys } from "./gateway-key.ts";

const { signal } = new AbortController();
const resource = testResource();
/** What the API server was asked to make. */
let asked: KubeObject[];
let failure: Error | undefined;
let nowMs: number;
let keys: GatewayKeys;

beforeEach(() => {
  asked = [];
  failure = undefined;
  nowMs = 0;
  const create = (_: unknown, object: KubeObject) => {
    asked.push(object);
    return failure === undefined ? Promise.resolve(object) : Promise.reject(failure);
  };
  keys = new GatewayKeys({ create } as never, () => nowMs);
});

test("the secret is made once; a look at gateways that run costs no call, however much later", async () => {
  for (let at = 0; at < 5; at += 1) {
    await keys.ensure(resource, false, signal);
    nowMs += 3_600_000;
  }
  expect(asked.map(({ metadata }) => metadata.name)).toEqual(["orders-gateway-key"]);
});

test("a pod that does not start may wait for it: it is tried again, and not at each look", async () => {
  const calls = async (atMs: number) => {
    nowMs = atMs;
    await keys.ensure(resource, true, signal);
    return asked.length;
  };
  expect([await calls(0), await calls(100), await calls(19_999)]).toEqual([1, 1, 1]);
  expect([await calls(20_000), await calls(30_000)]).toEqual([2, 2]);
  // Two that are made are two secrets, whichever the API server takes.
  expect(asked[0]).not.toEqual(asked[1]);
});

test("one that is there already is left alone; another failure is tried again", async () => {
  failure = new KubeError({ status: 409, reason: "AlreadyExists", message: "there" });
  await keys.ensure(resource, false, signal);
  await keys.ensure(resource, false, signal);
  expect(asked).toHaveLength(1);
  failure = new KubeError({ status: 500, reason: "InternalError", message: "down" });
  const another = testResource({}, { uid: "another" });
  await expect(keys.ensure(another, false, signal)).rejects.toThrow("down");
  await expect(keys.ensure(another, false, signal)).rejects.toThrow("down");
  expect(asked).toHaveLength(3);
});
