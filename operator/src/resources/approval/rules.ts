import { ruleHashOf } from "@sallyport/control";
import type { Approval } from "@sallyport/crds";
import type { ApprovalTerms } from "@sallyport/policy";
import type { PolicyBook } from "../access-policy/policy-book.ts";
import type { OperatorCaches } from "../caches.ts";

/** A rule that an Approval names, as it is in force for its resource. */
export interface RuleInForce {
  readonly terms: ApprovalTerms;
  readonly ruleHash: string;
}

/** What asks for approval on the resource of an Approval now, for each of the rules that it names. */
export function rulesInForce(
  { spec, metadata }: Pick<Approval, "spec" | "metadata">,
  book: Pick<PolicyBook, "forResource">,
  { protectedResources }: Pick<OperatorCaches, "protectedResources">,
): readonly (RuleInForce | undefined)[] {
  const { request } = spec;
  const { namespace } = metadata;
  const ref = { name: request.resource, ...(namespace === undefined ? {} : { namespace }) };
  const resource = protectedResources.get(ref);
  const terms = resource === undefined ? [] : book.forResource(resource).flatMap(({ asks }) => asks);
  return request.policies.map(({ kind = "AccessPolicy", policy, rule }) => {
    const found = terms.find((one) => one.kind === kind && one.policy === policy && one.rule === rule);
    return found && { terms: found, ruleHash: ruleHashOf(found.ruleText) };
  });
}
