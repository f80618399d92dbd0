import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { expect, test } from "vitest";
import { HttpUpstream } from "./http-upstream.ts";

test("a server that switches protocols unasked ends the request, and nobody waits for ever", async () => {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => socket.write("HTTP/1.1 101 Odd\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const upstream = new HttpUpstream({ host: "127.0.0.1", port, tls: { mode: "disable" } }, 5_000);
  try {
    const asked = upstream.request({ method: "GET", path: "/", headers: {} });
    await expect(asked).rejects.toMatchObject({ code: "upstreamProtocol" });
  } finally {
    upstream.close();
    server.close();
  }
});
