/** The right to approve what a policy asks for, as access reviews name it. */
export function approveRight(
  kind: "AccessPolicy" | "ClusterAccessPolicy",
  policy: string,
  namespace: string | undefined,
) {
  const isClusterWide = kind === "ClusterAccessPolicy";
  return {
    group: "sallyport.dev",
    resource: isClusterWide ? "clusteraccesspolicies" : "accesspolicies",
    verb: "approve",
    name: policy,
    ...(isClusterWide ? {} : { namespace }),
  };
}
