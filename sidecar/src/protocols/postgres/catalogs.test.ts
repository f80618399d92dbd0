import { expect, test } from "vitest";
import { defaultLimits } from "../../wire/limits.ts";
import type { ProtocolHost, UpstreamAccount } from "../protocol.ts";
import { Catalogs } from "./catalogs.ts";

const account: UpstreamAccount = { name: "main", username: "gateway", password: "opensesame" };

/** A resource whose server cannot be dialled, and what is told of it. */
function awayHost() {
  const told: { readonly problem: string; readonly facts: Readonly<Record<string, string | number>> }[] = [];
  const now = { ms: 5 };
  const host = {
    limits: defaultLimits,
    clock: { monotonicMs: () => now.ms, nowMs: () => 0 },
    currentAccount: () => account,
    target: () => {
      throw new Error("the server is away");
    },
    warn: (problem: string, facts: Readonly<Record<string, string | number>>) =>
      void told.push({ problem, facts }),
  } as unknown as ProtocolHost;
  return { catalogs: new Catalogs(host), told, now };
}

test("a catalog that cannot be read is told of: where, as whom, how often, and why", async () => {
  const { catalogs, told } = awayHost();
  await expect(catalogs.open("shop", account)).rejects.toThrow("away");
  expect(told).toEqual([
    {
      problem: "the catalog could not be read",
      facts: { database: "shop", account: "main", failures: 1, cause: "the server is away" },
    },
  ]);
  expect(JSON.stringify(told)).not.toContain("opensesame");
});

test("once a minute at most, however many databases somebody names, and none is left out of the count", async () => {
  const { catalogs, told, now } = awayHost();
  for (let at = 0; at < 50; at += 1) await expect(catalogs.open(`no-${at}`, account)).rejects.toThrow();
  expect(told).toHaveLength(1);
  now.ms += 60_000;
  await expect(catalogs.open("x".repeat(10_000), account)).rejects.toThrow();
  expect(told).toHaveLength(2);
  expect(told[1]?.facts).toMatchObject({ failures: 50, database: "x".repeat(63) });
});
