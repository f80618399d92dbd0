import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { expect, test, vi } from "vitest";
import { defaultLimits } from "../../wire/limits.ts";
import type { ProtocolHost, UpstreamAccount } from "../protocol.ts";
import { Catalogs } from "./catalogs.ts";
import { backend, frame } from "./frames.ts";
import { server as said } from "./testing.ts";

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
  return { catalogs: new Catalogs(host), host, told, now };
}

test("a catalog that cannot be read is told of: where, as whom, how often, and why", async () => {
  const { catalogs, told } = awayHost();
  await expect(catalogs.open("shop", account)).rejects.toMatchObject({
    code: "catalogUnavailable",
    cause: { message: "the server is away" },
  });
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

test("how the catalog is read is not for the database's own settings to say", async () => {
  const asked: string[] = [];
  const listener = createServer((link) => {
    link.on("error", () => undefined);
    link.once("data", () => {
      link.write(Buffer.concat([loggedIn, said.parameter("search_path", "public"), said.ready("I")]));
      link.on("data", (query: Buffer) => {
        asked.push(query.toString());
        link.write(Buffer.concat([answerTo(query.toString()), said.complete("SELECT"), said.ready("I")]));
      });
    });
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const { port } = listener.address() as AddressInfo;
  const target = () => ({ host: "127.0.0.1", port, tls: { mode: "disable" } });
  const near = { ...awayHost().host, target } as unknown as ProtocolHost;
  const { release } = await new Catalogs(near).open("shop", account);
  release();
  listener.close();
  const first = asked.findIndex((query) => query.includes("AS fingerprint"));
  const before = asked.slice(0, first).join();
  for (const setting of [
    "search_path = pg_catalog",
    "default_transaction_read_only = on",
    "default_transaction_isolation = 'read committed'",
    "statement_timeout = 5000",
    "jit = off",
  ]) {
    expect(before).toContain(`SET ${setting};`);
  }
});

test("a reading that ends with its last session is neither tried on a new connection nor told of", async () => {
  const links: Socket[] = [];
  const server = { hasStalled: false, isOpen: false, dials: 0 };
  const listener = createServer((link) => {
    links.push(link);
    link.on("error", () => undefined);
    link.once("data", () => {
      link.write(Buffer.concat([loggedIn, said.parameter("search_path", "public"), said.ready("I")]));
      link.on("data", (query: Buffer) => {
        if (server.isOpen) server.hasStalled = true;
        else
          link.write(Buffer.concat([answerTo(query.toString()), said.complete("SELECT"), said.ready("I")]));
      });
    });
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const { port } = listener.address() as AddressInfo;
  const { told, host } = awayHost();
  const near = {
    ...host,
    limits: { ...defaultLimits, catalogAgeMs: 50 },
    clock: { monotonicMs: () => performance.now(), nowMs: () => 0 },
    target: () => {
      server.dials += 1;
      return { host: "127.0.0.1", port, tls: { mode: "disable" } };
    },
  } as unknown as ProtocolHost;
  try {
    const { release } = await new Catalogs(near).open("shop", account);
    server.isOpen = true;
    await vi.waitFor(() => expect(server.hasStalled).toBe(true), { timeout: 20_000 });
    const closed = once(links[0] as Socket, "close");
    release();
    await closed;
    // A second attempt begins in the turn in which the first ends, and this takes several.
    const later = connect(port, "127.0.0.1");
    await once(later, "connect");
    later.destroy();
    expect(server.dials).toBe(1);
    expect(told).toEqual([]);
  } finally {
    listener.close();
    for (const link of links) link.destroy();
  }
});

const loggedIn = frame(backend.authentication, Buffer.alloc(4));

/** One row for who it is and one for the fingerprint, none for everything else. */
function answerTo(query: string): Buffer {
  if (query.includes("session_user")) return said.dataRow("public", account.username, account.username);
  if (!query.includes("AS fingerprint")) return Buffer.alloc(0);
  const column = frame(
    backend.rowDescription,
    Buffer.concat([Buffer.from([0, 1]), Buffer.from("fingerprint\0"), Buffer.alloc(18)]),
  );
  return Buffer.concat([column, said.dataRow("as ever")]);
}
