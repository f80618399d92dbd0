/** The way of every request through the guard: judged, recorded, held where a rule wants approval, permitted. */
import type { Command, Verdict } from "@sallyport/policy";
import { type Holdable, type HoldNotice, type Permit, type Refusal, refusal } from "../../guard/index.ts";
import { GatewayError } from "../../wire/gateway-error.ts";
import type { ProtocolHost } from "../protocol.ts";
import { correlationId, type OpenSession, policyHasChanged } from "./connection.ts";

/** What became of a request: it may go on, or what its client is told. */
export type Judged =
  | { readonly kind: "permit"; readonly permit: Permit }
  | { readonly kind: "refused"; readonly refusal: Refusal; readonly id: string };

/** A request with what was looked up for it. */
export interface Looked {
  readonly command: Command;
  /** What it is about, as it was found: an approval is for that, and for nothing that takes its place. */
  readonly about: string;
  /** Why nobody can be asked about it. */
  readonly unfit?: string | undefined;
}

/** How a request is judged. */
export interface Asked {
  readonly session: OpenSession;
  readonly host: ProtocolHost;
  readonly command: Command;
  /** Exactly what goes to the server: what an approval is bound to. */
  readonly bytes: readonly Uint8Array[];
  /** The same request with what is looked up as it is now: what is held is judged by that, before and after. */
  readonly again: () => Promise<Looked>;
  /** What the text does not say of what it is about, for the approvers; asked for once it was looked up. */
  readonly explained?: () => string;
  /** A digest of what the text does not show, for recordings. */
  readonly parameters?: readonly string[];
  /** Tells the client that it waits. */
  readonly tell?: (notice: HoldNotice) => void;
  /** Aborted when the client is gone: what is held then never runs. */
  readonly closed: AbortSignal;
  /** A denial that the same client was just given over another protocol; see `denials.ts`. */
  readonly known?: (refusal: { readonly message: string }) => Promise<string | undefined>;
  /** What a refusal is named; by chance where absent. */
  readonly id?: string | undefined;
}

/** Judges a request and waits for whatever it must wait for. */
export async function ask(asked: Asked): Promise<Judged> {
  const { session, host, command } = asked;
  const { guard } = session.admitted;
  // Its body, or what was looked up, may have come after the end of its session.
  if (session.isOver) throw new GatewayError("sessionExpired");
  const verdict = guard.decide(command);
  if (verdict.action === "Deny" && !guard.isObserving) {
    const id = await asked.known?.(verdict);
    if (id !== undefined) {
      const { message, hint } = verdict;
      const refusal: Refusal = {
        kind: "refusal",
        code: "denied",
        message,
        ...(hint === undefined ? {} : { hint }),
      };
      return { kind: "refused", refusal, id };
    }
  }
  const holdable = holdableOf(asked);
  const request = async (found: Verdict) => {
    const record = {
      text: command.text,
      verdict: found,
      at: host.clock.nowMs(),
      ...(asked.parameters === undefined ? {} : { parameters: asked.parameters }),
    };
    return guard.request(record, mustBeStored(command), holdable);
  };
  const isHeld = verdict.action === "RequireApproval" && !guard.isObserving;
  const judged = isHeld ? await held(asked, holdable, request) : await request(verdict);
  const outcome = judged.kind === "permit" ? stillPermitted(asked, judged) : judged;
  if (outcome.kind === "permit") return { kind: "permit", permit: outcome };
  const id = asked.id ?? correlationId();
  guard.note("refused", { id, code: outcome.code, request: command.text.slice(0, 200) });
  return { kind: "refused", refusal: outcome, id };
}

/** While a request was written down, policy may have come to deny it, or its session to its end. */
function stillPermitted({ session, command }: Asked, permit: Permit): Permit | Refusal {
  const { guard } = session.admitted;
  const isDenied = !session.isOver && !mayGoOn(session, command);
  if (!session.isOver && !isDenied) return permit;
  guard.response(permit.number, { tag: "not run", rows: 0, bytes: 0, ms: 0 });
  if (!isDenied) throw new GatewayError("sessionExpired");
  return refusal("denied", policyHasChanged);
}

/** Whether policy as it is now still lets go on what it let begin; what it would only ask about has been asked about. */
export function mayGoOn({ admitted: { guard } }: OpenSession, command: Command): boolean {
  return guard.isObserving || guard.decide(command).action !== "Deny";
}

/** Waits until a person may be asked, and for the answer. */
async function held(
  { session, closed }: Asked,
  holdable: LookedAgain,
  request: (found: Verdict) => Promise<Permit | Refusal>,
): Promise<Permit | Refusal> {
  const { guard } = session.admitted;
  const onClosed = () => void guard.cancelHold("clientGone", holdable);
  closed.addEventListener("abort", onClosed, { once: true });
  try {
    // While it waited for those before, policy and what was looked up may have changed.
    const turn = session.holds.take(async () => request(await holdable.look()));
    return await (turn ??
      refusal("approvalNeeded", "too many requests of this connection wait for approval"));
  } finally {
    closed.removeEventListener("abort", onClosed);
  }
}

/**
 * Clients of an API open a connection for each command: nothing comes after it that could be refused for a record that
 * was lost. So what changes or enters something, and what shows secrets, waits until its record is on the disk.
 */
function mustBeStored(command: Command): boolean {
  return command.parts.some(
    ({ operation, objects }) => operation !== "read" || objects.some(({ isSecret }) => isSecret === true),
  );
}

/** A request that can be held, looked at anew before it is asked about and before it runs. */
type LookedAgain = Holdable & { readonly look: (approved?: ReadonlySet<string>) => Promise<Verdict> };

function holdableOf({ session, command, bytes, tell, again, explained, closed }: Asked): LookedAgain {
  let found = "";
  const look = async (approved?: ReadonlySet<string>) => {
    const now = await again();
    found = now.about;
    const verdict = session.admitted.guard.decide(now.command, undefined, approved);
    return now.unfit === undefined ? verdict : deniedFor(now.unfit, verdict);
  };
  return {
    command,
    look,
    inTransaction: false,
    // Asked for when its turn comes: the client may have left by then.
    get isPointless() {
      return closed.aborted;
    },
    get bytes() {
      return [...bytes, Buffer.from(found)];
    },
    get explained() {
      return explained?.() ?? "";
    },
    tell: tell ?? (() => undefined),
    begun: () => undefined,
    rejudge: look,
  };
}

function deniedFor(message: string, { asks: _, satisfied: __, ...verdict }: Verdict): Verdict {
  return verdict.action === "Deny" ? verdict : { ...verdict, action: "Deny", message };
}
