import { type Approval, isOwner, isSameName, policyName } from "@sallyport/crds";

/**
 * Whether somebody's decisions count for nothing, whatever admission let in: those of who asked, of whom an agent acts for, and
 * of machines.
 */
export function neverDecides(
  { requester, onBehalfOf }: Approval["spec"]["request"],
  approver: string,
): boolean {
  if (isSameName(approver, requester) || approver.startsWith("system:")) return true;
  return onBehalfOf !== undefined && isOwner(onBehalfOf, approver);
}

/**
 * Whether what is called Approved was approved, by the decisions in it: a status says what its writer likes, and decisions were
 * checked one by one when they were made.
 */
export function isBorneOut({ spec }: Pick<Approval, "spec">): boolean {
  const { request, decisions = [] } = spec;
  if (decisions.some(({ decision }) => decision === "Denied")) return false;
  return request.policies.every((asked) => {
    const approvers = decisions.filter(
      ({ approver, policies }) =>
        !neverDecides(request, approver) && (policies === undefined || policies.includes(policyName(asked))),
    );
    return people(approvers).length >= (asked.required ?? 1);
  });
}

/** Decisions with one a person. */
export function people<T extends { readonly approver: string }>(decisions: readonly T[]): readonly T[] {
  return decisions.filter(
    (one, place) => decisions.findIndex(({ approver }) => isSameName(approver, one.approver)) === place,
  );
}
