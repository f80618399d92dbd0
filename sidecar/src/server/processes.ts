/**
 * A gateway of several processes: the first forks the others, keeps what they must know together, and answers for all of
 * them. It serves no client itself. Each of the others listens on the same ports (SO_REUSEPORT), records a chain of its
 * own, and follows the manifests by itself.
 */
import { type ChildProcess, fork } from "node:child_process";
import { mkdir, readFile } from "node:fs/promises";
import type { Server } from "node:http";
import { join } from "node:path";
import { serveAdmin } from "@sallyport/control";
import type { Logger } from "pino";
import { AggregatorRegistry, type MetricObjectWithValues, type MetricValue } from "prom-client";
import type { CancelReason, Grant, HoldOutcome, HoldRequest } from "../approval/index.ts";
import type { PublishedHead } from "../recording/model.ts";
import { loadSigningKey } from "../recording/signing-key.ts";
import { NewestWhole, replaceWhole } from "../recording/whole-file.ts";
import { ApprovalHost } from "./approval-host.ts";
import type { Identified } from "./approval-server.ts";
import type { GatewayConfiguration } from "./configuration.ts";
import type { Listening } from "./gateway.ts";
import { Link } from "./link.ts";
import { type Peers, peersOf } from "./peers.ts";
import { issueServingCertificate, type ServingCertificate } from "./serving-certificate.ts";
import {
  type CancelOrder,
  type DenialOrder,
  denialMs,
  LocalState,
  type LoginAttempt,
} from "./shared-state.ts";

/** What the first process answers the others. */
export type FirstAnswers = {
  readonly hello: (none: null) => Promise<{
    readonly certificate: ServingCertificate;
    readonly isFirst: boolean;
  }>;
  readonly ready: (listening: readonly Listening[]) => void;
  readonly enter: (request: { readonly user: string; readonly max: number | null }) => Promise<boolean>;
  readonly leave: (user: string) => void;
  readonly lockOut: (attempt: LoginAttempt) => ReturnType<LocalState["lockOut"]>;
  readonly loginFailed: (attempt: LoginAttempt) => ReturnType<LocalState["loginFailed"]>;
  readonly loginSucceeded: (attempt: LoginAttempt) => void;
  readonly mayCancel: (address: string) => Promise<boolean>;
  readonly cancelMissed: (address: string) => void;
  readonly forwardCancel: (order: CancelOrder) => Promise<boolean>;
  readonly takeDenial: (order: DenialOrder) => Promise<string | null>;
  readonly announceChain: (chain: number) => Promise<void>;
  readonly publishHead: (head: PublishedHead) => Promise<void>;
  readonly openHold: (hold: {
    readonly name: string;
    readonly request: HoldRequest;
  }) => Promise<string | null>;
  readonly cancelHold: (hold: { readonly name: string; readonly reason: CancelReason }) => void;
  readonly usedHold: (name: string) => void;
};

/** What each of the others answers the first. */
export type PartAnswers = {
  readonly metrics: (none: null) => Promise<MetricObjectWithValues<MetricValue<string>>[]>;
  readonly readiness: (none: null) => string | null;
  readonly receiveCancel: (order: CancelOrder) => Promise<boolean>;
  readonly giveDenial: (order: DenialOrder) => string | null;
  readonly announceChain: (chain: number) => Promise<void>;
  readonly stop: (none: null) => void;
  readonly holdSettled: (hold: { readonly name: string; readonly outcome: HoldOutcome }) => void;
  readonly approvalRevoked: (name: string) => void;
  readonly grantsChanged: (grants: readonly Grant[]) => void;
  readonly identify: (who: { readonly token: string; readonly resource: string }) => Promise<Identified>;
};

/** Tells a forked process which one it is. */
export const processVariable = "SALLYPORT_PROCESS";

