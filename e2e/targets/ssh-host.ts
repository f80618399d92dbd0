/** A host that speaks SSH as a test tells it to: what no real sshd would say, or would say only now and then. */
import { createServer, type Socket } from "node:net";
import { userInfo } from "node:os";
import { promisify } from "node:util";
import { derivedKey, hostKeysOf, made, message, Reader, Transport } from "@sallyport/sidecar/ssh-testing";
import type { OpenSshServer } from "./openssh.ts";
import { peerOf, type SshPeer } from "./ssh-peer.ts";

/** One connection of the gateway's, once it is logged in. */
export interface HostConnection extends SshPeer {
  /** Waits for a channel of that type to be opened, confirms it, and resolves to the gateway's number of it. */
  channel(type?: string): Promise<number>;
  /** Waits for a request of that name, answers it where that is wanted, and resolves to its own fields. */
  request(name: string, isGranted?: boolean): Promise<Buffer>;
}

/** A host whose side of each connection is the test's. */
export interface ScriptedHost {
  /** For `startSshGateway`. */
  readonly server: OpenSshServer;
  /** The next connection that has logged in. */
  connection(): Promise<HostConnection>;
  /** What is done with new sockets instead of speaking SSH; undefined: SSH again. */
  onSocket(take: ((socket: Socket) => void) | undefined): void;
  /** What is said to a login instead of its success; undefined: success again. */
  onLogin(take: ((transport: Transport, request: Buffer) => void) | undefined): void;
}

/** Starts one; it lets every login in, so `privateKey` is any key. */
export async function startScriptedHost(privateKey: string): Promise<ScriptedHost> {
  const own = derivedKey(Buffer.alloc(32, 7), "scripted host");
  const ready: HostConnection[] = [];
  const waiting: ((one: HostConnection) => void)[] = [];
  const sockets = new Set<Socket>();
  let atSocket: ((socket: Socket) => void) | undefined;
  let atLogin: ((transport: Transport, request: Buffer) => void) | undefined;
  const logIn = (transport: Transport, request: Buffer) => {
    if (atLogin !== undefined) return atLogin(transport, request);
    const one = connectionOf(transport);
    transport.send(made(message.userauthSuccess));
    const taker = waiting.shift();
    if (taker === undefined) ready.push(one);
    else taker(one);
  };
  const speak = (socket: Socket) => {
    const transport: Transport = new Transport({
      socket,
      role: { kind: "server", hostKeys: hostKeysOf(own) },
      receiver: {
        message: (payload) => {
          if (payload[0] === message.serviceRequest)
            transport.send(made(message.serviceAccept, "ssh-userauth"));
          else if (payload[0] === message.userauthRequest) logIn(transport, payload);
        },
        ended: () => undefined,
      },
    });
  };
  const listener = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined).once("close", () => sockets.delete(socket));
    (atSocket ?? speak)(socket);
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const { port } = listener.address() as { port: number };
  return {
    server: {
      kind: "ready",
      port,
      user: userInfo().username,
      folder: "/nowhere",
      privateKey,
      hostKey: `${own.type} ${own.blob.toString("base64")}`,
      logs: () => "",
      changeHostKey: () => Promise.reject(new Error("this host keeps its key")),
      stop: async () => {
        for (const socket of sockets) socket.destroy();
        await promisify((done: (error?: Error) => void) => listener.close(done))();
      },
    },
    connection: () =>
      new Promise((resolve) => {
        const one = ready.shift();
        if (one === undefined) waiting.push(resolve);
        else resolve(one);
      }),
    onSocket: (take) => {
      atSocket = take;
    },
    onLogin: (take) => {
      atLogin = take;
    },
  };
}

function connectionOf(transport: Transport): HostConnection {
  const peer = peerOf(transport);
  /** The gateway's numbers by the host's own. */
  const channels: number[] = [];
  return {
    ...peer,
    channel: async (type = "session") => {
      const payload = await peer.take(
        (one) => one[0] === message.channelOpen && new Reader(one, 1).text() === type,
      );
      const reader = new Reader(payload, 1);
      reader.text();
      const remote = reader.uint32();
      peer.send(message.channelOpenConfirmation, remote, channels.push(remote) - 1, 1 << 20, 32_768);
      return remote;
    },
    request: async (name, isGranted = true) => {
      const payload = await peer.take(
        (one) => one[0] === message.channelRequest && new Reader(one, 5).text() === name,
      );
      const reader = new Reader(payload, 1);
      const channel = reader.uint32();
      reader.text();
      const answer = isGranted ? message.channelSuccess : message.channelFailure;
      if (reader.boolean()) peer.send(answer, channels[channel] ?? 0);
      return reader.rest;
    },
  };
}
