import { type ApprovalAsk, type ApprovedWindow, oneLine, ruleHashOf } from "@sallyport/control";
import { policyName } from "@sallyport/policy";
import {
  BoardService,
  type HoldOutcome,
  type HoldRequest,
  heldCommandBytesMax,
  type RemoteBoard,
} from "../approval/index.ts";

/** The part of the control stream that approvals go over. */
export interface ApprovalStream {
  ask(ask: ApprovalAsk): void;
  withdraw(id: string): void;
  used(id: string): void;
}

/** Approvals of a gateway in a cluster: the operator makes an object of each, and says what people decided. */
export class ClusterApprovals {
  readonly service: BoardService;
  readonly #stream: ApprovalStream;
  /** What is asked and open: asked again when the stream comes back. */
  readonly #open = new Map<string, { readonly ask: ApprovalAsk; readonly endsAt: number }>();
  /** `namespace/name` of the one resource that this gateway serves. */
  readonly #resource: string;
  /** When the operator was last connected; what it has opened counts for a moment longer. */
  #heardAt = 0;
  #hasWindows = false;

  constructor(stream: ApprovalStream, resource: string) {
    this.#stream = stream;
    this.#resource = resource;
    this.service = new BoardService(
      this.#board(),
      Date.now,
      () => this.#expire(),
      (name, { resource: asked, asks }) => howToApprove(name, asked, asks),
    );
  }

  /** Every window that is open now, by the operator's word; what runs on another one ends. */
  opened(windows: readonly ApprovedWindow[]): void {
    this.#heardAt = performance.now();
    this.#hasWindows = windows.length > 0;
    this.service.grantsChanged(
      windows.map(({ approval, requester, subject, approvedBy, ruleText, until }) => ({
        approval,
        subject: requester,
        named: "kubernetesUsername",
        ...(subject === undefined ? {} : { onlyUser: subject }),
        ...(approvedBy === undefined ? {} : { approvedBy }),
        resource: this.#resource,
        ruleText,
        until,
      })),
    );
  }

  /** Called twice a second: nobody could say that a window was taken back while the operator is away. */
  heard(isConnected: boolean): void {
    const now = performance.now();
    if (isConnected) this.#heardAt = now;
    else if (this.#hasWindows && now - this.#heardAt > windowsAloneMs) this.opened([]);
  }

  /** The stream is there again, perhaps to another replica. */
  reconnected(): void {
    for (const { ask } of this.#open.values()) this.#stream.ask(ask);
  }

  /** What the operator says of a request. */
  decided(id: string, decision: unknown): void {
    const { kind, by, comment, message } = fieldsOf(decision);
    if (kind === "revoked") {
      this.#open.delete(id);
      this.service.revoked(id);
      return;
    }
    if (!this.#open.delete(id)) return;
    const outcome = outcomeOf(kind, by, comment, message);
    this.service.settled(id, outcome);
  }

  /** Where nobody answers, a request ends when its time is over, as the operator would have it. */
  #expire(): boolean {
    const now = Date.now();
    for (const [id, { endsAt }] of [...this.#open]) if (endsAt <= now) this.decided(id, { kind: "expired" });
    return this.#open.size > 0;
  }

  close(): void {
    this.service.close();
  }

  #board(): RemoteBoard {
    return {
      open: async (name, request) => {
        const asked = askOf(name, request);
        if (typeof asked === "string") return asked;
        this.#open.set(name, { ask: asked, endsAt: Date.now() + request.timeoutMs + graceMs });
        this.#stream.ask(asked);
        return undefined;
      },
      cancel: (name) => {
        this.#open.delete(name);
        this.#stream.withdraw(name);
      },
      used: (name) => this.#stream.used(name),
    };
  }
}

/** How long windows outlive the stream: long enough for another replica, too short to run away with. */
const windowsAloneMs = 10_000;

/** What an approver runs; of several policies the patch names all: each approver leaves in what they may approve. */
function howToApprove(name: string, resource: string, asks: HoldRequest["asks"]): string {
  const namespace = resource.slice(0, resource.indexOf("/"));
  const policies = [...new Set(asks.map(policyName))];
  const value = {
    approver: "YOU",
    decision: "Approved",
    ...(policies.length > 1 && { policies }),
  };
  const patch = JSON.stringify([{ op: "add", path: "/spec/decisions/-", value }]);
  return `kubectl -n ${namespace} patch approval ${name} --type=json -p '${patch}'`;
}

/** The operator's own word for the end comes first. */
const graceMs = 2_000;

function askOf(name: string, request: HoldRequest): ApprovalAsk | string {
  const {
    requester,
    command,
    parameters = [],
    context = [],
    digest,
    reason,
    asks,
    timeoutMs,
    sessionId,
  } = request;
  const { kubernetesUsername, onBehalfOf, user, kind } = requester;
  if (typeof kubernetesUsername !== "string")
    return "your identity provider does not say who you are in the cluster (ApproverIdentityUnknown)";
  // A parameter's own lines would read as the command's.
  const notes = parameters.map((value, index) => `-- $${index + 1}: ${value.replaceAll("\n", "\\n")}`);
  for (const { label, text } of context) notes.push(`-- ${label}: ${text}`);
  if (request.inTransaction) notes.push("-- in an open transaction: it keeps its locks while this waits");
  for (const terms of asks) {
    const minutes = Math.ceil((terms.windowMs ?? 0) / 60_000);
    if (terms.grant === "Window")
      notes.push(
        `-- approved, it lets more through by ${policyName(terms)}/${terms.rule}, for ${minutes} min`,
      );
  }
  const shown = visible([command, ...notes].join("\n"));
  if (Buffer.byteLength(shown) > heldCommandBytesMax) return "it is too long to be shown whole";
  return {
    id: name,
    session: sessionId,
    request: {
      requester: kubernetesUsername,
      ...(onBehalfOf === undefined || onBehalfOf === kubernetesUsername ? {} : { onBehalfOf }),
      subject: user,
      subjectKind: kind,
      command: shown,
      digest,
      ...(reason === undefined ? {} : { reason: visible(reason).slice(0, 1024) }),
      lastsMs: timeoutMs,
      policies: asks.map(({ kind: policyKind, policy, rule, ruleText, required }) => ({
        kind: policyKind,
        policy,
        rule,
        ruleHash: ruleHashOf(ruleText),
        required,
      })),
    },
  };
}

/**
 * What steers a terminal or turns the order of letters is written out: kubectl prints some of it as it is, and what an approver
 * reads must be what runs.
 */
function visible(text: string): string {
  return text
    .replaceAll("\r\n", "\n")
    .replaceAll(/[^\n\t\P{Cc}]|[\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, (found) =>
      [...found].map((one) => `\\u{${one.codePointAt(0)?.toString(16) ?? ""}}`).join(""),
    );
}

function outcomeOf(kind: unknown, by: unknown, comment: unknown, message: unknown): HoldOutcome {
  switch (kind) {
    case "approved":
      return { kind, by: Array.isArray(by) ? by.filter((one) => typeof one === "string") : [] };
    case "denied":
      return { kind, by: textOf(by), ...(comment === undefined ? {} : { comment: textOf(comment) }) };
    case "expired":
      return { kind };
    case "cancelled":
      return { kind, reason: "sessionEnded" };
    default:
      return { kind: "unavailable", message: textOf(message) || "the operator cannot ask for it" };
  }
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}

/** People's words, for a client's terminal. */
const textOf = (value: unknown): string => (typeof value === "string" ? oneLine(value.slice(0, 1024)) : "");
