/**
 * A relay that decides nothing: what comes in at one end goes out at the other, by the same calls below Node's streams
 * that the gateway uses. It shows how much of a ratio is Node's own and could not be won by any gateway in it.
 * usage: bare-relay.ts SOCKET-FOLDER SERVER-PORT CERTIFICATE KEY; prints its port
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { createSecureContext, TLSSocket } from "node:tls";
import { isWriteLasting, nativeHandle, readBytes, writeRequest } from "@sallyport/sidecar/native-stream";

const [, , socketDir = "", serverPort = "", certificate = "", key = ""] = process.argv;
const secureContext = createSecureContext({ cert: readFileSync(certificate), key: readFileSync(key) });

/** Length 8 and the number of SSLRequest. */
const sslRequest = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]);

async function serve(client: Socket): Promise<void> {
  client.setNoDelay(true);
  client.on("error", () => client.destroy());
  const server = connect({ host: "127.0.0.1", port: Number(serverPort), noDelay: true });
  server.on("error", () => client.destroy());
  await once(server, "connect");
  const [first] = (await once(client, "data")) as [Buffer];
  client.pause();
  if (!first.equals(sslRequest)) {
    server.write(first);
    joinEnds(client, server);
    return;
  }
  client.removeAllListeners("data");
  client.write("S");
  const secure = new TLSSocket(client, { isServer: true, secureContext });
  secure.on("error", () => client.destroy());
  await once(secure, "secure");
  joinEnds(secure, server);
}

function joinEnds(client: Socket, server: Socket): void {
  const ends = [client, server] as const;
  for (const end of ends) end.on("close", () => ends.forEach((each) => void each.destroy()));
  pass(client, server);
  pass(server, client);
}

/** Each read is written at once; where the system does not take it all, the next read gets another buffer. */
function pass(from: Socket, to: Socket): void {
  const [source, target] = [nativeHandle(from), nativeHandle(to)];
  if (source === undefined || target === undefined) throw new Error("there are no native handles");
  let buffer = Buffer.allocUnsafeSlow(65_536);
  let request = writeRequest(() => undefined);
  source.useUserBuffer(buffer);
  source.onread = () => {
    const count = readBytes();
    if (count <= 0) {
      if (count < 0) {
        from.destroy();
        to.destroy();
      }
      return undefined;
    }
    const bytes = buffer.subarray(0, count);
    if (target.writeBuffer(request, bytes) !== 0) return void to.destroy();
    if (isWriteLasting()) {
      request.buffer = bytes;
      request = writeRequest(() => undefined);
      buffer = Buffer.allocUnsafeSlow(65_536);
      source.useUserBuffer(buffer);
    }
    return undefined;
  };
  source.readStart();
}

const tcp = createServer((client) => void serve(client)).listen(0, "127.0.0.1");
await once(tcp, "listening");
const { port } = tcp.address() as AddressInfo;
const unix = createServer((client) => void serve(client)).listen(join(socketDir, `.s.PGSQL.${port}`));
await once(unix, "listening");
process.stdout.write(`${port}\n`);
process.on("SIGTERM", () => process.exit(0));
