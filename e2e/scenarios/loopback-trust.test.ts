/** Whether a server lets in whoever shares its loopback, as a gateway beside it finds out; real PostgreSQL. */
import { createServer } from "node:net";
import { trustsLoopback } from "@sallyport/sidecar/postgres-loopback";
import { describe, expect, test } from "vitest";
import { freePort, startPostgres } from "../targets/postgres.ts";

const tried = (port: number, users: readonly string[] = ["shop"]) =>
  trustsLoopback({ port, users, signal: AbortSignal.timeout(25_000) });

describe.each([
  ["passwords for everybody", [], "closed"],
  ["trust for everybody", ["host all all 127.0.0.1/32 trust"], "trusted"],
  ["trust for an account that the gateway uses", ["host all shop 127.0.0.1/32 trust"], "trusted"],
  ["trust for one database", ["host shop shop 127.0.0.1/32 trust"], "trusted"],
  [
    "trust over TLS alone",
    ["hostssl all all 127.0.0.1/32 trust", "hostnossl all all 127.0.0.1/32 reject"],
    "trusted",
  ],
  ["nobody over the loopback", ["host all all 127.0.0.1/32 reject"], "closed"],
] as const)("%s", (_, hba, kind) => {
  test(`is ${kind}`, async () => {
    const server = await startPostgres({ tls: true, hba });
    try {
      expect((await tried(server.port)).kind).toBe(kind);
    } finally {
      await server.stop();
    }
  });
});

test("a port that nobody answers at, or that says something else, is unknown", async () => {
  expect(await tried(await freePort())).toEqual({ kind: "unknown" });
  const other = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.end("HTTP/1.1 400 Bad Request\r\n\r\n");
  });
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  try {
    expect(await tried((other.address() as { port: number }).port)).toEqual({ kind: "unknown" });
  } finally {
    other.close();
  }
});
