import { expect, it } from "vitest";
import type { DeviceLogin, ProtocolHost } from "../protocol.ts";
import { DeviceLogins } from "./device-logins.ts";

const login: DeviceLogin = {
  url: "https://login.example.com/device",
  code: "AAAA-BBBB",
  expiresMs: 1000,
  token: () => Promise.resolve(undefined),
};

/** How many of those addresses get a code, where nobody confirms theirs. */
async function codesFor(addresses: readonly string[]): Promise<number> {
  const host = {
    beginDeviceLogin: () => Promise.resolve(login),
    clock: { monotonicMs: () => 0, nowMs: () => 0 },
    report: () => undefined,
  } as unknown as ProtocolHost;
  const logins = new DeviceLogins(host);
  const begun = await Promise.all(
    addresses.map((address) => logins.begin(address, new AbortController().signal)),
  );
  return begun.filter((one) => one !== undefined).length;
}

it("gives one network no more codes than one address, however many addresses it has", async () => {
  expect(await codesFor(Array.from({ length: 60 }, () => "192.0.2.1"))).toBe(4);
  expect(await codesFor(Array.from({ length: 60 }, (_, host) => `2001:db8:1:2::${host.toString(16)}`))).toBe(
    4,
  );
  expect(
    await codesFor(["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"]),
  ).toBe(4);
});

it("lets others have theirs meanwhile", async () => {
  expect(await codesFor(Array.from({ length: 8 }, (_, net) => `2001:db8:1:${net}::1`))).toBe(8);
});
