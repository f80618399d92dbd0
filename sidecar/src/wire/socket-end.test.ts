import "reflect-metadata";
import { execFile } from "node:child_process";
import { webcrypto } from "node:crypto";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { createSecureContext, connect as secure, TLSSocket } from "node:tls";
import { promisify } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import * as x509 from "@peculiar/x509";
import { afterEach, describe, expect, it, vi } from "vitest";
import { nativeHandle } from "./native-stream.ts";
import { type SocketEnd, socketEnd } from "./socket-end.ts";

const open: Socket[] = [];
afterEach(() => {
  for (const socket of open.splice(0)) socket.destroy();
});

/** A collection as V8 may make it at any time. */
function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  const gc: unknown = runInNewContext("globalThis.gc");
  setFlagsFromString("--no-expose-gc");
  if (typeof gc !== "function") throw new Error("V8 gives no gc");
  gc();
}

interface Pair {
  readonly near: Socket;
  readonly far: Socket;
  /** Breaks the connection from the far side. */
  readonly reset: () => void;
}

async function pair(): Promise<Pair> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("no address");
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  const far = connect(address.port, "127.0.0.1");
  const near = await accepted;
  server.close();
  return opened(near, far, far);
}

function opened(near: Socket, far: Socket, lowest: Socket): Pair {
  open.push(near, far);
  for (const socket of [near, far]) socket.on("error", () => undefined);
  return { near, far, reset: () => lowest.resetAndDestroy() };
}

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
const certificate = await x509.X509CertificateGenerator.createSelfSigned({
  name: "CN=localhost",
  keys,
  signingAlgorithm: algorithm,
});
const issued = {
  cert: certificate.toString("pem"),
  key: x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY"),
};

async function securePair(): Promise<Pair> {
  const plain = await pair();
  const secureContext = createSecureContext(issued);
  const near = new TLSSocket(plain.near, { isServer: true, secureContext });
  const far = secure({ socket: plain.far, rejectUnauthorized: false });
  await new Promise((resolve) => far.once("secureConnect", resolve));
  return opened(near, far, plain.far);
}

interface Heard {
  readonly end: SocketEnd;
  readonly bytes: () => Buffer;
  readonly calls: { drained: number; closed: number };
}

function listening(end: SocketEnd): Heard {
  const chunks: Buffer[] = [];
  const calls = { drained: 0, closed: 0 };
  end.listen({
    data: (chunk) => {
      chunks.push(chunk);
      return false;
    },
    drained: () => {
      calls.drained += 1;
    },
    closed: () => {
      calls.closed += 1;
    },
  });
  return { end, bytes: () => Buffer.concat(chunks), calls };
}

/** Bytes of which no two neighbouring stretches are alike. */
function numbered(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32BE(at, at);
  return bytes;
}

it("has a native handle to work with in this Node", async () => {
  const { near } = await pair();
  expect(nativeHandle(near)).toBeDefined();
});

/** Prints how often the whole heap was collected while 512 MB were read from a socket, each chunk kept for a while. */
const bulkReader = `
import { connect, createServer } from "node:net";
import { PerformanceObserver } from "node:perf_hooks";
const { socketEnd } = await import(${JSON.stringify(join(import.meta.dirname, "socket-end.ts"))});
let majors = 0;
new PerformanceObserver((list) => {
  for (const { detail } of list.getEntries()) if (detail.kind === 4) majors += 1;
}).observe({ entryTypes: ["gc"] });
const server = createServer((far) => {
  const piece = Buffer.alloc(1024 * 1024);
  let left = 512;
  const write = () => {
    while (left-- > 0) if (!far.write(piece)) return;
    far.end();
  };
  far.on("drain", write);
  write();
}).listen(0, "127.0.0.1", () => {
  const near = connect(server.address().port, "127.0.0.1", () => {
    const waiting = [];
    socketEnd(near).listen({
      data: (chunk) => waiting.push(chunk) > 256 && waiting.shift(),
      drained: () => undefined,
      closed: () => {
        console.log(majors);
        process.exit(0);
      },
    });
  });
});
`;

it("reads bulk without marking the heap again and again", async () => {
  const argv = ["--input-type=module", "-e", bulkReader];
  const { stdout } = await promisify(execFile)(process.execPath, argv, { timeout: 50_000 });
  expect(Number(stdout)).toBeLessThan(3);
});

