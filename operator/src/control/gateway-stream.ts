import { createPublicKey, verify } from "node:crypto";
import { setTimeout as passed } from "node:timers/promises";
import {
  type Allowance,
  type Bundle,
  controlLimits,
  digestOf,
  type FramedConnection,
  type GatewayMessage,
  type GatewayProblem,
  MessageError,
  type OperatorMessage,
  parseGatewayMessage,
  type RefusalCode,
  signingProof,
} from "@sallyport/control";
import type { ControlServerOptions } from "./control-options.ts";
import type { Authenticated } from "./gateway-authenticator.ts";
import type { SessionIntake } from "./session-intake.ts";

/** A stream whose gateway is known. */
type Gateway = Extract<Authenticated, { kind: "gateway" }>;

/** What streams share. */
export interface StreamHost {
  readonly options: ControlServerOptions;
  authenticate(token: string): Promise<Authenticated | "busy">;
  intake(resource: string): SessionIntake;
  /** What the gateways of a resource may have the API server asked. */
  calls(resource: string): Allowance;
  /** Takes the stream into the list of its resource; false where the pod has too many. */
  joined(stream: GatewayStream, gateway: Gateway): boolean;
  left(stream: GatewayStream): void;
}

const helloMs = 10_000;
const currentEveryMs = 20_000;
/** More than this unread and a gateway gets the next change when it has taken the last one. */
const unreadBytesMax = 4 * 1024 * 1024;
const signaturesPerMinute = 20;
const turnMs = 50;

/** One gateway's control stream, from its first message to its end. */
export class GatewayStream {
  readonly #connection: FramedConnection;
  readonly #host: StreamHost;
  #gateway: Gateway | undefined;
  /** What the gateway has been sent; undefined: nothing, or nothing that it could use. */
  #sent: Bundle | undefined;
  #inForce:
    | Pick<Extract<GatewayMessage, { kind: "inForce" }>, "digest" | "accepted" | "problems" | "knownHosts">
    | undefined;
  #problems: readonly GatewayProblem[] = [];
  #isPushing = false;
  /** Whether the gateway knows what it means that a session is noted: earlier ones would end the stream. */
  #takesNotes = false;
  #takesPeers = false;
  #signatures: number[] = [];

  constructor(connection: FramedConnection, host: StreamHost) {
    this.#connection = connection;
    this.#host = host;
  }

  get gateway(): Gateway | undefined {
    return this.#gateway;
  }

  /** True once the connection has ended. */
  get isOver(): boolean {
    return this.#connection.isClosed;
  }

  /** The host key that its clients meet, where its protocol has one. */
  get knownHosts(): string | undefined {
    return this.#inForce?.knownHosts;
  }

