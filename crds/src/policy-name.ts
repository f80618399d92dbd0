/** A policy by one name: `prod`, and `cluster/floor` for a ClusterAccessPolicy, which may be called as one of a namespace is. */
export function policyName({
  kind = "AccessPolicy",
  policy,
}: {
  readonly kind?: "AccessPolicy" | "ClusterAccessPolicy";
  readonly policy: string;
}): string {
  return kind === "AccessPolicy" ? policy : `cluster/${policy}`;
}
