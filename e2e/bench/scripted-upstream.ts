/**
 * A server for a thousand idle sessions: it lets everybody in, answers what the gateway asks at a login and then says
 * nothing, so that it costs next to nothing beside the gateway. The gateway's own connection for the catalog is passed on to a real server.
 */

import type { AddressInfo } from "node:net";
import { connect, createServer, type Socket } from "node:net";
import { frame, int32s } from "../targets/wire-client.ts";

/** A listening scripted server. */
export interface ScriptedUpstream {
  readonly port: number;
  stop(): Promise<void>;
}

/** Listens on a free port; `catalogPort` is where the real server is. */
export async function startScriptedUpstream(catalogPort: number): Promise<ScriptedUpstream> {
  const sockets = new Set<Socket>();
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy()).once("close", () => sockets.delete(socket));
  };
  const server = createServer((socket) => {
    keep(socket);
    socket.once("data", (startup: Buffer) => {
      if (!startup.includes("sallyport catalog\0")) {
        socket.write(loggedIn);
        socket.once("data", () => {
          socket.write(begun);
          socket.resume();
        });
        return;
      }
      const real = connect(catalogPort, "127.0.0.1");
      keep(real);
      real.once("close", () => socket.destroy());
      socket.once("close", () => real.destroy());
      real.write(startup);
      socket.pipe(real).pipe(socket);
    });
  });
  await new Promise<void>((resolve) => server.listen({ port: 0, host: "127.0.0.1", backlog: 512 }, resolve));
  return {
    port: (server.address() as AddressInfo).port,
    stop: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const parameters: readonly (readonly [string, string])[] = [
  ["server_version", "18.4"],
  ["server_encoding", "UTF8"],
  ["client_encoding", "UTF8"],
  ["DateStyle", "ISO, MDY"],
  ["IntervalStyle", "postgres"],
  ["TimeZone", "UTC"],
  ["integer_datetimes", "on"],
  ["standard_conforming_strings", "on"],
  ["search_path", '"$user", public'],
  ["is_superuser", "off"],
  ["session_authorization", "bench"],
  ["in_hot_standby", "off"],
  ["default_transaction_read_only", "off"],
  ["application_name", ""],
];

/** AuthenticationOk, the parameters of a server of version 18, BackendKeyData, ReadyForQuery. */
const loggedIn = Buffer.concat([
  frame("R", int32s(0)),
  ...parameters.map(([name, value]) => frame("S", `${name}\0${value}\0`)),
  frame("K", int32s(1, 1)),
  frame("Z", "I"),
]);

/** One row with the search_path and both roles, CommandComplete, ReadyForQuery. */
const begun = Buffer.concat([
  frame("D", textRow('"$user", public', "bench", "bench")),
  frame("C", "SELECT 1\0"),
  frame("Z", "I"),
]);

/** The body of a DataRow: an int16 count, and for each value an int32 length and the text. */
function textRow(...values: readonly string[]): Buffer {
  const count = Buffer.alloc(2);
  count.writeInt16BE(values.length);
  return Buffer.concat([count, ...values.flatMap((value) => [int32s(value.length), Buffer.from(value)])]);
}
