import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Channel } from "../../wire/channel.ts";
import { GatewayError } from "../../wire/gateway-error.ts";
import { defaultLimits } from "../../wire/limits.ts";
import { acceptClient, askForToken } from "./accept.ts";
import { isUtf8Name, readStartupPacket, startupSettings } from "./startup.ts";
import { messagesIn } from "./testing.ts";

/** A channel over bytes that are all there already. */
function channelOver(bytes: Buffer, options: { isLocal?: boolean } = {}): Channel & { written: Buffer[] } {
  let rest = bytes;
  const written: Buffer[] = [];
  return {
    written,
    read: (count) => {
      if (rest.length < count) return Promise.reject(new GatewayError("protocolViolation"));
      const taken = rest.subarray(0, count);
      rest = rest.subarray(count);
      return Promise.resolve(taken);
    },
    peek: () => Promise.resolve(rest[0]),
    write: (chunk) => written.push(Buffer.from(chunk)),
    secured: undefined,
    get hasBuffered() {
      return rest.length > 0;
    },
    remoteAddress: "127.0.0.1",
    isLocal: options.isLocal ?? true,
  };
}

const packet = (code: number, body: string | Buffer = "") => {
  const bytes = Buffer.from(body);
  const head = Buffer.alloc(8);
  head.writeInt32BE(8 + bytes.length, 0);
  head.writeInt32BE(code, 4);
  return Buffer.concat([head, bytes]);
};
const startup = (minor: number, parameters: Record<string, string>) =>
  packet(
    (3 << 16) | minor,
    `${Object.entries(parameters)
      .map(([name, value]) => `${name}\0${value}\0`)
      .join("")}\0`,
  );
const accept = (channel: Channel) =>
  acceptClient(channel, { limits: defaultLimits, startTls: () => Promise.reject(new Error("no TLS here")) });
const failureOf = async (promise: Promise<unknown>): Promise<GatewayError> => {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(GatewayError);
  return error as GatewayError;
};

describe("start-up", () => {
  it("A5: plain text is refused before any password is asked for", async () => {
    const channel = channelOver(startup(0, { user: "ann" }), { isLocal: false });
    expect((await failureOf(accept(channel))).sqlstate).toBe("28000");
    expect(channel.written).toEqual([]);
  });

  it("A2: bytes stuffed behind SSLRequest end the connection before TLS", async () => {
    const channel = channelOver(Buffer.concat([packet(80877103), startup(0, { user: "eve" })]));
    expect((await failureOf(accept(channel))).code).toBe("protocolViolation");
    // The server says S before it reads on, and so do we; the stuffed bytes are answered by nothing.
    expect(Buffer.concat(channel.written).toString()).toBe("S");
  });

  it("A3: GSSENCRequest is answered N once, and a second one ends the connection", async () => {
    const once = channelOver(packet(80877104));
    await failureOf(accept(once));
    expect(Buffer.concat(once.written).toString()).toBe("N");
  });

  it("A6: protocol 3.0 and 3.2 pass, 3.9999 is negotiated down, unknown options are listed back", async () => {
    expect(await accept(channelOver(startup(0, { user: "ann" })))).toMatchObject({ minor: 0 });
    expect(await accept(channelOver(startup(2, { user: "ann" })))).toMatchObject({ minor: 2 });
    const newer = channelOver(startup(9999, { user: "ann", "_pq_.fast": "1" }));
    expect(await accept(newer)).toMatchObject({ minor: 2 });
    const [message] = messagesIn(Buffer.concat(newer.written));
    expect(message?.type).toBe("v");
    expect(message?.body.readInt32BE(0)).toBe((3 << 16) | 2);
    expect(message?.body.subarray(8).toString()).toBe("_pq_.fast\0");
  });

  it("A6: protocol 2.0 gets its own error form, 4.0 gets 0A000", async () => {
    const ancient = channelOver(packet(2 << 16, "\0"));
    expect(await accept(ancient)).toBeUndefined();
    expect(ancient.written[0]?.toString()).toMatch(/^EFATAL/);
    expect((await failureOf(accept(channelOver(packet(4 << 16, "\0"))))).sqlstate).toBe("0A000");
  });

  it("A8: no user is refused; no database means the user's name", async () => {
    expect((await failureOf(accept(channelOver(startup(0, { database: "x" }))))).sqlstate).toBe("28000");
    expect(await accept(channelOver(startup(0, { user: "ann" })))).toMatchObject({ database: "ann" });
  });

  it.each(["true", "1", "database", "on", "yes", "TRUE"])(
    "A11: replication=%s is refused",
    async (replication) => {
      expect((await failureOf(accept(channelOver(startup(0, { user: "ann", replication }))))).sqlstate).toBe(
        "28000",
      );
    },
  );

  it("reads cancel keys of 4 to 256 bytes", async () => {
    const key = Buffer.concat([Buffer.from([0, 0, 0, 7]), Buffer.alloc(32, 9)]);
    expect(await accept(channelOver(packet(80877102, key)))).toMatchObject({ kind: "cancel", processId: 7 });
  });

  it("never throws anything but a GatewayError for arbitrary bytes", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 64 }), async (bytes) => {
        const channel = channelOver(Buffer.from(bytes));
        await readStartupPacket(channel, 10_000).catch((error: unknown) => {
          expect(error).toBeInstanceOf(GatewayError);
        });
      }),
    );
  });
});

describe("settings at start-up", () => {
  const settings = (options: string) => startupSettings(new Map([["options", options]]));

  it("A9: reads options as PostgreSQL does", () => {
    expect(settings("-c a=1 -cb=2 --c-d=3")).toEqual([
      { name: "a", value: "1" },
      { name: "b", value: "2" },
      { name: "c_d", value: "3" },
    ]);
    expect(settings("-c a=x\\ y\\\\z")).toEqual([{ name: "a", value: "x y\\z" }]);
  });

  it("refuses options that are no settings, and names that could break out of SET", () => {
    expect(() => settings("-d 5")).toThrow(GatewayError);
    expect(() => settings("-c a")).toThrow(GatewayError);
    expect(() => startupSettings(new Map([['a"; DROP TABLE x; --', "1"]]))).toThrow(GatewayError);
  });

  it("A10: direct parameters are settings too, in any case", () => {
    expect(startupSettings(new Map([["Role", "admin"]]))).toEqual([{ name: "Role", value: "admin" }]);
  });

  it("D4: takes every spelling of UTF-8 and nothing else", () => {
    for (const name of ["UTF8", "utf-8", "Unicode", "UTF_8"]) expect(isUtf8Name(name)).toBe(true);
    for (const name of ["SJIS", "GBK", "SQL_ASCII", "latin1", "utf16"]) expect(isUtf8Name(name)).toBe(false);
  });
});

describe("the password", () => {
  it("is refused beyond its bound and with a NUL inside", async () => {
    const long = Buffer.from([0x70, 0x7f, 0, 0, 0]);
    expect((await failureOf(askForToken(channelOver(long), defaultLimits))).code).toBe("protocolViolation");
    const nul = Buffer.from([0x70, 0, 0, 0, 7, 0x61, 0, 0]);
    expect((await failureOf(askForToken(channelOver(nul), defaultLimits))).code).toBe("protocolViolation");
  });
});
