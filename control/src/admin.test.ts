import { request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, it } from "vitest";
import { serveAdmin } from "./admin.ts";

let server: Server | undefined;
afterEach(() => new Promise((resolve) => server?.close(resolve)));

it.each(["//", "//healthz", "http://["])("outlives a request for %s, which is no URL", async (path) => {
  server = await serveAdmin({
    host: "127.0.0.1",
    port: 0,
    metrics: () => Promise.resolve({ text: "", type: "text/plain" }),
    notReady: () => undefined,
  });
  const { port } = server.address() as AddressInfo;
  expect(await statusOf(port, path)).toBe(404);
  expect(await statusOf(port, "/healthz?from=kubelet")).toBe(200);
});

it("is not ready where nobody can say whether it is", async () => {
  server = await serveAdmin({
    host: "127.0.0.1",
    port: 0,
    metrics: () => Promise.resolve({ text: "", type: "text/plain" }),
    notReady: () => Promise.reject(new Error("away")),
  });
  expect(await statusOf((server.address() as AddressInfo).port, "/readyz")).toBe(503);
});

function statusOf(port: number, path: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: "127.0.0.1", port, path, agent: false }, (answer) => {
      answer.resume().on("end", () => resolve(answer.statusCode));
    });
    sent.on("error", reject).end();
  });
}