interface Part {
  readonly child: ChildProcess;
  readonly link: Link<PartAnswers>;
  /** Sessions that count for it, by user. */
  readonly sessions: Map<string, number>;
  isReady: boolean;
}

const restartMs = 500;
const restartMsMax = 30_000;
const killMs = 15_000;

/** The first process of a gateway of several. */
export class Processes {
  private readonly configuration: GatewayConfiguration;
  private readonly log: Logger;
  private readonly parts = new Map<number, Part>();
  private readonly state: LocalState;
  private readonly heads = new Map<number, PublishedHead>();
  private readonly headFile: NewestWhole;
  private readonly restarts = new Map<number, number>();
  private readonly timers = new Set<NodeJS.Timeout>();
  private certificate: ServingCertificate | undefined;
  private readonly peers: Peers | undefined;
  private admin: Server | undefined;
  private approvals: ApprovalHost | undefined;
  private notReady: string | undefined = "starting";
  private listening: readonly Listening[] = [];
  private firstReady: Promise<void> = Promise.resolve();
  private hasStarted = false;
  private isStopping = false;

  constructor(configuration: GatewayConfiguration, log: Logger) {
    this.configuration = configuration;
    this.log = log;
    this.peers = peersOf(configuration, (order) => this.forwardCancel(order));
    this.state = new LocalState(configuration, () => performance.now());
    this.headFile = new NewestWhole(this.headPath, 0o644);
  }

  /** Starts all processes; all load at once, and one opens its listeners ahead of the others. */
  async start(): Promise<void> {
    const { state, listen, tlsNames, processes, adminHost, adminPort } = this.configuration;
    await mkdir(state, { recursive: true, mode: 0o700 });
    await loadSigningKey(join(state, "recording.key.pem"), { create: true });
    this.certificate = await issueServingCertificate(state, [listen, ...tlsNames]);
    await this.readHeads();
    if (this.configuration.approvers.length > 0)
      this.approvals = await ApprovalHost.open(this.configuration, (token, resource) =>
        this.identify(token, resource),
      );
    this.firstReady = this.fork(0);
    const others = Array.from({ length: processes - 1 }, (_, index) => this.fork(index + 1));
    await Promise.all([this.firstReady, ...others]);
    await this.peers?.listenAsConfigured(this.configuration);
    this.admin = await serveAdmin({
      host: adminHost,
      port: adminPort,
      metrics: () => this.metrics(),
      notReady: () => this.readiness(),
    });
    this.hasStarted = true;
    const address = this.admin.address();
    const admin = typeof address === "object" && address !== null ? address.port : adminPort;
    const described = {
      listeners: this.listening,
      admin,
      ca: this.certificate.caPath,
      pid: process.pid,
      processes: [...this.parts.values()].map(({ child }) => child.pid),
    };
    await replaceWhole(join(state, "listening.json"), JSON.stringify(described), 0o644);
    // Whoever waits for this finds the file, too.
    if (!this.isStopping) this.notReady = undefined;
    this.log.info({ listeners: this.listening, admin, processes }, "the gateway is ready");
  }

  /** Has all processes drain and end; those that do not are killed behind the deadline. */
  async stop(): Promise<void> {
    if (this.isStopping) return;
    this.isStopping = true;
    this.notReady = "draining";
    for (const timer of this.timers) clearTimeout(timer);
    const ended = [...this.parts.values()].map(({ child, link }) => {
      const deadline = setTimeout(() => child.kill("SIGKILL"), this.configuration.drainMs + killMs);
      link.tell("stop", null);
      return whenEnded(child).finally(() => clearTimeout(deadline));
    });
    await Promise.all(ended);
    await this.approvals?.close();
    this.peers?.close();
    this.admin?.close();
    this.admin?.closeAllConnections();
    this.log.info("the gateway has stopped");
  }

