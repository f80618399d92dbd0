import { createServer, type Server } from "node:http";
import { requestPath } from "./request-path.ts";

/** What the admin port answers with. */
export interface AdminOptions {
  readonly host: string;
  readonly port: number;
  /** What Prometheus reads. */
  readonly metrics: () => Promise<{ readonly text: string; readonly type: string }>;
  /** Undefined while ready; else why not. */
  readonly notReady: () => string | undefined | Promise<string | undefined>;
}

/** Serves /healthz (the process runs), /readyz (it takes sessions) and /metrics. */
export async function serveAdmin(options: AdminOptions): Promise<Server> {
  const server = createServer((request, response) => {
    const path = requestPath(request.url);
    const send = (status: number, body: string, type = "text/plain; charset=utf-8") => {
      response.writeHead(status, { "content-type": type });
      response.end(body);
    };
    if (request.method !== "GET" && request.method !== "HEAD") send(405, "method not allowed\n");
    else if (path === "/healthz") send(200, "ok\n");
    else if (path === "/readyz") {
      Promise.resolve(options.notReady()).then(
        (reason) => send(reason === undefined ? 200 : 503, `${reason ?? "ok"}\n`),
        () => send(503, "not known\n"),
      );
    } else if (path === "/metrics") {
      options.metrics().then(
        ({ text, type }) => send(200, text, type),
        () => send(500, "metrics failed\n"),
      );
    } else send(404, "not found\n");
  });
  server.requestTimeout = 10_000;
  server.headersTimeout = 10_000;
  server.maxConnections = 64;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port, options.host, resolve);
  });
  return server;
}
