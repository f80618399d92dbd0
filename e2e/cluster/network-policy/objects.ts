/** The parts of Kubernetes objects that decide who may speak to whom. */

/** A label selector; one that is there and empty selects everything. */
export interface Selector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: string;
    readonly values?: readonly string[];
  }[];
}

/** A pod, or a namespace, or a policy, as the API server lists them. */
interface Named {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
}

/** A namespace. */
export type Namespace = Named;

/** A pod: only those with an address of their own take part. */
export interface Pod extends Named {
  readonly spec: {
    readonly hostNetwork?: boolean;
    readonly containers?: readonly Container[];
    readonly initContainers?: readonly Container[];
  };
  readonly status?: { readonly podIP?: string; readonly phase?: string };
}

interface Container {
  readonly ports?: readonly {
    readonly name?: string;
    readonly containerPort: number;
    readonly protocol?: string;
  }[];
}

/** One side of a rule. */
export interface Peer {
  readonly podSelector?: Selector;
  readonly namespaceSelector?: Selector;
  readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] };
}

/** A port of a rule: a number, a range, or a name that pods give to a port. */
export interface PolicyPort {
  readonly protocol?: string;
  readonly port?: number | string;
  readonly endPort?: number;
}

/** networking.k8s.io/v1 NetworkPolicy. */
export interface NetworkPolicy extends Named {
  readonly spec: {
    readonly podSelector?: Selector;
    readonly policyTypes?: readonly string[];
    readonly ingress?: readonly { readonly from?: readonly Peer[]; readonly ports?: readonly PolicyPort[] }[];
    readonly egress?: readonly { readonly to?: readonly Peer[]; readonly ports?: readonly PolicyPort[] }[];
  };
}

/** Everything that the rules follow from. */
export interface ClusterState {
  readonly namespaces: readonly Namespace[];
  readonly pods: readonly Pod[];
  readonly policies: readonly NetworkPolicy[];
}

/** True where a selector selects these labels. */
export function selects(selector: Selector, labels: Readonly<Record<string, string>> = {}): boolean {
  const same = Object.entries(selector.matchLabels ?? {}).every(([key, value]) => labels[key] === value);
  return same && (selector.matchExpressions ?? []).every((expression) => holds(expression, labels));
}

function holds(
  expression: NonNullable<Selector["matchExpressions"]>[number],
  labels: Readonly<Record<string, string>>,
): boolean {
  const value = labels[expression.key];
  const values = expression.values ?? [];
  switch (expression.operator) {
    case "In":
      return value !== undefined && values.includes(value);
    case "NotIn":
      return value === undefined || !values.includes(value);
    case "Exists":
      return value !== undefined;
    case "DoesNotExist":
      return value === undefined;
    default:
      // The API server lets no other pass; selecting nothing would open what a policy closes.
      throw new Error(`unknown operator ${expression.operator}`);
  }
}
