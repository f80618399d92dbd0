/**
 * The nouns that every part of Sallyport shares: who asks, for what, and what was decided.
 * Pure types; nothing here knows a protocol's wire form.
 */

/** What a command does, in the order in which masks and recordings treat it as ever more dangerous. */
export type Operation =
  | "read"
  | "write"
  | "define"
  | "control"
  | "export"
  | "execute"
  | "privilege"
  | "session";

/** How sure a rule or a classification is: derived from a complete parse and catalog, or a best effort. */
export type Enforcement = "authoritative" | "heuristic";

/** One thing that a command touches. `name` is `schema.table` for relations, `schema.function` for functions. */
export interface ObjectRef {
  readonly name: string;
  readonly kind:
    | "relation"
    | "function"
    | "schema"
    | "type"
    | "role"
    | "database"
    | "setting"
    | "file"
    /** What an API serves: `verb:resource/subresource`, or `verb:/path`. */
    | "resource"
    | "other";
  /** False when it is reached through a view, trigger, cascade or function body: Allow rules need not cover it. */
  readonly direct: boolean;
  /** True where it shows secrets, whatever its name: the profiles that read do not cover it. */
  readonly isSecret?: boolean;
  /** True of a path where whatever is below it is meant, too: rules that deny or ask are met by any name there. */
  readonly isTree?: boolean;
}

/** A fact of a command that rules may read. */
export type FactValue = string | number | boolean | readonly string[] | Readonly<Record<string, string>>;

/** One judged part of a command: `WITH x AS (DELETE …) SELECT` has a write part and a read part. */
export interface CommandPart {
  readonly operation: Operation;
  /** Protocol words that rules name under `commands`, upper case for SQL: `DELETE`, `CREATE TABLE`. */
  readonly words: readonly string[];
  readonly objects: readonly ObjectRef[];
  /** A write with no WHERE, or with one that is always true. */
  readonly unbounded: boolean;
  /** A write that tells of the rows that are there, by its condition and its errors: rules that keep one from reading see it. */
  readonly looks?: true;
  /** `heuristic` where the body could not be read (dynamic SQL, an opaque language). */
  readonly enforcement: Enforcement;
}

/** A command as policy sees it: every part must be allowed. No parts means nothing to judge (an empty query). */
export interface Command {
  readonly protocol: string;
  /** The text as the client sent it; for messages, recordings and CEL. */
  readonly text: string;
  readonly parts: readonly CommandPart[];
  /** The argument vector where the protocol has one (exec, ssh); absent for SQL. */
  readonly argv?: readonly string[];
  /** What else rules may read, by the protocol's own names; a protocol gives each of its facts every time. */
  readonly facts?: Readonly<Record<string, FactValue>>;
}

/** What connects: a person, a program, or an agent that acts for somebody. */
export type SubjectKind = "Human" | "Workload" | "Agent";

/** Who asks, after a provider has verified it. Users and groups carry the provider's prefix. */
export interface Identity {
  readonly provider: string;
  readonly user: string;
  readonly groups: readonly string[];
  readonly kind: SubjectKind;
  /** Set when the subject is a Kubernetes service account. */
  readonly serviceAccount?: { readonly namespace: string; readonly name: string };
  readonly onBehalfOf?: string;
  /** Who they are in the cluster, as the provider maps it; null where it maps names and gives none for them. */
  readonly kubernetesUsername?: string | null;
  readonly claims: Readonly<Record<string, unknown>>;
  /** Epoch seconds after which the session ends, grace included; absent for identities that do not expire. */
  readonly expiresAt?: number;
  /** The token's own id (`jti`), for revocation. */
  readonly tokenId?: string;
}

/** The resource as policy selects it. */
export interface ResourceFacts {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly namespaceLabels: Readonly<Record<string, string>>;
  readonly protocol: string;
}

/** What of the connection rules may read, beside identity and command. */
export interface SessionFacts {
  readonly database: string;
  /** The upstream account in use. */
  readonly account: string;
  readonly applicationName: string;
  readonly clientAddress: string;
}

/** The rule that decided, or asked; `rule` is a rule's name or `profile/<Profile>`. */
export interface RuleRef {
  readonly policy: string;
  readonly rule: string;
  readonly enforcement: Enforcement;
}

/** Numeric bounds on what one session may do; absent is unbounded. */
export interface SessionLimits {
  readonly rows?: number;
  readonly affectedRows?: number;
  readonly sessionDurationMs?: number;
  readonly idleMs?: number;
  readonly statementsPerMinute?: number;
  readonly concurrentSessions?: number;
}

/** What one RequireApproval rule asks for. */
export interface ApprovalTerms {
  readonly kind: "AccessPolicy" | "ClusterAccessPolicy";
  /** The policy's name in the cluster, without what tells both kinds apart in messages. */
  readonly policy: string;
  readonly rule: string;
  /** What the rule says, in one fixed spelling: a hold outlives no change of it. Its hash stands in requests. */
  readonly ruleText: string;
  /** How many people must approve. */
  readonly required: number;
  readonly timeoutMs: number;
  readonly grant: "Once" | "Window";
  readonly windowMs?: number;
  readonly reasonRequired: boolean;
  /** Members pass without approval once they give a reason. */
  readonly breakGlassGroup?: string;
}

/** What becomes of a command. */
export type VerdictAction = "Allow" | "Deny" | "RequireApproval";

/** What policy decided about one command of one subject on one resource. */
export interface Verdict {
  readonly action: VerdictAction;
  /** The rule that decided; absent when nothing matched (which denies). */
  readonly rule?: RuleRef;
  /** What the user is told: the rule's message, or why nothing allowed it. Never holds a value of the data. */
  readonly message: string;
  /** What the user can do next. */
  readonly hint?: string;
  /** With RequireApproval: every rule that asks and that nothing satisfies yet. */
  readonly asks?: readonly ApprovalTerms[];
  /** With Allow: rules that an approval, a window or break-glass satisfied. */
  readonly satisfied?: readonly { readonly terms: ApprovalTerms; readonly by: "approval" | "breakGlass" }[];
  readonly limits: SessionLimits;
  /** Verdicts of Audit policies, which decide nothing. */
  readonly audit: readonly {
    readonly rule?: RuleRef;
    readonly action: VerdictAction;
    readonly policy: string;
  }[];
  /** False where the verdict read time, parameters or literal text: it must not be cached. */
  readonly cacheable: boolean;
  /** True where a rule read the command's text: it holds for this text only, not for others of its shape. */
  readonly readsText?: boolean;
  readonly enforcement: Enforcement;
}
