import { createServer, type Server, type TLSSocket } from "node:tls";
import {
  Allowance,
  controlLimits,
  controlProtocol,
  FramedConnection,
  type OperatorMessage,
  type SessionReport,
} from "@sallyport/control";
import type { GatewayReport, GatewayReports } from "../resources/gateway-reports.ts";
import type { ControlServerOptions } from "./control-options.ts";
import type { Authenticated } from "./gateway-authenticator.ts";
import { GatewayStream } from "./gateway-stream.ts";
import { SessionIntake } from "./session-intake.ts";

const connectionsMax = 8192;
const handshakeMs = 10_000;
const reviewsAtOnce = 16;
const reviewsWaitingMax = 1024;
const streamsOfPodMax = 32;
const certificateEveryMs = 5_000;
/** A gateway that comes back asks at once for all that it holds, and of the held a resource has 2,000. */
const callsAllowed = { burst: 4_000, perSecond: 50 };

/** Serves gateways; every replica of the operator runs one. */
export class ControlServer implements GatewayReports {
  readonly #options: ControlServerOptions;
  readonly #streams = new Map<string, Set<GatewayStream>>();
  readonly #shares = new Map<string, Share>();
  readonly #sockets = new Set<TLSSocket>();
  readonly #reviews = new Slots(reviewsAtOnce, reviewsWaitingMax);
  #server: Server | undefined;
  #timer: NodeJS.Timeout | undefined;
  #shown = "";

  constructor(options: ControlServerOptions) {
    this.#options = options;
  }