  private fork(number: number): Promise<void> {
    const child = fork(process.argv[1] ?? "", process.argv.slice(2), {
      env: { ...process.env, [processVariable]: String(number) },
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    return new Promise((resolve, reject) => {
      const sessions = new Map<string, number>();
      const end = {
        send: (message: object) => void (child.connected && child.send(message, () => undefined)),
      };
      const holds = new Set<string>();
      const answers = this.answersTo(number, sessions, holds, resolve);
      const link = new Link<PartAnswers>(end, answers);
      const part: Part = { child, link, sessions, isReady: false };
      this.parts.set(number, part);
      const untell = this.approvals?.tell({
        settled: (name, outcome) => {
          if (!holds.has(name)) return;
          if (outcome.kind !== "approved") holds.delete(name);
          link.tell("holdSettled", { name, outcome });
        },
        revoked: (name) => link.tell("approvalRevoked", name),
        grantsChanged: (grants) => link.tell("grantsChanged", grants),
      });
      child.on("message", (message) => link.receive(message));
      child.on("error", () => undefined);
      child.once("exit", (code, signal) => {
        link.close();
        this.parts.delete(number);
        untell?.();
        for (const name of holds) this.approvals?.remote.cancel(name, "gatewayEnded");
        for (const [user, count] of sessions)
          for (let left = count; left > 0; left -= 1) this.state.leave(user);
        reject(new Error(`process ${number} of the gateway could not start`));
        if (this.isStopping || !this.hasStarted) return;
        this.log.error({ process: number, code, signal }, "a process of the gateway has ended");
        this.restart(number, part.isReady);
      });
    });
  }

  private restart(number: number, wasReady: boolean): void {
    // One that does not even start is tried again ever more slowly; one that ran is there again at once.
    const waitMs = wasReady
      ? restartMs
      : Math.min(restartMsMax, 2 * (this.restarts.get(number) ?? restartMs));
    this.restarts.set(number, waitMs);
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      this.fork(number).catch(() => undefined);
    }, waitMs);
    this.timers.add(timer);
  }

  private answersTo(
    number: number,
    sessions: Map<string, number>,
    holds: Set<string>,
    onReady: () => void,
  ): FirstAnswers {
    const { state } = this;
    return {
      hello: async () => {
        // One finds what is wrong before there are many to say so, and its log is there to name the others' recordings.
        if (number !== 0) await this.firstReady;
        if (this.certificate === undefined) throw new Error("there is no certificate yet");
        return { certificate: this.certificate, isFirst: number === 0 && !this.hasStarted };
      },
      ready: (listening) => {
        const part = this.parts.get(number);
        if (part !== undefined) part.isReady = true;
        if (number === 0) this.listening = listening;
        onReady();
      },
      enter: async ({ user, max }) => {
        const hasEntered = await state.enter(user, max ?? undefined);
        if (hasEntered) sessions.set(user, (sessions.get(user) ?? 0) + 1);
        return hasEntered;
      },
      leave: (user) => {
        const count = sessions.get(user) ?? 0;
        if (count === 0) return;
        if (count === 1) sessions.delete(user);
        else sessions.set(user, count - 1);
        state.leave(user);
      },
      lockOut: (attempt) => state.lockOut(attempt),
      loginFailed: (attempt) => state.loginFailed(attempt),
      loginSucceeded: (attempt) => state.loginSucceeded(attempt),
      mayCancel: (address) => state.mayCancel(address),
      cancelMissed: (address) => state.cancelMissed(address),
      forwardCancel: (order) => this.forwardCancel(order),
      takeDenial: (order) => this.takeDenial(number, order),
      openHold: async ({ name, request }) => {
        if (this.approvals === undefined) return "nobody can be asked";
        // Noted before: it may be settled before the answer is there.
        holds.add(name);
        return (await this.approvals.remote.open(name, request)) ?? null;
      },
      cancelHold: ({ name, reason }) => {
        if (holds.delete(name)) this.approvals?.remote.cancel(name, reason);
      },
      usedHold: (name) => {
        if (!holds.delete(name)) return;
        this.approvals?.remote.used(name);
      },
      announceChain: async (chain) => {
        const first = this.parts.get(0);
        if (first === undefined || chain === 0) throw new Error("the first recorder is not there");
        await first.link.ask("announceChain", chain);
      },
      publishHead: async (head) => {
        this.heads.set(number, head);
        await this.writeHeads();
      },
    };
  }

