import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { createServer, connect as tlsConnect } from "node:tls";
import { expect, test } from "vitest";
import { bundleOf, lifetimes, makeAuthority, makeKey, rotated, signLeaf } from "./authority.ts";
import {
  currentAuthorities,
  currentServing,
  nextRotation,
  readAuthorities,
  storeAuthorities,
} from "./state.ts";

const now = Date.now();
const day = 86_400_000;
const names = ["sallyport-webhook", "sallyport-webhook.sallyport-system.svc"];

test("three authorities are made, and none vouches for another's certificates", async () => {
  const authorities = await currentAuthorities({}, now);
  const { certificate } = await currentServing(undefined, names, authorities, now);
  const leaf = new X509Certificate(certificate);
  expect(leaf.verify(new X509Certificate(authorities.server.current.certificate).publicKey)).toBe(true);
  for (const other of ["gateway", "user"] as const) {
    expect(leaf.verify(new X509Certificate(authorities[other].current.certificate).publicKey)).toBe(false);
  }
});

test("what is stored is read again as it was, without a new certificate", async () => {
  const authorities = await currentAuthorities({}, now);
  const serving = await currentServing(undefined, names, authorities, now);
  const again = await currentAuthorities(readAuthorities(storeAuthorities(authorities)), now + day);
  expect(again).toEqual(authorities);
  expect(await currentServing(serving, names, again, now + day)).toBe(serving);
});

test("a broken Secret is replaced, part by part", async () => {
  const authorities = await currentAuthorities({}, now);
  const data = { ...storeAuthorities(authorities), "user.json": "{" };
  const read = readAuthorities(data);
  expect(read.server).toEqual(authorities.server);
  expect(read.user).toBeUndefined();
  expect((await currentAuthorities(read, now)).user.current.certificate).toContain("BEGIN CERTIFICATE");
});

test("a serving certificate is renewed when due, for other names, and when the authority changes", async () => {
  const authorities = await currentAuthorities({}, now);
  const serving = await currentServing(undefined, names, authorities, now);
  expect(await currentServing(serving, names, authorities, now + 61 * day)).not.toBe(serving);
  expect(await currentServing(serving, [...names, "more"], authorities, now)).not.toBe(serving);
  const others = await currentAuthorities({}, now);
  expect(await currentServing(serving, names, others, now)).not.toBe(serving);
  expect(await currentServing({ certificate: "x", key: "y" }, names, authorities, now)).not.toBe(serving);
});

test("O49 an authority is trusted before it signs, and as long as what it signed lives", async () => {
  const first = { current: await makeAuthority("CA", now), previous: [] };
  const due = now + lifetimes.authorityMs * 0.67;
  const both = await rotated(first, "CA", due);
  expect(both.current).toEqual(first.current);
  expect(bundleOf(both).match(/BEGIN/g)).toHaveLength(2);
  expect(await rotated(both, "CA", due + day / 2)).toEqual(both);

  const switched = await rotated(both, "CA", due + day);
  expect(switched.current.certificate).toBe(both.next?.certificate);
  expect(switched.previous[0]).not.toHaveProperty("key");
  expect(bundleOf(switched).match(/BEGIN/g)).toHaveLength(2);

  const over = await rotated(switched, "CA", due + day + lifetimes.servingMs + 2 * day);
  expect(bundleOf(over).match(/BEGIN/g)).toHaveLength(1);
});

test("the next rotation is the first thing that falls due", async () => {
  const authorities = await currentAuthorities({}, now);
  const serving = await currentServing(undefined, names, authorities, now);
  const at = nextRotation(authorities, [serving]);
  expect(at).toBeGreaterThan(now + 59 * day);
  expect(at).toBeLessThan(now + 61 * day);
});

test("O50 a certificate holds the names that the operator gave, and TLS clients accept it for those alone", async () => {
  const authority = await makeAuthority("CA", now);
  const { publicKey, privateKey } = await makeKey();
  const uri = "sallyport://gateway/shop/orders/1";
  const certificate = await signLeaf(authority, {
    commonName: "orders",
    names: ["localhost"],
    uri,
    usage: "server",
    lifeMs: day,
    now,
    publicKey,
  });
  expect(new X509Certificate(certificate).subjectAltName).toBe(`DNS:localhost, URI:${uri}`);
  const server = createServer({ cert: certificate, key: privateKey, minVersion: "TLSv1.2" });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const open = async (servername: string) => {
    const socket = tlsConnect({ host: "127.0.0.1", port, servername, ca: authority.certificate });
    try {
      await once(socket, "secureConnect");
    } finally {
      socket.destroy();
    }
  };
  await open("localhost");
  await expect(open("elsewhere")).rejects.toThrow(/altnames/);
  server.close();
});

test("a leaf never outlives its authority", async () => {
  const authority = await makeAuthority("CA", now - lifetimes.authorityMs + day);
  const { publicKey } = await makeKey();
  const request = {
    commonName: "x",
    names: ["x"],
    usage: "client",
    publicKey,
    now,
    lifeMs: 30 * day,
  } as const;
  const leaf = new X509Certificate(await signLeaf(authority, request));
  expect(leaf.validToDate.getTime()).toBeLessThanOrEqual(now + day);
});
