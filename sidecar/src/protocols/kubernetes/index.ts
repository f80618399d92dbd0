/**
 * Kubernetes: stands before an API server as one itself. Clients keep `kubectl`; each request is judged, recorded and
 * sent on with the gateway's own credential, impersonating whoever asked.
 *
 *     client                    gateway                              API server
 *       │ TLS, ALPN h2 / http/1.1  │                                    │
 *       │ request, bearer token ──▶│ identity, command, guard, permit   │
 *       │                          │ request, Impersonate-User ────────▶│
 *       │◀─ answer, streamed and masked ────────────────────────────────│
 *       │ upgrade (exec, attach, port-forward) ─▶ judged ──────────────▶│
 *       │◀─ frames, read on both ways: recorded, masked, cut ──────────▶│
 */
import type { Socket } from "node:net";
import { countBuffersWithTheHeap } from "../../wire/bulk-memory.ts";
import { SocketChannel } from "../../wire/channel.ts";
import { GatewayError } from "../../wire/gateway-error.ts";
import { serveHttp } from "../../wire/http-server.ts";
import type { Protocol, ProtocolHost } from "../protocol.ts";
import { ClientConnection, correlationId } from "./connection.ts";
import { Denials } from "./denials.ts";
import { answerRequest } from "./plain-requests.ts";
import { answerUpgrade } from "./streams/upgrade.ts";
import { ApiServers } from "./upstream.ts";

export const kubernetes: Protocol = { name: "kubernetes", defaultPort: 6443, serve };

/** What was refused here, given away to other processes and replicas, too. */
function denialsOf(host: ProtocolHost): Denials {
  const denials = new Denials();
  host.denials.receive((digest) => denials.take(digest));
  return denials;
}

async function serve(socket: Socket, host: ProtocolHost, onLoggedIn: () => void): Promise<void> {
  countBuffersWithTheHeap();
  const channel = new SocketChannel(socket, AbortSignal.timeout(host.limits.loginMs));
  try {
    await host.startTls(channel, "optional", ["h2", "http/1.1"]);
    const tls = channel.secured;
    channel.detach();
    if (tls === undefined) throw new GatewayError("tlsRequired");
    const servers = host.shared("apiServers", () => new ApiServers(host));
    const denials = host.shared("denials", () => denialsOf(host));
    // Who connects and does not log in is not kept: the place is others' to take.
    const late = setTimeout(() => tls.destroy(), host.limits.loginMs);
    const connection = new ClientConnection(tls, host, servers, () => {
      clearTimeout(late);
      onLoggedIn();
    });
    const serving = { host, servers, connection, denials };
    try {
      await serveHttp(tls, {
        request: (exchange) => void answerRequest(exchange, serving),
        upgrade: (upgrade) => void answerUpgrade(upgrade, serving),
      });
    } finally {
      clearTimeout(late);
      await connection.close();
    }
  } catch (error) {
    host.report(error, correlationId());
  } finally {
    socket.destroy();
  }
}
