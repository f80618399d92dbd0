/** Promise: whoever is meant to be served is, whatever became of the gateway before and of another resource's port. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePort } from "../targets/free-port.ts";
import { startGateway } from "../targets/gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { sslRequest } from "../targets/wire-client.ts";

let server: PostgresServer;
let folder = "";
beforeAll(async () => {
  server = await startPostgres({ tls: true, database: "shop" });
  folder = await mkdtemp(join(tmpdir(), "sallyport-listeners-"));
});
afterAll(async () => {
  await server?.stop();
  await rm(folder, { recursive: true, force: true });
});

const policies = policyDocument("shop", "ann", "  profile: Admin");

test("the socket that a killed gateway has left behind is taken over, and a living one's is not", async () => {
  const port = await freePort();
  const options = { server, policies, resource: { listen: { port } }, args: ["--listen-unix", folder] };
  const killed = await startGateway(options);
  await killed.kill9();
  const gateway = await startGateway(options);
  try {
    const client = new pg.Client({
      host: folder,
      port,
      user: "shop",
      database: "shop",
      password: await gateway.token({ user: "ann" }),
    });
    await client.connect();
    expect((await client.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    await client.end();
    // Another address and the same port: the socket's name is the same.
    const second = startGateway({ ...options, args: [...options.args, "--listen", "127.0.0.2"] });
    await expect(second).rejects.toThrow("EADDRINUSE");
  } finally {
    await gateway.stop();
    await killed.stop();
  }
});

test("a new resource whose port is taken keeps no other from being served, and is served once it is free", async () => {
  const gateway = await startGateway({ server, policies });
  const [taken, open] = [await freePort(), await freePort()];
  const stranger = createServer();
  await new Promise<void>((resolve) => stranger.listen(taken, "127.0.0.1", resolve));
  stranger.on("connection", (socket) => socket.destroy());
  try {
    const shop = JSON.parse(await readFile(join(gateway.configDir, "resource.yaml"), "utf8"));
    for (const [name, port] of [
      ["early", taken],
      ["late", open],
    ] as const) {
      const resource = { ...shop, metadata: { ...shop.metadata, name } };
      resource.spec = { ...shop.spec, listen: { port } };
      await gateway.write(`${name}.yaml`, JSON.stringify(resource));
    }
    await expect.poll(() => answerToTls(open)).toBe("S");
    expect(gateway.logs()).toContain("the resource cannot be opened; it is tried again");
    await new Promise((resolve) => stranger.close(resolve));
    await expect.poll(() => answerToTls(taken)).toBe("S");
  } finally {
    stranger.close();
    await gateway.stop();
  }
});

/** What a server says to SSLRequest; nothing where none is there. */
function answerToTls(port: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(sslRequest));
    socket.setTimeout(5_000, () => socket.destroy());
    socket.once("data", (bytes) => {
      resolve(bytes.toString("latin1"));
      socket.destroy();
    });
    socket.once("error", () => undefined);
    socket.once("close", () => resolve(""));
  });
}
