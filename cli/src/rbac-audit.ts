/** Who could go past a gateway of protocol kubernetes by rights of their own: read from RBAC alone, and pure. */

/** A right that admission cannot see being used, or that undoes it. */
export interface DangerousRight {
  readonly right: string;
  /** What it opens, in one line. */
  readonly why: string;
}

/** One way in which one subject has such a right. */
export interface AuditFinding extends DangerousRight {
  /** `User ana`, `Group ops`, `ServiceAccount monitoring/prometheus`. */
  readonly subject: string;
  readonly binding: string;
  readonly role: string;
  /** True for the cluster's own components, and the operator's. */
  readonly isExpected: boolean;
}

/** What `kubectl get -o json` gives of roles and bindings, as far as it is read. */
export interface RbacObject {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly rules?: readonly Rule[] | null;
  readonly roleRef?: { readonly kind: string; readonly name: string };
  readonly subjects?: readonly Subject[] | null;
}

interface Rule {
  readonly apiGroups?: readonly string[];
  readonly resources?: readonly string[];
  readonly verbs?: readonly string[];
}

interface Subject {
  readonly kind: string;
  readonly name: string;
  readonly namespace?: string;
}

interface Check extends DangerousRight {
  readonly groups: readonly string[];
  readonly resources: readonly string[];
  /** Any of them is enough; any verb at all where absent. */
  readonly verbs?: readonly string[];
  /** False where a RoleBinding gives it too. */
  readonly isClusterWide: boolean;
}

const writing = ["create", "update", "patch", "delete", "deletecollection"];
/** The second half of Kubernetes 1.36's constrained impersonation, `impersonate-on:…`, gives nothing without the first. */
const impersonating = [
  "impersonate",
  ...["user-info", "serviceaccount", "arbitrary-node", "associated-node"].map(
    (mode) => `impersonate:${mode}`,
  ),
];

const checks: readonly Check[] = [
  {
    right: "nodes/proxy",
    why: "runs commands in every pod by the kubelet, which asks no admission",
    ...{ groups: [""], resources: ["nodes/proxy"], isClusterWide: true },
  },
  {
    right: "impersonate",
    why: "speaks for others, the gateway's users too",
    ...{
      groups: ["", "authentication.k8s.io"],
      resources: ["users", "groups", "serviceaccounts", "nodes"],
      verbs: impersonating,
      isClusterWide: false,
    },
  },
  {
    right: "impersonate the gateway's mark",
    why: "passes for what came through a gateway",
    groups: ["authentication.k8s.io"],
    resources: ["userextras", "userextras/sallyport.dev/session"],
    ...{ verbs: impersonating, isClusterWide: true },
  },
  {
    right: "serviceaccounts/token",
    why: "becomes any service account, the gateway's too",
    ...{ groups: [""], resources: ["serviceaccounts/token"], verbs: ["create"], isClusterWide: false },
  },
  {
    right: "admission policies",
    why: "takes away what closes exec",
    groups: ["admissionregistration.k8s.io"],
    resources: ["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
    ...{ verbs: writing, isClusterWide: true },
  },
];

/** Lists who has which of these rights, and how; sorted. `gatewayRole` is what the chart binds gateways to. */
export function auditRbac(objects: readonly RbacObject[], gatewayRole: string): readonly AuditFinding[] {
  const roles = new Map(
    objects
      .filter(({ kind }) => kind === "ClusterRole" || kind === "Role")
      .map((role) => [keyOf(role.kind, role.metadata.namespace, role.metadata.name), role]),
  );
  const findings: AuditFinding[] = [];
  for (const binding of objects) {
    const { kind, metadata, roleRef } = binding;
    if (roleRef === undefined || (kind !== "ClusterRoleBinding" && kind !== "RoleBinding")) continue;
    const isCluster = kind === "ClusterRoleBinding";
    const home = roleRef.kind === "Role" ? metadata.namespace : undefined;
    const role = roles.get(keyOf(roleRef.kind, home, roleRef.name));
    const given = checks.filter(
      (check) =>
        (isCluster || !check.isClusterWide) && (role?.rules ?? []).some((rule) => gives(rule, check)),
    );
    const where = isCluster ? metadata.name : `${metadata.namespace}/${metadata.name}`;
    for (const { right, why } of given) {
      for (const subject of binding.subjects ?? []) {
        const named = nameOf(subject, metadata.namespace);
        const isChartsRole = roleRef.kind === "ClusterRole" && roleRef.name === gatewayRole;
        const isGateway = isChartsRole && /^ServiceAccount .*-gateway$/.test(named);
        const isExpected = isOwn(named) || isGateway;
        findings.push({ right, why, subject: named, binding: where, role: roleRef.name, isExpected });
      }
    }
  }
  return findings.sort((a, b) => (sortKey(a) < sortKey(b) ? -1 : 1));
}

function gives({ apiGroups = [], resources = [], verbs = [] }: Rule, check: Check): boolean {
  const hasGroup = meets(apiGroups, check.groups);
  const hasVerb = check.verbs === undefined ? verbs.length > 0 : meets(verbs, check.verbs);
  const hasResource = resources.some(
    (resource) =>
      resource === "*" ||
      check.resources.some((wanted) => {
        const subresource = wanted.includes("/") ? wanted.slice(wanted.indexOf("/")) : undefined;
        return resource === wanted || (subresource !== undefined && resource === `*${subresource}`);
      }),
  );
  return hasGroup && hasVerb && hasResource;
}

const meets = (has: readonly string[], wanted: readonly string[]) =>
  has.includes("*") || wanted.some((verb) => has.includes(verb));

function nameOf({ kind, name, namespace }: Subject, home: string | undefined): string {
  return kind === "ServiceAccount" ? `${kind} ${namespace ?? home ?? "default"}/${name}` : `${kind} ${name}`;
}

/** The control plane's names cannot be had by others; everybody's groups are no component. */
function isOwn(subject: string): boolean {
  if (/^ServiceAccount kube-system\//.test(subject)) return true;
  const [, name = ""] = /^(?:User|Group) (system:.+)$/.exec(subject) ?? [];
  return (
    name !== "" && !/^system:(authenticated|unauthenticated|anonymous|serviceaccounts?(:.*)?)$/.test(name)
  );
}

const keyOf = (kind: string, namespace: string | undefined, name: string) =>
  `${kind}/${namespace ?? ""}/${name}`;
const sortKey = ({ right, subject, binding }: AuditFinding) => `${right}\0${subject}\0${binding}`;