  /** Listens; answers the port. */
  async start(): Promise<number> {
    const { host, port, certificate } = this.#options;
    const { certificate: cert, key } = certificate();
    const server = createServer({
      cert,
      key,
      minVersion: "TLSv1.3",
      ALPNProtocols: [controlProtocol],
      handshakeTimeout: handshakeMs,
    });
    server.maxConnections = connectionsMax;
    server.on("tlsClientError", () => undefined);
    server.on("secureConnection", (socket) => this.#accept(socket));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host, port, backlog: 1024 }, resolve);
    });
    this.#server = server;
    this.#shown = cert;
    this.#timer = setInterval(() => this.#renewCertificate(), certificateEveryMs);
    this.#timer.unref();
    const address = server.address();
    return typeof address === "object" && address !== null ? address.port : port;
  }

  /** Ends all streams; their gateways go to another replica. */
  stop(): void {
    clearInterval(this.#timer);
    this.#server?.close();
    for (const socket of this.#sockets) socket.destroy();
    for (const { intake } of this.#shares.values()) intake.close();
  }

  /** What the gateways of a resource say of themselves; a pod's several processes speak as one. */
  of(resource: string): readonly GatewayReport[] {
    const digest = this.#options.bundles.digest(resource);
    const reports = new Map<string, GatewayReport>();
    for (const stream of this.#streams.get(resource) ?? []) {
      const podUid = stream.gateway?.pod.uid ?? "";
      const before = reports.get(podUid);
      const isCurrent =
        digest !== undefined && stream.digestInForce === digest && before?.isCurrent !== false;
      const knownHosts = stream.knownHosts ?? before?.knownHosts;
      const problems = [...(before?.problems ?? []), ...stream.problems];
      reports.set(podUid, { podUid, isCurrent, problems, ...(knownHosts !== undefined && { knownHosts }) });
    }
    return [...reports.values()];
  }

  /** Tells the gateways of a resource that a session of theirs has an object. */
  noted(resource: string, session: string): void {
    for (const stream of this.#streams.get(resource) ?? []) stream.noted(session);
  }

  /** Has the gateways of a resource end a session; the one that has it does. */
  endSession(resource: string, session: string, reason: string): void {
    for (const stream of this.#streams.get(resource) ?? []) stream.endSession(session, reason);
  }

  /** Tells every gateway, or those of one resource, of a revocation, a decision, the windows that are open, or its peers. */
  tell(
    message: Extract<OperatorMessage, { kind: "revoke" | "decision" | "windows" | "peers" }>,
    resource?: string,
  ): void {
    for (const [name, streams] of this.#streams) {
      if (resource === undefined || resource === name) for (const stream of streams) stream.tell(message);
    }
  }

  /** A pod was changed or is gone: its streams are looked at now and not at the next turn. */
  async recheck(podUid: string): Promise<void> {
    const streams = [...this.#streams.values()].flatMap((each) => [...each]);
    const own = streams.filter(({ gateway }) => gateway?.pod.uid === podUid);
    await Promise.all(own.map((stream) => stream.recheck()));
  }

  #accept(socket: TLSSocket): void {
    const { heartbeatMs, silenceMs, log } = this.#options;
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    socket.setNoDelay(true);
    const connection = new FramedConnection(socket, {
      frameBytesMax: controlLimits.helloBytesMax,
      queuedBytesMax: 2 * controlLimits.bundleBytesMax,
      ...(heartbeatMs !== undefined && { heartbeatMs }),
      ...(silenceMs !== undefined && { silenceMs }),
    });
    if (socket.alpnProtocol !== controlProtocol) {
      connection.end();
      return;
    }
    const stream = new GatewayStream(connection, {
      options: this.#options,
      authenticate: (token) => this.#authenticate(token),
      intake: (resource) => this.#share(resource).intake,
      calls: (resource) => this.#share(resource).calls,
      joined: (each, { resource, pod }) => {
        const streams = this.#streams.get(resource) ?? new Set();
        const ofPod = [...streams].filter(({ gateway }) => gateway?.pod.uid === pod.uid);
        if (ofPod.length >= streamsOfPodMax) return false;
        this.#streams.set(resource, streams.add(each));
        log.info({ resource, pod: pod.name }, "a gateway opened its stream");
        return true;
      },
      left: (each) => this.#left(each),
    });
    stream.run().catch((error: unknown) => {
      const resource = stream.gateway?.resource;
      log.info(
        { resource, cause: error instanceof Error ? error.message : "failed" },
        "a control stream ended",
      );
    });
  }

  #left(stream: GatewayStream): void {
    const resource = stream.gateway?.resource;
    if (resource === undefined) return;
    const streams = this.#streams.get(resource);
    streams?.delete(stream);
    if (streams?.size === 0) this.#streams.delete(resource);
    this.#forgetGone(resource);
    this.#options.events?.changed?.(resource);
  }

  async #authenticate(token: string): Promise<Authenticated | "busy"> {
    const leave = await this.#reviews.enter();
    if (leave === undefined) return "busy";
    try {
      return await this.#options.authenticator.authenticate(token);
    } catch (error) {
      this.#options.log.warn({ err: error }, "a gateway could not be proved");
      return "busy";
    } finally {
      leave();
    }
  }

  #share(resource: string): Share {
    const known = this.#shares.get(resource);
    if (known !== undefined) return known;
    const { events, intake, calls = callsAllowed, bundles } = this.#options;
    const pass = (reports: readonly SessionReport[]) => events?.sessions?.(resource, reports);
    const made = {
      intake: new SessionIntake(pass, intake),
      calls: new Allowance(calls),
      unwatch: bundles.onChange(resource, () => this.#forgetGone(resource)),
    };
    this.#shares.set(resource, made);
    return made;
  }

  /** Of a resource that is gone, and its gateways too, nothing is kept. */
  #forgetGone(resource: string): void {
    const share = this.#shares.get(resource);
    const { bundles } = this.#options;
    const isGone = bundles.isComplete && bundles.get(resource) === undefined;
    if (share === undefined || !isGone || this.#streams.has(resource)) return;
    this.#shares.delete(resource);
    share.intake.close();
    share.unwatch();
  }

  #renewCertificate(): void {
    try {
      const { certificate, key } = this.#options.certificate();
      if (certificate === this.#shown) return;
      this.#server?.setSecureContext({ cert: certificate, key, minVersion: "TLSv1.3" });
      this.#shown = certificate;
    } catch (error) {
      this.#options.log.warn({ err: error }, "the control stream's certificate could not be renewed");
    }
  }
}

/** What the gateways of one resource may have the operator do, all together. */
interface Share {
  readonly intake: SessionIntake;
  readonly calls: Allowance;
  readonly unwatch: () => void;
}

/** So many at once, so many more that wait; the rest is turned away. */
class Slots {
  readonly #waiting: (() => void)[] = [];
  readonly #waitingMax: number;
  #free: number;

  constructor(atOnce: number, waitingMax: number) {
    this.#free = atOnce;
    this.#waitingMax = waitingMax;
  }

  /** Resolves with what gives the place back; undefined where too many wait already. */
  async enter(): Promise<(() => void) | undefined> {
    if (this.#free > 0) this.#free--;
    else if (this.#waiting.length >= this.#waitingMax) return undefined;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return () => {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    };
  }
}