  private async forwardCancel(order: CancelOrder): Promise<boolean> {
    if (order.replica !== this.configuration.replica) return this.peers?.send(order) ?? false;
    const part = this.parts.get(order.process);
    return part === undefined ? false : part.link.ask("receiveCancel", order);
  }

  /** Asks all processes but the one that asks; whoever has it gives it away. */
  private async takeDenial(asking: number, order: DenialOrder): Promise<string | null> {
    const others = [...this.parts].filter(([number, { isReady }]) => isReady && number !== asking);
    const asked = others.map(async ([, { link }]) => {
      const id = await link.ask("giveDenial", order, denialMs);
      if (id === null) throw new Error("not given here");
      return id;
    });
    return Promise.any(asked).catch(() => null);
  }

  /** Tokens are checked where the manifests are followed: in a process that serves. */
  private async identify(token: string, resource: string): Promise<Identified> {
    const part = [...this.parts.values()].find(({ isReady }) => isReady);
    const failed = { kind: "refused", message: "the token cannot be checked now" } as const;
    return part?.link.ask("identify", { token, resource }).catch(() => failed) ?? failed;
  }

  private readiness(): string | undefined | Promise<string | undefined> {
    if (this.notReady !== undefined) return this.notReady;
    return this.readinessOfParts();
  }

  private async readinessOfParts(): Promise<string | undefined> {
    const ready = [...this.parts].filter(([, { isReady }]) => isReady);
    if (ready.length === 0) return "no process is ready";
    const reasons = await Promise.all(
      ready.map(async ([number, { link }]) => {
        const reason = await link.ask("readiness", null).catch(() => "it does not answer");
        return reason === null ? undefined : `process ${number}: ${reason}`;
      }),
    );
    // The port is shared: a process that refuses sessions takes its part of them.
    return reasons.find((reason) => reason !== undefined);
  }

  private async metrics(): Promise<{ text: string; type: string }> {
    const found = await Promise.all(
      [...this.parts.values()].map(({ link }) => link.ask("metrics", null).catch(() => [])),
    );
    const all = AggregatorRegistry.aggregate(found);
    const up = [
      "# HELP sallyport_processes Processes of the gateway that are ready",
      "# TYPE sallyport_processes gauge",
      `sallyport_processes ${[...this.parts.values()].filter(({ isReady }) => isReady).length}`,
    ];
    return { text: `${await all.metrics()}\n${up.join("\n")}\n`, type: all.contentType };
  }

  /** The heads of processes that do not run now stay as they were. */
  private async readHeads(): Promise<void> {
    try {
      const kept: unknown = JSON.parse(await readFile(this.headPath, "utf8"));
      const { chains } = kept as PublishedHead;
      for (const [chain, head] of Object.entries(chains ?? {})) this.heads.set(Number(chain), head);
    } catch {
      // The first start, or a head that was never written.
    }
  }

  private async writeHeads(): Promise<void> {
    const first = this.heads.get(0);
    if (first === undefined) return;
    const others = [...this.heads].filter(([chain]) => chain !== 0);
    const head = { ...first, chains: Object.fromEntries(others) };
    await this.headFile
      .replace(JSON.stringify(head))
      .catch((error: unknown) =>
        this.log.warn({ err: error }, "the head of the recordings could not be written"),
      );
  }

  private get headPath(): string {
    return join(this.configuration.state, "recording-head.json");
  }
}

function whenEnded(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => child.once("exit", () => resolve()));
}
