/** The nouns of approvals: what is asked, who decides, and what becomes of it. */
import type { ApprovalTerms, SubjectKind } from "@sallyport/policy";

/** One person or program under all names that identity providers give them. */
export interface Named {
  readonly user: string;
  readonly kind: SubjectKind;
  /** Null: their provider maps names, and gives none for them. */
  readonly kubernetesUsername?: string | null;
  readonly onBehalfOf?: string;
  readonly isServiceAccount: boolean;
}

/** Who may decide: everybody of `group`, about the rules of `policy` or about all where it names none. */
export interface ApproverRule {
  readonly policy?: string;
  readonly group: string;
}

/** One thing that approvers must know of a command and that its text does not say. */
export interface HoldContext {
  /** One word or two. */
  readonly label: string;
  /** One line. */
  readonly text: string;
}

/** What a gateway asks for a command that it holds. */
export interface HoldRequest {
  /** `namespace/name`. */
  readonly resource: string;
  readonly sessionId: string;
  readonly requester: Named;
  /** In its recorded form: what is masked or secret is not in it. */
  readonly command: string;
  /** Bound parameters, in their recorded form. */
  readonly parameters?: readonly string[];
  readonly context?: readonly HoldContext[];
  readonly digest: string;
  readonly reason?: string;
  /** True where the transaction around it holds locks: the request ends sooner. */
  readonly inTransaction: boolean;
  readonly asks: readonly ApprovalTerms[];
  readonly timeoutMs: number;
}

/** A wish to do for a while what a rule asks approval for. */
export interface AccessRequest {
  readonly resource: string;
  readonly requester: Named;
  readonly reason?: string;
  readonly asks: readonly ApprovalTerms[];
  readonly durationMs: number;
  readonly timeoutMs: number;
}

/** Why a held command will not run, or who said that it may. */
export type HoldOutcome =
  | { readonly kind: "approved"; readonly by: readonly string[] }
  | { readonly kind: "denied"; readonly by: string; readonly comment?: string }
  | { readonly kind: "expired" }
  | { readonly kind: "cancelled"; readonly reason: CancelReason }
  /** The service is not there: nobody can decide. */
  | { readonly kind: "unavailable"; readonly message: string };

/** What ended a request from the asking side. */
export type CancelReason =
  | "clientCancelled"
  | "clientGone"
  | "sessionEnded"
  | "draining"
  | "gatewayEnded"
  /** The policy in force no longer asks this, or now denies. */
  | "void";

/** The phases of a request; the first two are open. */
export type Phase = "Pending" | "Approved" | "Used" | "Denied" | "Expired" | "Cancelled" | "Revoked";

/** One decision of one approver; final. */
export interface Decision {
  readonly approver: string;
  readonly kubernetesUsername?: string | null;
  readonly decision: "Approved" | "Denied";
  readonly comment?: string;
  readonly at: number;
  /** The rules that it counts for, as places in `asks`. */
  readonly countsFor: readonly number[];
}

/** A request with all that has become of it. */
export interface Approval {
  readonly name: string;
  readonly type: "Statement" | "Access";
  readonly resource: string;
  readonly sessionId?: string;
  readonly requester: Named;
  readonly command?: string;
  readonly parameters?: readonly string[];
  readonly context?: readonly HoldContext[];
  readonly digest?: string;
  readonly reason?: string;
  readonly inTransaction: boolean;
  readonly asks: readonly ApprovalTerms[];
  readonly durationMs?: number;
  readonly createdAt: number;
  /** When the request, or the access that it gave, ends. */
  expiresAt: number;
  phase: Phase;
  readonly decisions: Decision[];
  cancelledBy?: CancelReason;
  revocation?: { readonly by: string; readonly reason?: string; readonly at: number };
  usedAt?: number;
}

/** Leave for one subject on one resource, until a time. */
export interface Grant {
  readonly approval: string;
  /** Whom it is for: the identity provider's name, or in a cluster the Kubernetes username. */
  readonly subject: string;
  readonly named?: "user" | "kubernetesUsername";
  /** What asked; absent where that is not known. Providers may give a person and a program that acts for them one name. */
  readonly kind?: SubjectKind;
  /** Also the name that the identity provider must give, where the request was made by a session. */
  readonly onlyUser?: string;
  readonly resource: string;
  readonly ruleText: string;
  readonly until: number;
  /** Who approved it, under all their names: it opens nothing for an agent that acts for one of them. */
  readonly approvedBy?: readonly string[];
}

/** Whose windows are looked for, under the names that windows are given to. */
export type GrantHolder = Pick<Named, "user" | "kind" | "kubernetesUsername" | "onBehalfOf">;

/** A request that is open, as the session that asked sees it. */
export interface Hold {
  readonly name: string;
  readonly howToApprove: string;
  readonly expiresAt: number;
  readonly outcome: Promise<HoldOutcome>;
  /** Ends it; what is held never runs afterwards. */
  cancel(reason: CancelReason): void;
}

/** What a session is told while it lives. */
export interface ApprovalListener {
  /** Twice a second while anything is held or granted: one timer serves all sessions. */
  tick(nowMs: number): void;
  /** An approval was taken back: what runs on it must end. */
  revoked(name: string): void;
}

/** Approvals as the guard sees them: whoever keeps them, an approval is acted on by the gateway that asked for it. */
export interface ApprovalService {
  hold(request: HoldRequest): Hold;
  /** The rules that a window satisfies now, by their text, with the approvals that they come from. */
  granted(holder: GrantHolder, resource: string): ReadonlyMap<string, string> | undefined;
  /** What was approved once has run, or has failed. */
  used(name: string): void;
  listen(listener: ApprovalListener): () => void;
}

/** Longest command that can be held, in its recorded form. */
export const heldCommandBytesMax = 32 * 1024;
