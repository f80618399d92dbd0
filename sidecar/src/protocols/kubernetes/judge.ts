/** The way of every request through the guard: judged, recorded, held where a rule wants approval, permitted. */
import type { Command, Verdict } from "@sallyport/policy";
import { type Holdable, type HoldNotice, type Permit, type Refusal, refusal } from "../../guard/index.ts";
import type { ProtocolHost } from "../protocol.ts";
import { correlationId, type OpenSession } from "./connection.ts";

/** What became of a request: it may go on, or what its client is told. */
export type Judged =
  | { readonly kind: "permit"; readonly permit: Permit }
  | { readonly kind: "refused"; readonly refusal: Refusal; readonly id: string };

/** How a request is judged. */
export interface Asked {
  readonly session: OpenSession;
  readonly host: ProtocolHost;
  readonly command: Command;
  /** Exactly what goes to the server: what an approval is bound to. */
  readonly bytes: readonly Uint8Array[];
  /** The same request with what is looked up as it is now: what was held is judged by that. */
  readonly again?: () => Promise<Command>;
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
  const outcome = isHeld ? await held(asked, holdable, verdict, request) : await request(verdict);
  if (outcome.kind === "permit") return { kind: "permit", permit: outcome };
  const id = asked.id ?? correlationId();
  guard.note("refused", { id, code: outcome.code, request: command.text.slice(0, 200) });
  return { kind: "refused", refusal: outcome, id };
}

/** Whether policy as it is now still lets go on what it let begin; what it would only ask about has been asked about. */
export function mayGoOn({ admitted: { guard } }: OpenSession, command: Command): boolean {
  return guard.isObserving || guard.decide(command).action !== "Deny";
}

/** Waits until a person may be asked, and for the answer. */
async function held(
  { session, command, closed, again }: Asked,
  holdable: Holdable,
  verdict: Verdict,
  request: (found: Verdict) => Promise<Permit | Refusal>,
): Promise<Permit | Refusal> {
  const { guard } = session.admitted;
  const onClosed = () => void guard.cancelHold("clientGone", holdable);
  closed.addEventListener("abort", onClosed, { once: true });
  try {
    // While it waited for those before, policy and what was looked up may have changed.
    const turn = session.holds.take(async (hasWaited) =>
      request(hasWaited ? guard.decide((await again?.()) ?? command) : verdict),
    );
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

function holdableOf({ session, command, bytes, tell, again, closed }: Asked): Holdable {
  return {
    command,
    inTransaction: false,
    // Asked for when its turn comes: the client may have left by then.
    get isPointless() {
      return closed.aborted;
    },
    bytes,
    explained: "",
    tell: tell ?? (() => undefined),
    begun: () => undefined,
    rejudge: async (approved) =>
      session.admitted.guard.decide((await again?.()) ?? command, undefined, approved),
  };
}