  /** Everything that the gateway says is wrong. */
  get problems(): readonly GatewayProblem[] {
    const refused = (this.#inForce?.problems ?? []).map((message) => ({ reason: "PolicyRefused", message }));
    return [...this.#problems, ...refused];
  }

  /** The digest of the policy in force there, where it took all of it. */
  get digestInForce(): string | undefined {
    return this.#inForce?.accepted === true ? this.#inForce.digest : undefined;
  }

  /** Serves until the connection ends. */
  async run(): Promise<void> {
    const messages = this.#connection.messages();
    const tooLate = setTimeout(() => this.refuse("protocol", "nothing was said in time"), helloMs);
    let stopListening: () => void = () => undefined;
    const timers: NodeJS.Timeout[] = [];
    try {
      const first = await messages.next();
      clearTimeout(tooLate);
      if (first.done === true) return;
      const hello = parseGatewayMessage(first.value.header);
      if (hello.kind !== "hello") throw new MessageError("the first message must be a hello");
      const gateway = await this.#prove(hello.token);
      if (gateway === undefined) return;
      this.#takesPeers = hello.takesPeers === true;
      const { options } = this.#host;
      const { resource, pod } = gateway;
      const [namespace = ""] = resource.split("/");
      const recorder = options.recorderOf?.(namespace);
      this.#send({ kind: "welcome", resource, podUid: pod.uid, ...(recorder !== undefined && { recorder }) });
      options.events?.joined?.(resource, this);
      const held = options.bundles.get(resource);
      // It came back and missed nothing.
      if (held !== undefined && hello.holds === digestOf(held.documents)) this.#sent = held;
      stopListening = options.bundles.onChange(resource, () => void this.#push());
      timers.push(setInterval(() => this.#sayCurrent(), options.currentEveryMs ?? currentEveryMs));
      timers.push(setInterval(() => void this.recheck(), options.recheckMs ?? 30_000));
      if (this.#sent === undefined) await this.#push();
      else this.#sayCurrent();
      for await (const { header } of messages) await this.#receive(parseGatewayMessage(header));
    } catch (error) {
      if (error instanceof MessageError) this.refuse("protocol", error.message);
      else throw error;
    } finally {
      clearTimeout(tooLate);
      for (const timer of timers) clearInterval(timer);
      stopListening();
      this.#host.left(this);
      this.#connection.finish();
    }
  }

  /** A session of the resource has an object. */
  noted(session: string): void {
    if (this.#takesNotes) this.#send({ kind: "noted", session });
  }

  /** Ends a session of the gateway's, as its resource's owner wants. */
  endSession(session: string, reason: string): void {
    this.#send({ kind: "endSession", session, reason });
  }

  /** Tells the gateway something that was decided elsewhere; what it does not know, it is not told. */
  tell(message: Extract<OperatorMessage, { kind: "revoke" | "decision" | "windows" | "peers" }>): void {
    if (message.kind === "peers" && !this.#takesPeers) return;
    this.#send(message);
  }

  /** Says why and ends the stream. */
  refuse(code: RefusalCode, message: string): void {
    this.#send({ kind: "refused", code, message });
    this.#connection.finish();
  }

  /** Looks at the pod again; a stream whose pod is no gateway any more, or whose token has ended, is over. */
  async recheck(): Promise<void> {
    const gateway = this.#gateway;
    if (gateway === undefined || this.#connection.isClosed) return;
    try {
      const found = await this.#host.options.authenticator.check(gateway.pod, gateway.expiresAt);
      if (found.kind === "refused") {
        const hasEnded = found.code === "unauthenticated";
        this.refuse(hasEnded ? "expired" : found.code, found.message);
      } else if (found.resource !== gateway.resource)
        this.refuse("notAGateway", "the pod is another resource's");
    } catch (error) {
      // The API server cannot be asked: what was proved a moment ago stands until it can.
      this.#host.options.log.warn(
        { resource: gateway.resource, err: error },
        "a gateway could not be checked again",
      );
    }
  }

  async #prove(token: string): Promise<Gateway | undefined> {
    const found = await this.#host.authenticate(token);
    if (found === "busy") {
      this.refuse("busy", "too many gateways at once");
      return undefined;
    }
    if (found.kind === "refused") {
      this.#host.options.log.warn({ reason: found.message }, "a control stream was refused");
      this.refuse(found.code, found.message);
      return undefined;
    }
    if (!this.#host.joined(this, found)) {
      this.refuse("busy", "the pod has too many streams");
      return undefined;
    }
    this.#gateway = found;
    this.#connection.frameBytesMax = controlLimits.gatewayFrameBytesMax;
    return found;
  }

  /** Sends the way from what was sent to what is; a slow reader gets the latest only, however much changed. */
  async #push(): Promise<void> {
    const gateway = this.#gateway;
    if (this.#isPushing || gateway === undefined) return;
    this.#isPushing = true;
    try {
      for (;;) {
        while (this.#connection.queuedBytes > unreadBytesMax) await this.#connection.drained();
        if (this.#connection.isClosed) return;
        const { bundles, log } = this.#host.options;
        const next = bundles.get(gateway.resource);
        if (next === undefined || next.documents === this.#sent?.documents) return;
        const { frame, bytes } = bundles.encoded(gateway.resource, this.#sent, next);
        if (bytes > controlLimits.bundleBytesMax) {
          log.error({ resource: gateway.resource, bytes }, "a bundle is too large to be delivered");
          this.refuse("tooLarge", "the policies of this resource are too large");
          return;
        }
        this.#sent = next;
        this.#connection.sendEncoded(frame);
      }
    } finally {
      this.#isPushing = false;
    }
  }

  /** Only what this replica knows to be current may keep a gateway from fearing that it is cut off. */
  #sayCurrent(): void {
    const { bundles, isCurrent } = this.#host.options;
    const resource = this.#gateway?.resource;
    const bundle = resource === undefined ? undefined : bundles.get(resource);
    if (bundle === undefined || bundle.documents !== this.#sent?.documents) return;
    if (isCurrent !== undefined && !isCurrent()) return;
    this.#send({ kind: "current", digest: digestOf(bundle.documents) });
  }

  async #receive(message: GatewayMessage): Promise<void> {
    const gateway = this.#gateway;
    if (gateway === undefined) return;
    const { options } = this.#host;
    const { resource } = gateway;
    switch (message.kind) {
      case "hello":
        throw new MessageError("a second hello");
      case "inForce":
        this.#inForce = message;
        options.events?.changed?.(resource);
        break;
      case "resend":
        this.#sent = undefined;
        await this.#push();
        break;
      case "sessions":
        this.#takesNotes ||= message.sessions.some((session) => session.noted !== undefined);
        this.#host.intake(resource).take(message.sessions);
        break;
      case "problems":
        this.#problems = message.problems;
        options.events?.changed?.(resource);
        break;
      case "sign":
        await this.#sign(gateway, message);
        break;
      case "ask":
        await this.#turn(resource);
        // Without an approval service nothing is approved.
        options.events?.asked?.(resource, message.ask, this);
        break;
      case "withdraw":
        await this.#turn(resource);
        options.events?.withdrawn?.(resource, message.id);
        break;
      case "used":
        await this.#turn(resource);
        options.events?.used?.(resource, message.id);
        break;
      default:
        message satisfies never;
    }
  }

  /** A gateway that has more to say than is worth so many calls is read no faster: the rest waits with it. */
  async #turn(resource: string): Promise<void> {
    const calls = this.#host.calls(resource);
    while (!calls.take() && !this.#connection.isClosed) await passed(turnMs);
  }

  /** The key is the gateway's; every name in the certificate is ours. */
  async #sign(gateway: Gateway, message: Extract<GatewayMessage, { kind: "sign" }>): Promise<void> {
    const { id, purpose, publicKey, proof } = message;
    const failed = (failure: string) => this.#send({ kind: "signed", id, failure });
    const now = performance.now();
    this.#signatures = this.#signatures.filter((at) => now - at < 60_000);
    if (this.#signatures.push(now) > signaturesPerMinute)
      return failed("too many certificates were asked for");
    const { options } = this.#host;
    try {
      const key = createPublicKey(publicKey);
      const digest = key.asymmetricKeyType === "ed25519" ? null : "sha256";
      const signed = signingProof(gateway.pod.uid, purpose, publicKey);
      if (!verify(digest, signed, key, Buffer.from(proof, "base64"))) return failed("the key was not proved");
      if (options.signCertificate === undefined) return failed("no authority signs certificates here");
      const { resource, pod } = gateway;
      const made = await options.signCertificate({ purpose, publicKey, resource, podUid: pod.uid });
      this.#send({ kind: "signed", id, ...made });
    } catch (error) {
      options.log.warn({ resource: gateway.resource, err: error }, "a certificate could not be signed");
      failed("the certificate could not be signed");
    }
  }

  #send(message: OperatorMessage): void {
    this.#connection.send(message);
  }
}
