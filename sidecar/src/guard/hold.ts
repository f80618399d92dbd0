import { createHmac } from "node:crypto";
import { type ApprovalTerms, type Command, type Identity, policyName, type Verdict } from "@sallyport/policy";
import {
  type CancelReason,
  type Hold,
  type HoldContext,
  type HoldRequest,
  heldCommandBytesMax,
  type Named,
} from "../approval/index.ts";
import type { CommandRecord } from "../recording/model.ts";
import { type Refusal, refusal } from "./refusal.ts";

/** A command that can be held: what the protocol gives so that its client learns of it and its bytes stay the same. */
export interface Holdable {
  readonly command: Command;
  /** True where locks are held around it. */
  readonly inTransaction: boolean;
  /** True where an error before it makes the server refuse it anyway: then nobody is asked. */
  readonly isPointless: boolean;
  /** Exactly what goes to the server once it may. */
  readonly bytes: readonly Uint8Array[];
  /** What stands behind names in the text, for the approvers: prepared statements that it executes. */
  readonly explained: string;
  /** What the text does not say of what it would do, where it runs; absent: nothing. */
  readonly context?: readonly HoldContext[];
  readonly tell: (notice: HoldNotice) => void;
  readonly begun: () => void;
  /** The verdict on the same bytes under the names and the policy of now. */
  readonly rejudge: (approved: ReadonlySet<string>) => Promise<Verdict>;
}

/** What the client is told while its command is held. */
export interface HoldNotice {
  readonly message: string;
  readonly detail: string;
  readonly hint: string;
}

/** A command under way that an approval lets run. */
export interface Running {
  /** The approval of this very command. */
  readonly approval?: string;
  /** Rules that windows satisfy, by their text, with the approvals of these. */
  readonly windows: ReadonlyMap<string, string>;
}

/** The one place of a session for a command that waits: taken before anything is waited for. */
export interface HoldClaim {
  readonly holdable: Holdable;
  /** The command's number in the recording. */
  number: number;
  /** The approval, once it is asked for. */
  name?: string;
  cancelled: CancelReason | undefined;
  /** True where the approval was taken back before the command ran. */
  isTakenBack: boolean;
}

/** The request that is open now. */
export interface OpenHold {
  readonly hold: Hold;
  readonly command: Command;
  readonly asks: readonly ApprovalTerms[];
  noticedMs: number;
}

/** The digest of a command under a key of its session: an unsalted hash of a short one could be guessed. */
export function digestOf(key: Buffer, bytes: readonly Uint8Array[]): string {
  const hmac = createHmac("sha256", key);
  const length = Buffer.alloc(8);
  for (const piece of bytes) {
    length.writeBigUInt64BE(BigInt(piece.length));
    hmac.update(length).update(piece);
  }
  return `hmac-sha256:${hmac.digest("hex")}`;
}

/** What the approvers read of a command; undefined where that is more than can be shown whole. */
export function shownOf(
  record: CommandRecord,
  { explained, context = [] }: Pick<Holdable, "explained" | "context">,
): Pick<HoldRequest, "command" | "parameters" | "context"> | undefined {
  const command = explained === "" ? record.text : `${record.text}\n${explained}`;
  const parameters = record.parameters?.map((value) =>
    value === null ? "NULL" : typeof value === "string" ? apart(value) : `base64:${value.binary}`,
  );
  const whole = [command, ...(parameters ?? []), ...context.map(({ label, text }) => label + text)];
  const bytes = whole.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  if (bytes > heldCommandBytesMax) return undefined;
  return {
    command,
    ...(parameters === undefined ? {} : { parameters }),
    ...(context.length === 0 ? {} : { context }),
  };
}

/** A text that would read as NULL, as bytes or as a quoted text stands in quotes. */
const apart = (value: string) => (/^(?:NULL$|base64:|')/.test(value) ? `'${value}'` : value);

/** The requester as approvals know it. */
export function requesterOf(identity: Identity): Named {
  const { user, kind, kubernetesUsername, onBehalfOf, serviceAccount } = identity;
  return {
    user,
    kind,
    ...(kubernetesUsername === undefined ? {} : { kubernetesUsername }),
    ...(onBehalfOf === undefined ? {} : { onBehalfOf }),
    isServiceAccount: serviceAccount !== undefined,
  };
}

/** The notice for a client whose command waits. */
export function noticeOf(open: OpenHold, message: string, inTransaction: boolean, nowMs: number): HoldNotice {
  const { hold, asks } = open;
  const rules = asks.map(({ policy, rule, required }) => `${policy}/${rule} (${required})`).join(", ");
  const locks = inTransaction ? " The transaction keeps its locks meanwhile." : "";
  return {
    message: `held for approval ${hold.name}: ${message}`,
    detail: `Asked by ${rules}. Time left: ${leftText(hold.expiresAt - nowMs)}.${locks}`,
    hint: `An approver runs: ${hold.howToApprove}`,
  };
}

function leftText(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${seconds % 60}s`;
}

/** How leave for a while is asked for before it is needed; undefined where a rule approves each command by itself. */
export function howToRequest(resource: string, asks: readonly ApprovalTerms[]): string | undefined {
  const [first] = asks;
  if (first === undefined || asks.some(({ grant }) => grant !== "Window")) return undefined;
  const lines = asks.map(
    (terms) => `sallyport request ${resource} --rule ${policyName(terms)}/${terms.rule}`,
  );
  return `Ask for it first: ${lines.join("; ")}`;
}

/** What the client is told when its command was not approved. */
export function refusalAfter(
  name: string,
  outcome: Exclude<Awaited<Hold["outcome"]>, { kind: "approved" }>,
  howToAsk?: string,
): Refusal {
  switch (outcome.kind) {
    case "denied": {
      const comment = outcome.comment === undefined ? "" : `: ${outcome.comment}`;
      return refusal("denied", `approval ${name} was denied by ${outcome.by}${comment}`, howToAsk);
    }
    case "expired":
      return refusal(
        "approvalNeeded",
        `approval ${name} expired: nobody decided in time`,
        howToAsk ?? "Run it again.",
      );
    case "unavailable":
      return refusal("approvalNeeded", `this needs approval, and ${outcome.message}`);
    case "cancelled":
      return cancelled(name, outcome.reason);
  }
}

function cancelled(name: string, reason: CancelReason): Refusal {
  switch (reason) {
    case "clientCancelled":
    case "clientGone":
    case "sessionEnded":
      return refusal("holdCancelled", "canceling statement due to user request");
    case "draining":
    case "gatewayEnded":
      return refusal("draining", `approval ${name} was cancelled: the gateway is shutting down`);
    case "void":
      return voidRefusal(name, "the access policy has changed since it was asked");
  }
}

/** What was approved is not what would run now. */
export function voidRefusal(name: string, why: string): Refusal {
  return refusal("denied", `approval ${name} is void: ${why}`, "Run it again.");
}
