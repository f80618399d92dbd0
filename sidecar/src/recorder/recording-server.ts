import type { X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import { createServer, type Server, type TLSSocket } from "node:tls";
import {
  FramedConnection,
  type GatewayName,
  MessageError,
  parseGatewayUri,
  parseRecordingRequest,
  type RecordingAnswer,
  recordingProtocol,
  recordingStreamLimits,
} from "@sallyport/control";
import type { GatewayCredential, RecordingVolume } from "./recording-volume.ts";
import { Refused, type StoredSession } from "./stored-session.ts";

/** What the recorder's stream is served with. */
export interface RecordingServerOptions {
  readonly host: string;
  readonly port: number;
  readonly certificate: string;
  readonly key: string;
  /** The authority that signs gateways' certificates, and nothing else. */
  readonly gatewayAuthorities: string;
  readonly volume: RecordingVolume;
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
  readonly heartbeatMs?: number;
  readonly silenceMs?: number;
}

const connectionsMax = 4096;
const handshakeMs = 10_000;
/** Bytes of one connection that may wait for the disk before no more are read. */
const pendingBytesMax = 4 * 1024 * 1024;

/** The listening stream server. */
export interface RecordingServer {
  readonly server: Server;
  /** Ends every stream; gateways keep what was not acknowledged. */
  end(): void;
}

/** Serves gateways that show a certificate of theirs: each may write the recordings of its own resource. */
export async function serveRecordings(options: RecordingServerOptions): Promise<RecordingServer> {
  // Those below TLS: a handshake that is not over when the server ends must not become a stream of it.
  const sockets = new Set<Socket>();
  const server = createServer({
    cert: options.certificate,
    key: options.key,
    ca: options.gatewayAuthorities,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: "TLSv1.3",
    ALPNProtocols: [recordingProtocol],
    handshakeTimeout: handshakeMs,
  });
  server.maxConnections = connectionsMax;
  server.on("tlsClientError", () => undefined);
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.on("secureConnection", (socket) => {
    const stream = new RecordingStream(socket, options);
    stream.run().catch((error: unknown) => {
      options.log.info({ gateway: stream.gateway, cause: String(error) }, "a recording stream ended");
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port, options.host, resolve);
  });
  return {
    server,
    end() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** One gateway's connection. */
class RecordingStream {
  gateway: string | undefined;
  readonly #socket: TLSSocket;
  readonly #options: RecordingServerOptions;
  readonly #connection: FramedConnection;
  readonly #files = new Map<number, StoredSession>();
  readonly #working = new Map<number, Promise<void>>();
  #pendingBytes = 0;

  constructor(socket: TLSSocket, options: RecordingServerOptions) {
    this.#socket = socket;
    this.#options = options;
    const { heartbeatMs = recordingStreamLimits.heartbeatMs, silenceMs } = options;
    this.#connection = new FramedConnection(socket, {
      frameBytesMax: recordingStreamLimits.frameBytesMax,
      heartbeatMs,
      ...(silenceMs !== undefined && { silenceMs }),
    });
  }

  async run(): Promise<void> {
    const credential = credentialOf(this.#socket.getPeerX509Certificate());
    if (credential === undefined || this.#socket.alpnProtocol !== recordingProtocol) {
      this.#connection.end();
      this.#options.log.warn({ peer: this.#socket.remoteAddress }, "a certificate names no gateway");
      return;
    }
    const { namespace, resource, podUid } = credential.name;
    this.gateway = `${namespace}/${resource}/${podUid}`;
    try {
      for await (const { header, body } of this.#connection.messages()) {
        const request = parseRecordingRequest(header);
        this.#pendingBytes += body.length;
        const before = this.#working.get(request.file) ?? Promise.resolve();
        const step = before.then(() => this.#serve(credential, request, body));
        const done = step.finally(() => {
          this.#pendingBytes -= body.length;
          if (this.#working.get(request.file) === done) this.#working.delete(request.file);
        });
        this.#working.set(request.file, done);
        // Files wait for the disk apart from each other, and none is read further than the bound.
        if (this.#pendingBytes > pendingBytesMax || this.#working.size > recordingStreamLimits.filesMax)
          await done;
      }
    } catch (error) {
      if (error instanceof MessageError) this.#options.log.warn({ gateway: this.gateway }, error.message);
      throw error;
    } finally {
      this.#connection.end();
      await Promise.allSettled(this.#working.values());
      for (const session of this.#files.values()) this.#options.volume.detach(session, this);
    }
  }

  /** Serves one request; what goes wrong is told to the gateway and never thrown. */
  async #serve(
    credential: GatewayCredential,
    request: ReturnType<typeof parseRecordingRequest>,
    body: Buffer,
  ): Promise<void> {
    const { file } = request;
    try {
      if (request.kind === "open") await this.#open(credential, request);
      else await this.#go(request, body);
    } catch (error) {
      if (!(error instanceof Refused)) {
        this.#options.log.warn({ gateway: this.gateway, err: error }, "a recording failed unexpectedly");
      }
      const { code, message } =
        error instanceof Refused ? error : { code: "failed" as const, message: "failed" };
      const session = this.#files.get(file);
      if (session !== undefined) this.#options.volume.detach(session, this);
      this.#files.delete(file);
      this.#answer({ kind: "failed", file, code, message });
    }
  }

  async #open(
    credential: GatewayCredential,
    { file, path, retentionMs }: { file: number; path: string; retentionMs: number },
  ): Promise<void> {
    if (this.#files.has(file)) throw new Refused("protocol", "a file number was used twice");
    if (this.#files.size >= recordingStreamLimits.filesMax)
      throw new Refused("full", "too many journals are open");
    const session = await this.#options.volume.openSession(credential, path, retentionMs, this);
    if (this.#connection.isClosed) return this.#options.volume.detach(session, this);
    this.#files.set(file, session);
    this.#answer({ kind: "opened", file, bytes: session.bytes });
  }

  async #go(
    request: { kind: "append"; file: number; at: number } | { kind: "sync" | "close"; file: number },
    body: Buffer,
  ): Promise<void> {
    const { file } = request;
    const session = this.#files.get(file);
    // A piece that was on its way when the file failed: the gateway knows by now.
    if (session === undefined) return;
    if (session.owner !== this) throw new Refused("conflict", "the journal is written by another connection");
    if (request.kind === "append") {
      await session.inOrder(() => session.append(request.at, body));
      this.#answer({ kind: "stored", file, bytes: session.bytes });
      return;
    }
    await session.inOrder(() => session.finish());
    if (session.broken) throw session.broken;
    this.#answer({ kind: "synced", file, bytes: session.syncedBytes });
    if (request.kind !== "close") return;
    this.#files.delete(file);
    this.#options.volume.detach(session, this);
    await session.inOrder(() => this.#options.volume.drop(session));
  }

  #answer(answer: RecordingAnswer): void {
    this.#connection.send(answer);
  }
}

/** Whom a certificate names; its chain has been checked. Exactly one name, and a key that journals are signed with. */
function credentialOf(certificate: X509Certificate | undefined): GatewayCredential | undefined {
  const [, uri, ...more] = /^URI:([^,"]+)$/.exec(certificate?.subjectAltName ?? "") ?? [];
  if (certificate === undefined || uri === undefined || more.length > 0) return undefined;
  const name: GatewayName | undefined = parseGatewayUri(uri);
  if (name === undefined || certificate.publicKey.asymmetricKeyType !== "ed25519") return undefined;
  return { name, key: certificate.publicKey };
}
