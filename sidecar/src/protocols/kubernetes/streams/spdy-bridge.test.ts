import { expect, test } from "vitest";
import { failure } from "../status.ts";
import { SpdyBridge, type StreamReader } from "./spdy-bridge.ts";
import {
  controlFrame,
  frameTypes,
  HeaderInflater,
  HeaderStorer,
  headersAt,
  readHeaders,
  SpdyReader,
} from "./spdy-frames.ts";

const reader: StreamReader = {
  opening: async () => undefined,
  fromClient: () => undefined,
  fromServer: () => undefined,
  serverEnded: () => undefined,
  status: () => undefined,
  closed: () => undefined,
};
const noHeaders = Buffer.alloc(4);

/** A client of an exec, and what it and the server were sent. */
function openClient() {
  const store = new HeaderStorer();
  const sent: Buffer[] = [];
  const bridge = new SpdyBridge((pieces) => void sent.push(...pieces), true);
  const forwarded: Buffer[] = [];
  void bridge.connect({ send: (pieces) => void forwarded.push(...pieces), reader, onEnd: () => undefined });
  const number = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    return bytes;
  };
  const text = (value: string) => Buffer.concat([number(value.length), Buffer.from(value)]);
  const open = async (id: number, type: string) => {
    const headers = store.write(Buffer.concat([number(1), text("streamtype"), text(type)]));
    const body = Buffer.concat([number(id), Buffer.alloc(6), headers]);
    await bridge.fromClient(Buffer.concat(controlFrame(frameTypes.synStream, 0, body)));
  };
  /** The server's answer about a stream. */
  const server = new HeaderStorer();
  const reply = (id: number) =>
    bridge.fromUpstream(
      Buffer.concat(
        controlFrame(frameTypes.synReply, 0, Buffer.concat([number(id), server.write(noHeaders)])),
      ),
    );
  /** What the client has got, a word for each frame. */
  const got = async () => {
    const inflate = new HeaderInflater();
    const words: string[] = [];
    for (const item of new SpdyReader().read(Buffer.concat(sent))) {
      if (item.kind === "data") {
        words.push(`${item.stream}:${item.bytes.length > 0 ? "status" : ""}${item.isFin ? "." : ""}`);
        continue;
      }
      const at = headersAt(item.type);
      // Header blocks that are not in order could not be read.
      if (at !== undefined) readHeaders(await inflate.read(item.body.subarray(at)));
      words.push(item.type === frameTypes.goAway ? "bye" : `${item.body.readUInt32BE(0)}:reply`);
    }
    inflate.close();
    return words;
  };
  return { bridge, open, reply, got };
}

test("a client that is cut while it opens its streams is answered about each, and told why", async () => {
  const { bridge, open, reply, got } = openClient();
  await open(1, "error");
  await reply(1);
  await open(3, "stdin");
  let isTold = false;
  const told = bridge.cutAfter(4, failure(403, "the access policy has changed")).then(() => {
    isTold = true;
  });
  // The server's answer comes too late to be passed on.
  await reply(3);
  expect(await got()).toEqual(["1:reply", "1:status.", "3:reply", "3:."]);
  await open(5, "stdout");
  expect(isTold).toBe(false);
  await open(7, "stderr");
  await told;
  expect((await got()).slice(4)).toEqual(["5:reply", "5:.", "7:reply", "7:.", "bye"]);
  bridge.close();
});

test("a client that opens its error stream behind the cut is told on it, and one that has opened all at once", async () => {
  const late = openClient();
  await late.open(1, "stdin");
  const told = late.bridge.cutAfter(2, failure(403, "why"));
  await late.open(3, "error");
  await told;
  expect(await late.got()).toEqual(["1:reply", "1:.", "3:reply", "3:status.", "bye"]);
  late.bridge.close();
  const whole = openClient();
  for (const [at, type] of ["error", "stdout"].entries()) {
    await whole.open(2 * at + 1, type);
    await whole.reply(2 * at + 1);
  }
  await whole.bridge.cutAfter(2, failure(403, "why"));
  expect((await whole.got()).slice(2)).toEqual(["1:status.", "3:.", "bye"]);
  whole.bridge.close();
});
