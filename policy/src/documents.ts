/**
 * What the compiler reads: the manifests' specs as plain structural types, so that types generated from the CRDs
 * fit in without a conversion. Every document is untrusted here: the compiler checks what the types promise.
 */

/** Standard Kubernetes label selector; an empty one selects everything. */
export interface LabelSelector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: string;
    readonly values?: readonly string[];
  }[];
}

/** One entry of `subjects`: its keys are ANDed, the entries of the list ORed. */
export interface SubjectEntry {
  readonly group?: string;
  readonly user?: string;
  readonly serviceAccount?: { readonly namespace: string; readonly name: string };
  readonly kind?: string;
}

/** What a rule matches: keys are ANDed, entries of a list ORed; an absent key matches everything. */
export interface RuleMatch {
  readonly operations?: readonly string[];
  readonly objects?: readonly string[];
  readonly commands?: readonly string[];
  readonly unbounded?: boolean;
  readonly cel?: string;
}

/** How an approval is asked for. */
export interface ApprovalSpec {
  readonly required?: number;
  readonly timeout?: string;
  readonly grant?: string;
  readonly window?: string;
  readonly reasonRequired?: boolean;
  readonly breakGlass?: { readonly group: string };
}

/** `spec.rules[]` of a policy, as it is written. */
export interface PolicyRule {
  readonly name: string;
  readonly match?: RuleMatch;
  readonly action: string;
  readonly message?: string;
  readonly approval?: ApprovalSpec;
}

/** One masking entry, by tag, column or pattern. */
export interface MaskingSpec {
  readonly tags?: readonly string[];
  readonly columns?: readonly string[];
  readonly patterns?: readonly string[];
  readonly customPatterns?: readonly { readonly name: string; readonly regex: string }[];
  readonly with?: string;
  readonly format?: string;
  readonly liftable?: boolean;
}

/** Limits as a manifest writes them; durations are Go-like (`90s`, `1h30m`). */
export interface LimitsSpec {
  readonly rows?: number;
  readonly affectedRows?: number;
  readonly sessionDuration?: string;
  readonly idle?: string;
  readonly statementsPerMinute?: number;
  readonly concurrentSessions?: number;
}

/** The spec that AccessPolicy and ClusterAccessPolicy share. */
export interface AccessPolicySpec {
  readonly mode?: string;
  readonly resources?: { readonly names?: readonly string[]; readonly selector?: LabelSelector };
  readonly subjects?: readonly SubjectEntry[];
  readonly profile?: string;
  readonly schemaOnlyReads?: string;
  readonly rules?: readonly PolicyRule[];
  readonly masking?: readonly MaskingSpec[];
  readonly inference?: string;
  readonly maskedWrites?: string;
  readonly limits?: LimitsSpec;
  /** ClusterAccessPolicy only: the namespaces it reaches; absent reaches all of them. */
  readonly namespaceSelector?: LabelSelector;
  /** ClusterAccessPolicy only: the least that its resources do. */
  readonly requires?: Requirements;
}

/** What a ClusterAccessPolicy requires of the resources it speaks of. */
export interface Requirements {
  readonly recording?: {
    readonly mode?: string;
    readonly durability?: string;
    readonly content?: readonly string[];
    readonly retention?: string;
  };
  readonly bypassProtection?: { readonly networkPolicy?: string; readonly exec?: string };
}

/** An AccessPolicy or ClusterAccessPolicy as loaded from a folder or the API server. */
export interface PolicyDocument {
  readonly kind: "AccessPolicy" | "ClusterAccessPolicy";
  /** Absent for ClusterAccessPolicy. */
  readonly namespace?: string;
  readonly name: string;
  readonly generation: number;
  readonly spec: AccessPolicySpec;
}

/** A ProtectedResource, as far as policies refer to it. */
export interface ResourceDocument {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly spec: {
    readonly protocol: string;
    readonly classification?: readonly { readonly tag: string; readonly columns: readonly string[] }[];
  };
}
