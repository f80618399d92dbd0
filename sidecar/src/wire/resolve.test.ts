import { expect, test } from "vitest";
import { Resolver } from "./resolve.ts";

test("names that are slow to resolve hold no more than two of the process's threads", async () => {
  const under: ((found: readonly { readonly address: string }[]) => void)[] = [];
  const resolver = new Resolver(() => new Promise((resolve) => under.push(resolve)));
  const waiting = Array.from({ length: 10 }, (_, index) => resolver.addresses(`slow-${index}`, 1_000));
  expect(under.length).toBe(2);
  under[0]?.([{ address: "10.0.0.1" }, { address: "10.0.0.1" }, { address: "::ffff:10.0.0.2" }]);
  expect(await waiting[0]).toEqual(["10.0.0.1", "10.0.0.2"]);
  expect(under.length).toBe(3);
});

test("a name that waits too long is not resolved, and its place is free for others", async () => {
  const under: ((found: readonly { readonly address: string }[]) => void)[] = [];
  const asked: string[] = [];
  const resolver = new Resolver((name) => {
    asked.push(name);
    return new Promise((resolve) => under.push(resolve));
  });
  const stuck = [resolver.addresses("stuck-1", 1), resolver.addresses("stuck-2", 1)];
  const late = resolver.addresses("late", 1);
  expect(await Promise.all([...stuck, late])).toEqual([[], [], []]);
  const next = resolver.addresses("next", 1_000);
  // Those that nobody waits for any more still hold their threads.
  expect(asked).toEqual(["stuck-1", "stuck-2"]);
  under[0]?.([]);
  await expect.poll(() => asked).toEqual(["stuck-1", "stuck-2", "next"]);
  under[2]?.([{ address: "10.0.0.3" }]);
  expect(await next).toEqual(["10.0.0.3"]);
});

test("more names than may wait are not resolved, and addresses need no turn", async () => {
  const resolver = new Resolver(() => new Promise(() => undefined));
  const all = Array.from({ length: 300 }, (_, index) => resolver.addresses(`slow-${index}`, 1_000));
  expect(await all.at(-1)).toEqual([]);
  expect(await resolver.addresses("::ffff:127.0.0.1", 1_000)).toEqual(["127.0.0.1"]);
  expect(await resolver.addresses("FE80::1%eth0", 1_000)).toEqual(["fe80::1"]);
});

test("whoever asks for many slow names keeps nobody else from asking", async () => {
  const asked: string[] = [];
  const resolver = new Resolver((name) => {
    asked.push(name);
    return new Promise(() => undefined);
  });
  const [one, other] = [{}, {}];
  for (let index = 0; index < 10; index += 1) void resolver.addresses(`slow-${index}`, 1_000, one);
  void resolver.addresses("quick", 1_000, other);
  expect(asked).toEqual(["slow-0", "quick"]);
});