describe.each([
  ["a plain socket", pair, socketEnd],
  ["a TLS socket", securePair, socketEnd],
  ["a plain socket by its stream", pair, (socket: Socket) => socketEnd(socket, "stream")],
  ["a TLS socket by its stream", securePair, (socket: Socket) => socketEnd(socket, "stream")],
])("%s", (_name, connected, endOf) => {
  it("gives what was read before it, and then what comes, in order", async () => {
    const { near, far } = await connected();
    far.write("early ");
    await vi.waitFor(
      () => {
        near.read(0);
        expect(near.readableLength).toBe(6);
      },
      { timeout: 20_000 },
    );
    const { bytes } = listening(endOf(near));
    far.write("late");
    await vi.waitFor(() => expect(bytes().toString()).toBe("early late"), { timeout: 20_000 });
  });

  it("writes in order what the other side takes slowly, and says when to go on", async () => {
    const { near, far } = await connected();
    const { end, calls } = listening(endOf(near));
    const sent = numbered(8 * 1024 * 1024);
    const received: Buffer[] = [];
    let isFull = false;
    for (let at = 0; at < sent.length; at += 100_000) {
      if (!end.write(sent.subarray(at, at + 100_000))) isFull = true;
    }
    expect([isFull, calls.drained]).toEqual([true, 0]);
    far.on("data", (chunk: Buffer) => received.push(chunk));
    await vi.waitFor(() => expect(calls.drained).toBeGreaterThan(0), { timeout: 20_000 });
    near.end("last");
    await new Promise((resolve) => far.once("end", resolve));
    expect(Buffer.concat(received).equals(Buffer.concat([sent, Buffer.from("last")]))).toBe(true);
  });

  it("writes what it was given, though nobody else holds it and the other side takes it late", async () => {
    const { near, far } = await connected();
    const { end } = listening(endOf(near));
    const size = 256 * 1024;
    const count = 64;
    for (let at = 0; at < count; at++) end.write(Buffer.alloc(size, at));
    collectGarbage();
    // Memory that was given back is used again.
    const others = Array.from({ length: count }, () => Buffer.alloc(size, 0xff));
    const received: Buffer[] = [];
    let length = 0;
    far.on("data", (chunk: Buffer) => {
      received.push(chunk);
      length += chunk.length;
    });
    await vi.waitFor(() => expect(length).toBe(count * size), { timeout: 20_000 });
    const all = Buffer.concat(received);
    const changed = Array.from({ length: count }, (_, at) => at).filter(
      (at) => !all.subarray(at * size, (at + 1) * size).every((byte) => byte === at),
    );
    expect([changed, others.length]).toEqual([[], count]);
  });

  it("reads into memory again where its listener is through with it, and nowhere else", async () => {
    const { near, far } = await connected();
    const sent = numbered(4 * 1024 * 1024);
    const kept: Buffer[] = [];
    const received = Buffer.alloc(sent.length);
    let length = 0;
    endOf(near).listen({
      data: (chunk) => {
        received.set(chunk, length);
        length += chunk.length;
        if (kept.length * 2 * 1024 * 1024 < length) {
          kept.push(chunk);
          return false;
        }
        return true;
      },
      drained: () => undefined,
      closed: () => undefined,
    });
    far.write(sent);
    await vi.waitFor(() => expect(length).toBe(sent.length), { timeout: 20_000 });
    expect(received.equals(sent)).toBe(true);
    expect(kept.map((chunk) => sent.indexOf(chunk) >= 0)).toEqual(kept.map(() => true));
  });

  it("says that a write is out of its memory only where that is so", async () => {
    const { near, far } = await connected();
    const { end } = listening(endOf(near));
    const received: Buffer[] = [];
    const sent: Buffer[] = [];
    const piece = Buffer.alloc(16 * 1024);
    for (let at = 0; at < 512; at += 1) {
      piece.fill(at);
      const copy = Buffer.from(piece);
      sent.push(copy);
      const mine = Buffer.from(piece);
      end.write(mine);
      // Whoever reads it later would send this.
      if (end.hasTakenAll) mine.fill(0xff);
    }
    near.end();
    far.on("data", (chunk: Buffer) => received.push(chunk));
    await new Promise((resolve) => far.once("end", resolve));
    expect(Buffer.concat(received).equals(Buffer.concat(sent))).toBe(true);
  });

  it("gives nothing while it is paused, stops the other side, and loses nothing", async () => {
    const { near, far } = await connected();
    const { end, bytes, calls } = listening(endOf(near));
    end.pause();
    const sent = numbered(16 * 1024 * 1024);
    far.end(sent);
    await vi.waitFor(() => expect(near.bytesRead).toBeGreaterThan(0), { timeout: 20_000 });
    let before = -1;
    await vi.waitFor(
      () => {
        const now = near.bytesRead;
        const isStill = now === before;
        before = now;
        expect(isStill).toBe(true);
      },
      { timeout: 20_000, interval: 100 },
    );
    expect([bytes().length, near.bytesRead < sent.length, calls.closed]).toEqual([0, true, 0]);
    end.resume();
    await vi.waitFor(() => expect(bytes().length).toBe(sent.length), { timeout: 20_000 });
    expect(bytes().equals(sent)).toBe(true);
    await vi.waitFor(() => expect(calls.closed).toBeGreaterThan(0), { timeout: 20_000 });
  });

  it("hears of a peer that goes while it is paused", async () => {
    const { near, far } = await connected();
    const { end, calls } = listening(endOf(near));
    end.pause();
    far.destroy();
    await vi.waitFor(() => expect(calls.closed).toBeGreaterThan(0), { timeout: 20_000 });
  });

  it("survives writes to a peer that is gone", async () => {
    const { near, reset } = await connected();
    const { end, calls } = listening(endOf(near));
    reset();
    await vi.waitFor(
      () => {
        end.write(Buffer.alloc(10));
        expect(calls.closed).toBeGreaterThan(0);
      },
      { timeout: 20_000 },
    );
    end.write(Buffer.alloc(10));
    end.resume();
    near.destroy();
    end.write(Buffer.alloc(10));
  });

  it("says nothing more once nobody listens", async () => {
    const { near, far } = await connected();
    const { end, bytes, calls } = listening(endOf(near));
    far.write("heard");
    await vi.waitFor(() => expect(bytes().toString()).toBe("heard"), { timeout: 20_000 });
    end.unlisten();
    far.end("unheard");
    near.resume();
    await new Promise((resolve) => near.once("end", resolve));
    expect([bytes().toString(), calls.closed]).toEqual(["heard", 0]);
  });
});
