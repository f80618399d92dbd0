import { connect, isIP, type OnReadOpts, type Socket, type TcpNetConnectOpts } from "node:net";
import { connect as connectTls, TLSSocket } from "node:tls";
import type { Reach } from "@sallyport/control";
import { GatewayError } from "./gateway-error.ts";
import { AddressForbiddenError, checkedLookup, mayDial, type Resolve } from "./reach.ts";

/** How the server behind the gateway is reached and checked. */
export interface UpstreamTarget {
  readonly host: string;
  readonly port: number;
  /** Where to connect instead, for a server in the same pod; its certificate is still checked for `host`. */
  readonly nearby?: { readonly host: string; readonly port: number };
  /** Which addresses may be dialled; absent in a standalone gateway, whose manifests are its owner's. */
  readonly reach?: Reach;
  readonly tls: {
    readonly mode: "verify-full" | "verify-ca" | "require" | "disable";
    readonly ca?: string;
    readonly certificate?: string;
    readonly key?: string;
  };
}

/** Opens a TCP connection (or a Unix domain socket where the host is a path); rejects when `signal` aborts. */
export function dial(target: UpstreamTarget, signal: AbortSignal, names?: Resolve): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const { host } = target.nearby ?? target;
    const place = checkedPlace(target, names);
    if (place === undefined) {
      reject(new GatewayError("upstreamUnreachable", { cause: new AddressForbiddenError() }));
      return;
    }
    const onread =
      target.tls.mode === "disable" || host.startsWith("/") ? { onread: emitting(() => socket) } : {};
    const socket: Socket = host.startsWith("/")
      ? connect({ path: host, ...onread })
      : connect({ ...place, ...onread });
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 60_000);
    const settle = (error?: unknown) => {
      signal.removeEventListener("abort", onAbort);
      socket.off("connect", onConnect);
      socket.off("error", settle);
      if (error === undefined) {
        // From here on the relay listens; until it does, an error must not end the process.
        socket.on("error", () => undefined);
        resolve(socket);
        return;
      }
      socket.on("error", () => undefined);
      socket.destroy();
      reject(new GatewayError("upstreamUnreachable", { cause: error }));
    };
    const onConnect = () => settle();
    const onAbort = () => settle(new Error("dialling took too long"));
    socket.on("connect", onConnect);
    socket.on("error", settle);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}

/** Where to connect, with the look-up that the socket then uses; undefined where that is forbidden outright. */
export function checkedPlace(
  { nearby, reach, ...target }: UpstreamTarget,
  names?: Resolve,
): Pick<TcpNetConnectOpts, "host" | "port" | "lookup"> | undefined {
  const { host, port } = nearby ?? target;
  if (reach === undefined) return { host, port };
  // Sockets of the file system are this machine's own.
  if (host.startsWith("/") || (isIP(host) !== 0 && !mayDial(reach, host, port))) return undefined;
  return { host, port, lookup: checkedLookup(reach, port, names) };
}

/**
 * Reads of plain sockets go into one buffer that all of them share, and each chunk is copied out at its own size: less
 * than half the cost of a stream's own reads, which allocate 64 KiB each time. Listeners get `data` as ever; `read()`
 * gives nothing.
 */
function emitting(socketOf: () => Socket): OnReadOpts {
  return {
    buffer: readBuffer,
    callback: (count, buffer) => {
      socketOf().emit("data", Buffer.from(buffer.subarray(0, count)));
      return true;
    },
  };
}

const readBuffer = Buffer.allocUnsafeSlow(64 * 1024);

/** Reads one byte of a fresh connection: the server's answer to SSLRequest. */
export function readByte(socket: Socket, signal: AbortSignal): Promise<number> {
  return new Promise((resolve, reject) => {
    const settle = (error: unknown, byte?: number) => {
      signal.removeEventListener("abort", onAbort);
      socket.off("readable", onReadable);
      socket.off("close", onClose);
      if (byte === undefined) reject(new GatewayError("upstreamUnreachable", { cause: error }));
      else resolve(byte);
    };
    const onReadable = () => {
      const chunk: Buffer | null = socket.read(1);
      if (chunk !== null) settle(undefined, chunk[0]);
    };
    const onClose = () => settle(new Error("the server closed the connection"));
    const onAbort = () => settle(new Error("the server did not answer in time"));
    socket.on("readable", onReadable);
    socket.on("close", onClose);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}

/** Begins TLS as the client and checks the server as the target's mode says. */
export function secure(
  socket: Socket,
  target: UpstreamTarget,
  signal: AbortSignal,
  alpn: readonly string[] = ["postgresql"],
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const { tls } = target;
    const isVerified = tls.mode === "verify-full" || tls.mode === "verify-ca";
    const secured = connectTls({
      socket,
      servername: /^[\d.]+$|:/.test(target.host) ? "" : target.host,
      host: target.host,
      ALPNProtocols: [...alpn],
      rejectUnauthorized: isVerified,
      ...(tls.ca === undefined ? {} : { ca: tls.ca }),
      ...(tls.certificate === undefined ? {} : { cert: tls.certificate }),
      ...(tls.key === undefined ? {} : { key: tls.key }),
      ...(tls.mode === "verify-full" ? {} : { checkServerIdentity: () => undefined }),
    });
    const settle = (error?: unknown) => {
      signal.removeEventListener("abort", onAbort);
      secured.off("secureConnect", onSecure);
      secured.off("error", settle);
      secured.on("error", () => undefined);
      if (error === undefined) resolve(secured);
      else {
        secured.destroy();
        reject(new GatewayError("upstreamUnreachable", { cause: error }));
      }
    };
    const onSecure = () => settle();
    const onAbort = () => settle(new Error("the TLS handshake took too long"));
    secured.on("secureConnect", onSecure);
    secured.on("error", settle);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}

/** DER of the certificate that the server has shown; undefined without TLS. */
export function certificateOf(socket: Socket): Uint8Array | undefined {
  return socket instanceof TLSSocket ? socket.getPeerX509Certificate()?.raw : undefined;
}
