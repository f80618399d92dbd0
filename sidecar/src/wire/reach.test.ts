import { createServer } from "node:net";
import { type Reach, readReach } from "@sallyport/control";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { dial } from "./dial.ts";
import type { GatewayError } from "./gateway-error.ts";
import { checkedLookup, mayDial, noReach, type Resolve } from "./reach.ts";

const cluster: Reach = {
  ownPod: false,
  forbidden: ["10.96.0.0/12", "10.244.0.0/16", "fd00:10::/32", "192.168.7.2/32"],
  allowed: [{ range: "10.96.0.7/32", ports: [5432] }],
};
const ownPod: Reach = { ownPod: true, forbidden: [], allowed: [] };

describe("a resource with a server outside the cluster", () => {
  test.each(["203.0.113.5", "10.0.0.5", "2001:db8::5", "192.168.7.3"])("may dial %s", (address) => {
    expect(mayDial(cluster, address, 5432)).toBe(true);
  });
  test.each([
    ["a Service", "10.96.0.8"],
    ["a pod", "10.244.3.4"],
    ["a pod, written as IPv6", "::ffff:10.244.3.4"],
    ["a pod, written as hex", "::ffff:af4:304"],
    ["a pod by a translator", "64:ff9b::10.244.3.4"],
    ["a pod by 6to4", "2002:af4:304::1"],
    ["a pod of IPv6", "fd00:10::5"],
    ["a node", "192.168.7.2"],
    ["loopback", "127.0.0.1"],
    ["another loopback", "127.9.9.9"],
    ["loopback of IPv6", "::1"],
    ["loopback in IPv6", "::ffff:127.0.0.1"],
    ["anything that is this machine", "0.0.0.0"],
    ["nothing", "::"],
    ["the metadata service", "169.254.169.254"],
    ["this link", "fe80::1%eth0"],
    ["many", "239.1.1.1"],
    ["no address", "not-an-address"],
  ])("may not dial %s", (_, address) => {
    expect(mayDial(cluster, address, 5432)).toBe(false);
  });
  test("may dial what it has a right to, at the port that the right names", () => {
    expect(mayDial(cluster, "10.96.0.7", 5432)).toBe(true);
    expect(mayDial(cluster, "10.96.0.7", 22)).toBe(false);
  });
  test("no right opens loopback or the metadata service", () => {
    const wide = { ...cluster, allowed: [{ range: "0.0.0.0/0" }] };
    expect(mayDial(wide, "127.0.0.1", 5432)).toBe(false);
    expect(mayDial(wide, "169.254.169.254", 80)).toBe(false);
  });
});

test("a sidecar dials its own pod and nothing else", () => {
  expect(mayDial(ownPod, "127.0.0.1", 5432)).toBe(true);
  expect(mayDial(ownPod, "::1", 5432)).toBe(true);
  expect(mayDial(ownPod, "203.0.113.5", 5432)).toBe(false);
  expect(mayDial(ownPod, "169.254.169.254", 80)).toBe(false);
});

test("nothing is dialled before the operator has said anything, or where what it said is not understood", () => {
  for (const address of ["203.0.113.5", "127.0.0.1", "2001:db8::1"]) {
    expect(mayDial(noReach, address, 5432)).toBe(false);
  }
  for (const value of [
    undefined,
    {},
    { ownPod: false, forbidden: ["10.0.0.0"], allowed: [] },
    { ownPod: false, forbidden: ["10.0.0.0/33"], allowed: [] },
    { ownPod: false, forbidden: [], allowed: [{ range: "pods" }] },
    { ownPod: "no", forbidden: [], allowed: [] },
  ]) {
    expect(readReach(value)).toBeUndefined();
  }
  expect(readReach(JSON.parse(JSON.stringify(cluster)))).toEqual(cluster);
});

describe("a name", () => {
  const answers =
    (...addresses: string[]): Resolve =>
    (_host, _options, callback) =>
      callback(
        null,
        addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
      );
  const looked = (resolve: Resolve) =>
    new Promise<unknown>((done) => {
      checkedLookup(cluster, 5432, resolve)("db.example.com", { all: true }, (error, found) =>
        done(error ?? found),
      );
    });

  test("gives the addresses that may be dialled, of several", async () => {
    expect(await looked(answers("10.244.3.4", "203.0.113.5"))).toEqual([
      { address: "203.0.113.5", family: 4 },
    ]);
  });
  test("that leads into the cluster gives none", async () => {
    expect(await looked(answers("10.244.3.4", "fd00:10::1"))).toMatchObject({ code: "ADDRESS_FORBIDDEN" });
  });
});

describe("dialling", () => {
  const server = createServer((socket) => socket.end());
  let port = 0;
  beforeAll(async () => {
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    port = (server.address() as { port: number }).port;
  });
  afterAll(() => server.close());
  const target = (host: string, reach: Reach) => ({ host, port, reach, tls: { mode: "disable" as const } });
  const causeOf = (host: string, reach: Reach, resolve?: Resolve) =>
    dial(target(host, reach), AbortSignal.timeout(5_000), resolve).then(
      () => "connected",
      (error: GatewayError) => (error.cause as { code?: string }).code,
    );

  test("refuses addresses that are written down, and sockets of this machine", async () => {
    expect(await causeOf("127.0.0.1", cluster)).toBe("ADDRESS_FORBIDDEN");
    expect(await causeOf("/var/run/postgresql/.s.PGSQL.5432", cluster)).toBe("ADDRESS_FORBIDDEN");
    expect(await causeOf("127.0.0.1", ownPod)).toBe("connected");
  });

  test("connects to the address that was checked: a name that changes in between is looked up once", async () => {
    let asked = 0;
    // Good when it is looked at, and another machine ever after.
    const changing: Resolve = (_host, _options, callback) => {
      asked += 1;
      callback(null, [{ address: asked === 1 ? "127.0.0.1" : "203.0.113.5", family: 4 }]);
    };
    const socket = await dial(target("db.example.com", ownPod), AbortSignal.timeout(5_000), changing);
    expect(socket.remoteAddress).toBe("127.0.0.1");
    socket.destroy();
    expect(asked).toBe(1);
    expect(await causeOf("db.example.com", ownPod, changing)).toBe("ADDRESS_FORBIDDEN");
  });
});
