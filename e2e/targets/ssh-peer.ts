/** One end of an SSH connection in a test's hands: says what it likes and waits for what the other end says. */
import { connect } from "node:net";
import {
  type Field,
  hostKeysFrom,
  logIn,
  made,
  message,
  Reader,
  type Transport,
} from "@sallyport/sidecar/ssh-testing";
import type { SshGateway } from "./ssh-gateway.ts";

/** A client that is logged in and says what a test has it say. */
export interface SshPeer {
  readonly transport: Transport;
  send(type: number, ...fields: readonly Field[]): void;
  /** The next message of those types that was not taken yet, whole; rejects when the connection ends first. */
  nextOf(...types: readonly number[]): Promise<Buffer>;
  /** The next message of that type, behind its number. */
  next(type: number): Promise<Reader>;
  /** Takes the first message that is meant, and leaves the others. */
  take(isMeant: (payload: Buffer) => boolean): Promise<Buffer>;
  readonly ended: Promise<void>;
}

/** Takes over a connection that is logged in. */
export function peerOf(transport: Transport): SshPeer {
  const arrived: Buffer[] = [];
  let [wake, isOver] = [() => {}, false];
  const over = Promise.withResolvers<void>();
  transport.receiver = {
    message: (payload) => {
      arrived.push(payload);
      wake();
    },
    ended: () => {
      isOver = true;
      over.resolve();
      wake();
    },
  };
  const take = async (isMeant: (payload: Buffer) => boolean): Promise<Buffer> => {
    for (;;) {
      const at = arrived.findIndex(isMeant);
      if (at >= 0) return arrived.splice(at, 1)[0] as Buffer;
      if (isOver) throw new Error("the connection has ended");
      await new Promise<void>((resolve) => {
        const before = wake;
        wake = () => {
          before();
          resolve();
        };
      });
    }
  };
  const nextOf = (...types: readonly number[]) => take((payload) => types.includes(payload[0] ?? 0));
  return {
    transport,
    ended: over.promise,
    take,
    nextOf,
    next: async (type) => new Reader(await nextOf(type), 1),
    send: (type, ...fields) => transport.send(made(type, ...fields)),
  };
}

/** A client of the gateway's that has logged in with a token. */
export async function signedIn(gateway: SshGateway, hostKey: string, user = "alice"): Promise<SshPeer> {
  const transport = await logIn({
    socket: connect(gateway.port, "127.0.0.1"),
    user: "app%web",
    password: gateway.issuer.token({ user }),
    hostKeys: hostKeysFrom([hostKey]),
    signal: AbortSignal.timeout(20_000),
  });
  return peerOf(transport);
}

/** Opens a session channel of that number and resolves to the gateway's number of it. */
export async function sessionOf(peer: SshPeer, number = 0, window = 1 << 20): Promise<number> {
  peer.send(message.channelOpen, "session", number, window, 32_768);
  const confirmed = await peer.next(message.channelOpenConfirmation);
  confirmed.uint32();
  return confirmed.uint32();
}
