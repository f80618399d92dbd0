/** A kubelet that switches protocols when it is let, and says nothing more but a log: what an API server asks it for. */
import type { IncomingMessage } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import type { Kubectl } from "../cluster/kubectl.ts";
import { createAuthority } from "./certificates.ts";

/** A node that is there for its kubelet alone. */
export interface QuietKubelet {
  /** Paths that it was asked for. */
  readonly asked: readonly string[];
  /** What the log of every container holds. */
  log: string;
  /** While true, nothing is answered; what was asked meanwhile is once it is false. */
  waits: boolean;
  /** Streams that it has switched and that are not over. */
  readonly open: number;
  close(): Promise<void>;
}

/** Starts it, and makes the node object that leads to it. */
export async function startQuietKubelet(kubectl: Kubectl, node: string): Promise<QuietKubelet> {
  const { certPem, keyPem } = await (await createAuthority()).issue({ commonName: node, usage: "server" });
  const asked: string[] = [];
  const sockets = new Set<Duplex>();
  const waiting: (() => void)[] = [];
  let waits = false;
  let log = "";
  const server = createServer({ cert: certPem, key: keyPem }, (request, response) => {
    const { searchParams } = new URL(request.url ?? "", "https://kubelet");
    const bytes = Number(searchParams.get("limitBytes") ?? log.length);
    response.writeHead(200, { "content-type": "text/plain" });
    response.end(log.slice(0, bytes));
  });
  server.on("upgrade", (request: IncomingMessage, socket: Duplex) => {
    asked.push(request.url ?? "");
    socket.on("error", () => undefined).on("close", () => sockets.delete(socket));
    const answer = () => {
      const head = [
        "HTTP/1.1 101 Switching Protocols",
        "Connection: Upgrade",
        `Upgrade: ${request.headers.upgrade}`,
      ];
      for (const [name, shown] of [
        ["sec-websocket-protocol", "Sec-WebSocket-Protocol"],
        ["x-stream-protocol-version", "X-Stream-Protocol-Version"],
      ] as const) {
        const first = [request.headers[name] ?? ""].flat().join(",").split(",")[0]?.trim();
        if (first) head.push(`${shown}: ${first}`);
      }
      sockets.add(socket);
      socket.write(`${head.join("\r\n")}\r\n\r\n`);
      socket.resume();
    };
    if (waits) waiting.push(answer);
    else answer();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  await kubectl.apply([
    {
      apiVersion: "v1",
      kind: "Node",
      metadata: { name: node },
      status: {
        addresses: [{ type: "InternalIP", address: "127.0.0.1" }],
        daemonEndpoints: { kubeletEndpoint: { Port: (server.address() as AddressInfo).port } },
      },
    },
  ]);
  return {
    asked,
    get log() {
      return log;
    },
    set log(value) {
      log = value;
    },
    get waits() {
      return waits;
    },
    set waits(value) {
      waits = value;
      if (!waits) for (const answer of waiting.splice(0)) answer();
    },
    get open() {
      return sockets.size;
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
