import type { ProtectedResource } from "@sallyport/crds";
import { progressConditions, type WantedCondition } from "../../reconcile/index.ts";
import type { GatewayReport, ReportedProblem } from "../gateway-reports.ts";

/** A reason and its explanation, for a condition that is not True. */
export interface Fault {
  readonly reason: string;
  readonly message: string;
}

/** What a resource's conditions are made of. */
export interface ConditionFacts {
  readonly resource: ProtectedResource;
  /** Why the resource cannot be used as it is written; only its author can mend it. */
  readonly fault?: Fault;
  /** Why its objects are not in place. */
  readonly obstacle?: Fault & { readonly isTerminal: boolean };
  readonly gateways: { readonly desired: number; readonly ready: number };
  readonly reports: readonly GatewayReport[];
  readonly bypass: WantedCondition;
}

/** The conditions of a resource, from what was observed; the reasons are those of docs/reference/conditions.md. */
export function conditionsOf(facts: ConditionFacts): readonly WantedCondition[] {
  const own = [accepted(facts), programmed(facts), credentials(facts), recording(facts), facts.bypass];
  // Protection against bypass is told apart: a resource outside the cluster could never be ready otherwise.
  const needed = own.filter(({ type }) => type !== "BypassProtected" && !isOptional(type, facts));
  const failed =
    needed.find(({ status }) => status === "False") ?? needed.find(({ status }) => status !== "True");
  if (failed === undefined) {
    const message = "Clients can connect; every command is decided by policy.";
    return [...own, { type: "Ready", status: "True", reason: "Ready", message }];
  }
  const { reason, message } = failed;
  const isStalled = facts.fault !== undefined || facts.obstacle?.isTerminal === true;
  return [
    ...own,
    { type: "Ready", status: "False", reason, message },
    ...progressConditions({ kind: isStalled ? "stalled" : "reconciling", reason, message }),
  ];
}

/** Problems that concern what the gateway logs in with, or checks the server by. */
const credentialReasons: ReadonlySet<string> = new Set([
  "SecretMissing",
  "SecretInvalid",
  "CaMissing",
  "UpstreamCertificate",
  "UpstreamLoginFailed",
  "UpstreamNotGranted",
  "UpstreamUnreachable",
]);

function accepted({ fault }: ConditionFacts): WantedCondition {
  if (fault !== undefined) return { type: "Accepted", status: "False", ...fault };
  return { type: "Accepted", status: "True", reason: "Accepted", message: "The resource is understood." };
}

function programmed({ fault, obstacle, gateways, reports }: ConditionFacts): WantedCondition {
  const type = "Programmed";
  if (fault !== undefined) {
    return { type, status: "False", reason: "NotAccepted", message: "The resource is not accepted." };
  }
  if (obstacle !== undefined) {
    const { reason, message } = obstacle;
    return { type, status: "False", reason, message };
  }
  const refused = problemOf(reports, (reason) => reason === "PolicyRefused");
  if (refused !== undefined)
    return { type, status: "False", reason: refused.reason, message: refused.message };
  if (gateways.ready === 0) {
    const message = `No gateway of ${gateways.desired} is ready yet.`;
    return { type, status: "False", reason: "Progressing", message };
  }
  const message = `${gateways.ready} of ${gateways.desired} gateways are ready.`;
  return { type, status: "True", reason: "Programmed", message };
}

function credentials({ reports }: ConditionFacts): WantedCondition {
  const type = "CredentialsResolved";
  const problem = problemOf(reports, (reason) => credentialReasons.has(reason));
  if (problem !== undefined)
    return { type, status: "False", reason: problem.reason, message: problem.message };
  if (reports.length === 0) return unheard(type);
  return {
    type,
    status: "True",
    reason: "Resolved",
    message: "The gateways hold every credential that is named.",
  };
}

function recording({ resource, reports }: ConditionFacts): WantedCondition {
  const type = "RecordingReady";
  const { mode } = resource.spec.recording;
  if (mode === "Off")
    return { type, status: "True", reason: "Off", message: "Nothing is recorded, as the resource says." };
  const problem = problemOf(reports, (reason) => reason.startsWith("Record"));
  if (problem !== undefined)
    return { type, status: "False", reason: problem.reason, message: problem.message };
  if (reports.length === 0) return unheard(type);
  return { type, status: "True", reason: "Recording", message: "The recorder takes what the gateways send." };
}

const unheard = (type: string): WantedCondition => ({
  type,
  status: "Unknown",
  reason: "NoGateway",
  message: "No gateway has reported yet.",
});

/** What need not hold for clients to be served. */
function isOptional(type: string, { resource }: ConditionFacts): boolean {
  return type === "RecordingReady" && resource.spec.recording.mode !== "Required";
}

function problemOf(
  reports: readonly GatewayReport[],
  matches: (reason: string) => boolean,
): ReportedProblem | undefined {
  return reports.flatMap(({ problems }) => problems).find(({ reason }) => matches(reason));
}
