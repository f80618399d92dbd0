/** One of several processes: a gateway that asks the first process for what all of them know together. */
import type { Logger } from "pino";
import { BoardService, type RemoteBoard } from "../approval/index.ts";
import type { GatewayConfiguration } from "./configuration.ts";
import { Gateway } from "./gateway.ts";
import { Link } from "./link.ts";
import type { FirstAnswers, PartAnswers } from "./processes.ts";
import { denialMs, type SharedState } from "./shared-state.ts";

/** Runs as process `number` until the first process says so, or is gone; resolves with the exit code. */
export async function runPart(
  configuration: GatewayConfiguration,
  log: Logger,
  number: number,
): Promise<number> {
  let gateway: Gateway | undefined;
  let stop: () => void = () => undefined;
  const stopped = new Promise<void>((resolve) => {
    stop = resolve;
  });
  const started = () => {
    if (gateway === undefined) throw new Error("the process has not started");
    return gateway;
  };
  const answers: PartAnswers = {
    metrics: () => started().metrics.registry.getMetricsAsJSON(),
    readiness: () => gateway?.readiness() ?? null,
    receiveCancel: (order) => started().receiveCancel(order),
    giveDenial: (order) => started().giveDenial(order) ?? null,
    announceChain: (chain) => started().announceChain(chain),
    stop: () => stop(),
    holdSettled: ({ name, outcome }) => approvals.settled(name, outcome),
    approvalRevoked: (name) => approvals.revoked(name),
    grantsChanged: (grants) => approvals.grantsChanged(grants),
    identify: ({ token, resource }) => started().identify(token, resource),
  };
  const end = { send: (message: object) => void (process.connected && process.send?.(message)) };
  const first: Link<FirstAnswers> = new Link<FirstAnswers>(end, answers);
  const approvals = new BoardService(boardBehind(first), Date.now);
  process.on("message", (message) => first.receive(message));
  // Without the first process nothing is counted any longer: the sessions are drained as at a SIGTERM.
  process.once("disconnect", () => {
    first.close();
    approvals.close();
    stop();
  });
  // A terminal's Ctrl-C reaches every process of the group; the first one says when to stop.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => undefined);
  const { certificate, isFirst } = await first.ask("hello", null, startMs);
  gateway = new Gateway(configuration, log, {
    process: number,
    shared: sharedBy(first),
    certificate,
    isFirst,
    announceChain: (chain) => first.ask("announceChain", chain),
    publishHead: (head) => first.ask("publishHead", head),
    ...(configuration.approvers.length > 0 && { approvals }),
  });
  await gateway.start();
  first.tell("ready", gateway.listening);
  await stopped;
  await gateway.stop();
  if (process.connected) process.disconnect();
  return 0;
}

/** The first to listen is waited for, and it reads the manifests before. */
const startMs = 60_000;

function boardBehind(first: Link<FirstAnswers>): RemoteBoard {
  return {
    open: async (name, request) => (await first.ask("openHold", { name, request })) ?? undefined,
    cancel: (name, reason) => first.tell("cancelHold", { name, reason }),
    used: (name) => first.tell("usedHold", name),
  };
}

function sharedBy(first: Link<FirstAnswers>): SharedState {
  return {
    enter: (user, max) => first.ask("enter", { user, max: max ?? null }),
    leave: (user) => first.tell("leave", user),
    lockOut: (attempt) => first.ask("lockOut", attempt),
    loginFailed: (attempt) => first.ask("loginFailed", attempt),
    loginSucceeded: (attempt) => first.tell("loginSucceeded", attempt),
    mayCancel: (address) => first.ask("mayCancel", address),
    cancelMissed: (address) => first.tell("cancelMissed", address),
    forwardCancel: (order) => first.ask("forwardCancel", order),
    takeDenial: async (order) => (await first.ask("takeDenial", order, denialMs)) ?? undefined,
  };
}
