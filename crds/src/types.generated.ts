// Generated from crds/*.yaml by `make generate`. Do not edit.

/** The parts of Kubernetes metadata that are read here. */
export interface ObjectMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly generation?: number;
  readonly resourceVersion?: string;
  readonly uid?: string;
}

/** Who may do what on the protected resources of this namespace. */
export interface AccessPolicy {
  readonly apiVersion: "sallyport.dev/v1alpha1";
  readonly kind: "AccessPolicy";
  readonly metadata: ObjectMeta;
  readonly spec: AccessPolicySpec;
  readonly status?: PolicyStatus;
}

/** One request for a decision, the decisions made about it, and what came of it. */
export interface Approval {
  readonly apiVersion: "sallyport.dev/v1alpha1";
  readonly kind: "Approval";
  readonly metadata: ObjectMeta;
  readonly spec: ApprovalSpec;
  readonly status?: ApprovalStatus;
}

/** Who may do what on the protected resources of many namespaces; a floor that namespaces can only tighten. */
export interface ClusterAccessPolicy {
  readonly apiVersion: "sallyport.dev/v1alpha1";
  readonly kind: "ClusterAccessPolicy";
  readonly metadata: ObjectMeta;
  readonly spec: ClusterAccessPolicySpec;
  readonly status?: PolicyStatus;
}

/** Who vouches for people, programs and agents. */
export interface IdentityProvider {
  readonly apiVersion: "sallyport.dev/v1alpha1";
  readonly kind: "IdentityProvider";
  readonly metadata: ObjectMeta;
  readonly spec: IdentityProviderSpec;
  readonly status?: IdentityProviderStatus;
}

/** A server that is reached through a gateway only. */
export interface ProtectedResource {
  readonly apiVersion: "sallyport.dev/v1alpha1";
  readonly kind: "ProtectedResource";
  readonly metadata: ObjectMeta;
  readonly spec: ProtectedResourceSpec;
  readonly status?: ProtectedResourceStatus;
}

/** Lets ProtectedResources of other namespaces reach a Service or pods of this one. */
export interface ResourceGrant {
  readonly apiVersion: "sallyport.dev/v1alpha1";
  readonly kind: "ResourceGrant";
  readonly metadata: ObjectMeta;
  readonly spec: ResourceGrantSpec;
  readonly status?: ResourceGrantStatus;
}

/** A session that lasts, or that met a hold or a refusal. Deleting a live one ends its connection. */
export interface Session {
  readonly apiVersion: "sallyport.dev/v1alpha1";
  readonly kind: "Session";
  readonly metadata: ObjectMeta;
  readonly spec: SessionSpec;
  readonly status?: SessionStatus;
}

/** Who may do what. */
export interface AccessPolicySpec {
  /** `Enforce` decides. `Audit` is evaluated beside the Enforce set and only reported. */
  readonly mode: "Enforce" | "Audit";
  /** The ProtectedResources that the policy speaks of: by name or by label. */
  readonly resources: ResourceChoice;
  /** Whom the policy speaks of. */
  readonly subjects: readonly Subject[];
  /**
   * A ready set of Allow rules. `ReadOnly`: read. `ReadWrite`: read and write. `SchemaOnly`: change the
   * schema and read the catalog, no data. These three may also change harmless settings of their session.
   * `Admin`: everything that no rule denies, exports included. `None`: nothing, and no Allow rule beside
   * it.
   */
  readonly profile?: "ReadOnly" | "ReadWrite" | "SchemaOnly" | "Admin" | "None";
  /** What a SchemaOnly subject meets when it reads data; `Deny` where absent. */
  readonly schemaOnlyReads?: "Deny" | "MaskAll";
  /** Any Deny wins, then RequireApproval, then Allow; order never matters. What nothing matches is denied. */
  readonly rules?: readonly AccessRule[];
  /**
   * What is hidden in answers. Of several masks on a value the strictest holds: Null, Redact, Replace,
   * Hash, Partial.
   */
  readonly masking?: readonly MaskingRule[];
  /** Whether masked columns may be used where their value can be guessed: WHERE, ORDER BY, GROUP BY, JOIN. */
  readonly inference: "Deny" | "Allow";
  /** Whether someone who sees a column masked may write it. */
  readonly maskedWrites: "Deny" | "Allow";
  /** Bounds on one session; of several policies the tightest holds. */
  readonly limits?: PolicyLimits;
}

/** One rule. */
export interface AccessRule {
  /** The rule's name; verdicts and recordings cite it. */
  readonly name: string;
  /** Which commands the rule matches. The keys are ANDed, the entries of a list ORed. */
  readonly match: RuleMatch;
  /** What happens to a command that matches. */
  readonly action: "Deny" | "RequireApproval" | "Allow";
  /** Shown to the user. */
  readonly message?: string;
  /** How approval is asked for. Only for the action RequireApproval. */
  readonly approval?: ApprovalTerms;
}

/** One decision. */
export interface ApprovalDecision {
  /** The Kubernetes username of the approver: the one that sends the request. */
  readonly approver: string;
  /** What was decided; one Denied ends the request. */
  readonly decision: "Approved" | "Denied";
  /** Why. */
  readonly comment?: string;
  /**
   * The policies that the decision is for, where several ask: `prod`, and `cluster/floor` of a
   * ClusterAccessPolicy. The API server refuses those that the approver may not approve under.
   */
  readonly policies?: readonly string[];
}

/** What is asked for. Cannot be changed. */
export interface ApprovalRequest {
  /** `Statement`: a command that is held. `Access`: leave to do for a while what a rule asks approval for. */
  readonly type: "Statement" | "Access";
  /** The Kubernetes username of who asks (`kubectl auth whoami`); never may they decide. */
  readonly requester: string;
  /** The Kubernetes username of whom an agent acts for; they cannot decide either. */
  readonly onBehalfOf?: string;
  /** The requester as the identity provider and the policies name them. */
  readonly subject?: string;
  /** What sort of subject asks. */
  readonly subjectKind?: "Human" | "Workload" | "Agent";
  /** The ProtectedResource, in the same namespace. */
  readonly resource: string;
  /** The rules that ask for approval. Approved means that each of them has its approvals. */
  readonly policies: readonly GoverningRule[];
  /** The command in its recorded form: what is masked or secret is not in it. */
  readonly command?: string;
  /** A digest of the whole command under a key of the session: the command that runs is the one approved. */
  readonly digest?: string;
  /** The session that holds the command. */
  readonly sessionId?: string;
  /** Why, for the approvers. */
  readonly reason?: string;
  /**
   * How long access lasts once approved; the rules cap it. A duration such as `90s`, `10m`, `1h30m` or
   * `30d`.
   */
  readonly duration?: string;
  /** When the request ends without a decision. */
  readonly expiresAt?: string;
}

/** Takes an approval back. Set once. */
export interface ApprovalRevocation {
  /** The Kubernetes username of who takes it back: the one that sends the request. */
  readonly by: string;
  /** Why. */
  readonly reason?: string;
}

/** What is asked for, and what was decided. */
export interface ApprovalSpec {
  /** What is asked for. Cannot be changed. */
  readonly request: ApprovalRequest;
  /** One entry an approver, appended by that approver and final. */
  readonly decisions: readonly ApprovalDecision[];
  /** Takes an approval back. Set once. */
  readonly revocation?: ApprovalRevocation;
}

/** Written by the operator only. */
export interface ApprovalStatus {
  /** Where the request stands. */
  readonly phase?: "Pending" | "Approved" | "Used" | "Denied" | "Expired" | "Cancelled" | "Revoked";
  /** Approvals given and needed, such as `1/2`. */
  readonly progress?: string;
  /** How far each rule is. */
  readonly rules?: readonly RuleProgress[];
  /** When the request, or the access that it gave, ends. */
  readonly expiresAt?: string;
  /** Until when the approved rules let more through; absent where a single command was approved. */
  readonly grantedUntil?: string;
  /** When the last decision that counted was seen. */
  readonly decidedAt?: string;
  /** When the command ran. */
  readonly usedAt?: string;
  /** The metadata.generation that this status speaks of. */
  readonly observedGeneration?: number;
  /** The latest observations: Validated, Approved. */
  readonly conditions?: readonly Condition[];
}

/** How approval is asked for. Only for the action RequireApproval. */
export interface ApprovalTerms {
  /** How many people must approve. */
  readonly required: number;
  /** How long the command is held for an answer. A duration such as `90s`, `10m`, `1h30m` or `30d`. */
  readonly timeout: string;
  /** `Once`: the held command only. `Window`: the same sort of command for a while. */
  readonly grant: "Once" | "Window";
  /** How long a Window grant lasts. A duration such as `90s`, `10m`, `1h30m` or `30d`. */
  readonly window?: string;
  /** Whether the requester must say why. */
  readonly reasonRequired: boolean;
  /** Who may go ahead without waiting, in the open. */
  readonly breakGlass?: BreakGlass;
}

/** Scales a Shared placement by processor use. */
export interface Autoscaling {
  /** The fewest gateways. */
  readonly minReplicas: number;
  /** The most gateways. */
  readonly maxReplicas: number;
  /** The processor use, in percent of the request, to steer for. */
  readonly targetCPUUtilizationPercentage: number;
}

/** Who may go ahead without waiting, in the open. */
export interface BreakGlass {
  /** A group, with the prefix of its identity provider. */
  readonly group: string;
}

/** Keeps others from reaching the server around the gateway. */
export interface BypassProtection {
  /** Whether a NetworkPolicy closes the server's port to everything but the gateway. */
  readonly networkPolicy: "Enforce" | "Off";
  /** Whether exec, attach and debug into the server's pods are closed. */
  readonly exec: "Enforce" | "Off";
  /** Who may still connect directly: replicas, backups, the database's own operator. */
  readonly allowFrom?: readonly NetworkPeer[];
}

/** Ways around the gateway that no resource leaves open. */
export interface BypassRequirement {
  /** `Enforce`: network policies close the server to all but the gateway, and who is named. */
  readonly networkPolicy?: "Enforce";
  /** `Enforce`: exec, attach and port-forward are closed. */
  readonly exec?: "Enforce";
}

/** How a token's claims become a subject. */
export interface ClaimMapping {
  /** The claim that holds the user. */
  readonly user: string;
  /** The claim that holds the groups: a list, or one text. */
  readonly groups: string;
  /** The claim that names whom an agent acts for. */
  readonly onBehalfOf?: string;
  /**
   * Which sort of subject it is. Where absent: Workload for type kubernetes, what the claim `kind` says
   * for type local, Human for the others.
   */
  readonly kind?: KindClaim;
}

/** One tag and what carries it. */
export interface Classification {
  /** The tag, such as `pii`. */
  readonly tag: string;
  /**
   * Columns as `schema.table.column`; `*` stands for any run of characters within one part. Of a `json`
   * or `jsonb` column a part can be meant: `schema.table.column->key->*`, where a step is a key, the
   * index of an element from 0, or `*` for any of them. Names and keys with a dot cannot be written; `*`
   * covers them. For resources of protocol kubernetes `group.resource.field`, such as
   * `core.secrets.data`.
   */
  readonly columns: readonly string[];
}

/**
 * Lets clients log in with a certificate: the subject's CN becomes the user, each O and OU a group,
 * behind the prefix.
 */
export interface ClientCertificates {
  /** The certificate authorities that sign client certificates, as PEM. */
  readonly caBundle: string;
}

/**
 * Who may do what, in many namespaces. What it denies, asks approval for or masks is a floor that
 * namespaces can only tighten.
 */
export interface ClusterAccessPolicySpec {
  /** The namespaces whose resources the policy speaks of; absent or `{}` means all. */
  readonly namespaceSelector?: LabelSelector;
  /** `Enforce` decides. `Audit` is evaluated beside the Enforce set and only reported. */
  readonly mode: "Enforce" | "Audit";
  /** The ProtectedResources that the policy speaks of: by name or by label. */
  readonly resources: ResourceChoice;
  /** Whom the policy speaks of. */
  readonly subjects: readonly Subject[];
  /**
   * A ready set of Allow rules. `ReadOnly`: read. `ReadWrite`: read and write. `SchemaOnly`: change the
   * schema and read the catalog, no data. These three may also change harmless settings of their session.
   * `Admin`: everything that no rule denies, exports included. `None`: nothing, and no Allow rule beside
   * it.
   */
  readonly profile?: "ReadOnly" | "ReadWrite" | "SchemaOnly" | "Admin" | "None";
  /** What a SchemaOnly subject meets when it reads data; `Deny` where absent. */
  readonly schemaOnlyReads?: "Deny" | "MaskAll";
  /** Any Deny wins, then RequireApproval, then Allow; order never matters. What nothing matches is denied. */
  readonly rules?: readonly AccessRule[];
  /**
   * What is hidden in answers. Of several masks on a value the strictest holds: Null, Redact, Replace,
   * Hash, Partial.
   */
  readonly masking?: readonly MaskingRule[];
  /** Whether masked columns may be used where their value can be guessed: WHERE, ORDER BY, GROUP BY, JOIN. */
  readonly inference: "Deny" | "Allow";
  /** Whether someone who sees a column masked may write it. */
  readonly maskedWrites: "Deny" | "Allow";
  /** Bounds on one session; of several policies the tightest holds. */
  readonly limits?: PolicyLimits;
  /**
   * The least that the resources it speaks of do, whoever connects; their own settings can only ask for
   * more. Set only what is required.
   */
  readonly requires?: PolicyRequirements;
}

/** Compute resources of the gateway container. */
export interface ComputeResources {
  /** What the container is sure to get. */
  readonly requests?: Readonly<Record<string, number | string>>;
  /** What the container can use at most. */
  readonly limits?: Readonly<Record<string, number | string>>;
}

/** One observation of the object's state. */
export interface Condition {
  /** What is observed, in CamelCase. */
  readonly type: string;
  /** Whether it holds. */
  readonly status: "True" | "False" | "Unknown";
  /** The metadata.generation that the observation was made for. */
  readonly observedGeneration?: number;
  /** When the status last changed. */
  readonly lastTransitionTime: string;
  /** Why, as one word in CamelCase. */
  readonly reason: string;
  /** Why, for a human reader. */
  readonly message: string;
}

/** One regular expression. */
export interface CustomPattern {
  /** What recordings call it. */
  readonly name: string;
  /** The expression, in RE2 syntax. */
  readonly regex: string;
}

/** Where the protected server listens: a Service of this namespace, or a host. */
export interface Endpoint {
  /** A Service in the same namespace. */
  readonly serviceRef?: ServiceRef;
  /**
   * A host name or IP address. One inside the cluster but outside this namespace needs a ResourceGrant
   * there.
   */
  readonly host?: string;
  /** The host's port. */
  readonly port?: number;
}

/** How many gateways there are. */
export interface GatewayCounts {
  /** Gateways that should run. */
  readonly desired?: number;
  /** Gateways that accept sessions. */
  readonly ready?: number;
  /** Gateways of an earlier image or configuration. */
  readonly outdated?: number;
  /** Gateways that hold the latest policy. */
  readonly current?: number;
}

/** One rule that asks. */
export interface GoverningRule {
  /** Which sort of policy. */
  readonly kind: "AccessPolicy" | "ClusterAccessPolicy";
  /** The policy; the right to approve is the verb `approve` on it. */
  readonly policy: string;
  /** The rule's name. */
  readonly rule: string;
  /** The rule as it was when it asked; a change of it voids the request. Set by the operator. */
  readonly ruleHash?: string;
  /** How many people must approve. */
  readonly required: number;
}

/** Resources of one namespace. */
export interface GrantFrom {
  /** Their namespace. */
  readonly namespace: string;
  /** Names of ProtectedResources; all of that namespace where absent. */
  readonly names?: readonly string[];
}

/** A Service of this namespace, or pods. */
export interface GrantTo {
  /** The Service's name; its pods come with it. */
  readonly serviceName?: string;
  /** Pods of this namespace; `{}` means all. */
  readonly podSelector?: LabelSelector;
  /** The ports, as numbers of the pods' or the Service's; all where absent. */
  readonly ports?: readonly number[];
}

/** Who vouches for people, programs and agents. */
export interface IdentityProviderSpec {
  /** What sort of provider; the field of the same name configures it. */
  readonly type: "oidc" | "kubernetes" | "saml" | "local";
  /**
   * Stands before the provider's users and groups, colon included: `okta:`. Unique, and `system:` is
   * reserved.
   */
  readonly prefix: string;
  /** An OpenID Connect issuer. */
  readonly oidc?: OidcProvider;
  /** Service accounts of a Kubernetes cluster. */
  readonly kubernetes?: KubernetesProvider;
  /** A SAML 2.0 identity provider. */
  readonly saml?: SamlProvider;
  /** Public keys given here: for standalone use, CI and tests. */
  readonly local?: LocalProvider;
  /**
   * Lets clients log in with a certificate: the subject's CN becomes the user, each O and OU a group,
   * behind the prefix.
   */
  readonly clientCertificates?: ClientCertificates;
  /** How a token's claims become a subject. */
  readonly claims: ClaimMapping;
  /**
   * A CEL expression over `claims` that gives the subject's Kubernetes username, so that nobody approves
   * their own request under a second name.
   */
  readonly kubernetesUsername?: string;
  /** How long sessions outlive their token. */
  readonly session: SessionTerms;
  /** What is no longer trusted. Ends live sessions too. The keys of one entry are ANDed. */
  readonly revocations?: readonly Revocation[];
}

/** What the operator observed. */
export interface IdentityProviderStatus {
  /** The metadata.generation that this status speaks of. */
  readonly observedGeneration?: number;
  /** The latest observations: Accepted, KeysFetched, Ready. */
  readonly conditions?: readonly Condition[];
}

/** A range of addresses. */
export interface IpBlock {
  /** The range, such as `10.0.0.0/8`. */
  readonly cidr: string;
}

/**
 * Which sort of subject it is. Where absent: Workload for type kubernetes, what the claim `kind` says
 * for type local, Human for the others.
 */
export interface KindClaim {
  /** The claim that is looked at. */
  readonly claim: string;
  /** What its values mean. */
  readonly values: Readonly<Record<string, "Human" | "Workload" | "Agent">>;
  /** The sort of subject where the claim is missing or holds another value. */
  readonly default: "Human" | "Workload" | "Agent";
}

/** Service accounts of a Kubernetes cluster. */
export interface KubernetesProvider {
  /** `TokenReview` asks the API server; `JWKS` checks the signature with the cluster's published keys. */
  readonly verification: "TokenReview" | "JWKS";
  /** The cluster's service account issuer, for JWKS. */
  readonly issuer?: string;
  /** The certificate authorities of the issuer, as PEM. */
  readonly caBundle?: string;
}

/** One requirement on one label. */
export interface LabelRequirement {
  /** The label's name. */
  readonly key: string;
  /** How the label is compared with `values`. */
  readonly operator: "In" | "NotIn" | "Exists" | "DoesNotExist";
  /** What `In` and `NotIn` compare with; empty for the other two. */
  readonly values?: readonly string[];
}

/** Labels of ProtectedResources; `{}` selects all. */
export interface LabelSelector {
  /** Labels that must be there with exactly these values. */
  readonly matchLabels?: Readonly<Record<string, string>>;
  /** Requirements on labels; all of them must hold. */
  readonly matchExpressions?: readonly LabelRequirement[];
}

/** Where clients reach the gateway. */
export interface Listen {
  /** The port that the gateway listens on; the protocol's own where absent. */
  readonly port?: number;
  /** The Service made for a Shared placement; `<name>-gateway` where absent. */
  readonly serviceName?: string;
}

/** Public keys given here: for standalone use, CI and tests. */
export interface LocalProvider {
  /** What the `iss` claim must be. */
  readonly issuer: string;
  /** Public keys as PEM (SPKI): Ed25519, EC or RSA of at least 2048 bits. Never a private key. */
  readonly publicKeys?: readonly string[];
  /** Public keys as a JSON Web Key Set. */
  readonly jwks?: PublicJwks;
}

/** One mask and what it covers. */
export interface MaskingRule {
  /** Columns that carry one of these tags (classification of the resource). */
  readonly tags?: readonly string[];
  /**
   * Columns as `schema.table.column`; `*` stands for any run of characters within one part. Of a `json`
   * or `jsonb` column a part can be meant: `schema.table.column->key->*`, where a step is a key, the
   * index of an element from 0, or `*` for any of them. Names and keys with a dot cannot be written; `*`
   * covers them. For resources of protocol kubernetes `group.resource.field`, such as
   * `core.secrets.data`.
   */
  readonly columns?: readonly string[];
  /** Built-in patterns, looked for in every value. */
  readonly patterns?: readonly ("email" | "creditCard" | "ssn" | "phone" | "ipv4" | "ipv6" | "jwt" | "privateKey" | "awsKey")[];
  /** Regular expressions of your own, looked for in every value. */
  readonly customPatterns?: readonly CustomPattern[];
  /**
   * `Null`, `Redact` (`***`), `Replace` (by `format`), `Hash` (keyed), `Partial` (parts kept, as `format`
   * says).
   */
  readonly with: "Null" | "Redact" | "Replace" | "Hash" | "Partial";
  /** For Replace the new value; for Partial a text with `{firstN}` or `{lastN}`: `***-**-{last4}`. */
  readonly format?: string;
  /** Whether a grant or break-glass shows the value. */
  readonly liftable: boolean;
}

/** One peer. */
export interface NetworkPeer {
  /** Pods, in this namespace or in those of namespaceSelector. */
  readonly podSelector?: LabelSelector;
  /** Namespaces. */
  readonly namespaceSelector?: LabelSelector;
  /** A range of addresses. */
  readonly ipBlock?: IpBlock;
}

/** An OpenID Connect issuer. */
export interface OidcProvider {
  /** The issuer's URL, exactly as tokens name it; https, or http on a loopback address. */
  readonly issuer: string;
  /** Audiences accepted beside the resource's own. */
  readonly audiences?: readonly string[];
  /** The certificate authorities of the issuer, as PEM; the system's where absent. */
  readonly caBundle?: string;
}

/** Where the gateway runs. Ignored by a gateway that runs standalone. */
export interface Placement {
  /**
   * `Sidecar`: a native sidecar injected into the pods of podSelector. `Shared`: a Deployment and Service
   * in this namespace.
   */
  readonly mode: "Sidecar" | "Shared";
  /** The pods that a Sidecar is injected into. */
  readonly podSelector?: LabelSelector;
  /**
   * What happens to pods whose sidecar is of an earlier release or configuration. `Report`, also where
   * absent: they are counted in the status. `Evict`: they are evicted, one at a time, as disruption
   * budgets allow.
   */
  readonly rolloutPolicy?: "Report" | "Evict";
  /** How many gateways a Shared placement runs; 2 where neither this nor autoscaling is set. */
  readonly replicas?: number;
  /** Compute resources of the gateway container. */
  readonly resources?: ComputeResources;
  /** Scales a Shared placement by processor use. */
  readonly autoscaling?: Autoscaling;
  /** What is added to the pods of a Shared placement. */
  readonly podTemplate?: PodTemplatePatch;
}

/** What is added to the pods of a Shared placement. */
export interface PodTemplatePatch {
  /** Labels added to the pods. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Annotations added to the pods. */
  readonly annotations?: Readonly<Record<string, string>>;
  /** Labels that a node must have. */
  readonly nodeSelector?: Readonly<Record<string, string>>;
  /** The pods' PriorityClass. */
  readonly priorityClassName?: string;
  /** Node taints that the pods tolerate. */
  readonly tolerations?: readonly Toleration[];
}

/** Bounds on one session; of several policies the tightest holds. */
export interface PolicyLimits {
  /** Rows that one statement may return. */
  readonly rows?: number;
  /** Rows that one statement may change. */
  readonly affectedRows?: number;
  /** How long a session may last. A duration such as `90s`, `10m`, `1h30m` or `30d`. */
  readonly sessionDuration?: string;
  /** How long a session may be silent. A duration such as `90s`, `10m`, `1h30m` or `30d`. */
  readonly idle?: string;
  /** Statements a minute. */
  readonly statementsPerMinute?: number;
  /** Sessions that one subject may have at once. */
  readonly concurrentSessions?: number;
}

/**
 * The least that the resources it speaks of do, whoever connects; their own settings can only ask for
 * more. Set only what is required.
 */
export interface PolicyRequirements {
  /** The least that is recorded. */
  readonly recording?: RecordingRequirement;
  /** Ways around the gateway that no resource leaves open. */
  readonly bypassProtection?: BypassRequirement;
}

/** What the operator observed. */
export interface PolicyStatus {
  /** The metadata.generation that this status speaks of. */
  readonly observedGeneration?: number;
  /** The latest observations: Accepted, Ready. */
  readonly conditions?: readonly Condition[];
  /** The generation in force; older than metadata.generation while the latest is not accepted. */
  readonly acceptedGeneration?: number;
  /** How many ProtectedResources the policy selects. */
  readonly resources?: number;
}

/** What is protected and how it is reached. */
export interface ProtectedResourceSpec {
  /**
   * The protocol spoken, such as `postgres`. An open list: a protocol that this build does not speak is
   * not accepted (UnsupportedProtocol).
   */
  readonly protocol: string;
  /** What only this protocol needs. Open: other protocols have other keys. */
  readonly options?: ProtocolOptions;
  /** Where the protected server listens: a Service of this namespace, or a host. */
  readonly endpoint: Endpoint;
  /** Where the gateway runs. Ignored by a gateway that runs standalone. */
  readonly placement: Placement;
  /** Where clients reach the gateway. */
  readonly listen: Listen;
  /** Certificates in both directions. Clients always use TLS. */
  readonly tls: ResourceTls;
  /** The accounts that the gateway holds on the protected server. Clients never see them. */
  readonly credentials: readonly UpstreamCredential[];
  /** Whose tokens and certificates are accepted. */
  readonly identity: ResourceIdentity;
  /**
   * `Audit` decides and records and changes no byte: for observing a resource before the first
   * enforcement.
   */
  readonly enforcement: "Enforce" | "Audit";
  /** What is kept of the sessions. */
  readonly recording: RecordingSettings;
  /** Data tags that masking rules speak of. */
  readonly classification?: readonly Classification[];
  /** Keeps others from reaching the server around the gateway. */
  readonly bypassProtection: BypassProtection;
}

/** What the operator observed. */
export interface ProtectedResourceStatus {
  /** The metadata.generation that this status speaks of. */
  readonly observedGeneration?: number;
  /**
   * The latest observations: Accepted, Programmed, CredentialsResolved, RecordingReady, BypassProtected,
   * Ready.
   */
  readonly conditions?: readonly Condition[];
  /** Where clients connect: host and port. */
  readonly address?: string;
  /** ssh: the line for known_hosts by which clients know the gateways, all of which show this key. */
  readonly knownHosts?: string;
  /** The certificate authorities that sign the gateway's certificate, as PEM. */
  readonly caBundle?: string;
  /** How many gateways there are. */
  readonly gateways?: GatewayCounts;
  /** The policies in force here, as `namespace/name` or `name` for cluster policies. */
  readonly policies?: readonly string[];
  /** How strongly each rule in force is enforced here. */
  readonly rules?: readonly RuleStrength[];
}

/** What only this protocol needs. Open: other protocols have other keys. */
export interface ProtocolOptions {
  /** postgres: the database that the gateway reads the catalog in, and that clients reach who name none. */
  readonly database?: string;
  /**
   * postgres: how clients show their token over TLS: as the password, or by OAUTHBEARER as clients of
   * PostgreSQL 18 do. Password where absent; a client may ask for the other with `options=-c
   * sallyport.login=oauth` (or `password`).
   */
  readonly login?: "Password" | "OAuthBearer";
  /** postgres: the scope that OAUTHBEARER clients are told to ask for; openid where absent. */
  readonly oauthScope?: string;
  /**
   * postgres: what client_encoding may be beside UTF8. A session that has used one of them may send
   * statements and names in ASCII alone from then on, and is refused where something is masked for its
   * user.
   */
  readonly clientEncodings?: readonly ("SQL_ASCII" | "EUC_JP" | "EUC_CN" | "EUC_KR" | "EUC_TW" | "EUC_JIS_2004" | "LATIN1" | "LATIN2" | "LATIN3" | "LATIN4" | "LATIN5" | "LATIN6" | "LATIN7" | "LATIN8" | "LATIN9" | "LATIN10" | "ISO_8859_5" | "ISO_8859_6" | "ISO_8859_7" | "ISO_8859_8" | "KOI8R" | "KOI8U" | "WIN866" | "WIN874" | "WIN1250" | "WIN1251" | "WIN1252" | "WIN1253" | "WIN1254" | "WIN1255" | "WIN1256" | "WIN1257" | "WIN1258")[];
  /** postgres: the databases that clients may reach; empty means all that the account may connect to. */
  readonly databases?: readonly string[];
  readonly [key: string]: unknown;
}

/** One public key (RFC 7517). Private parts are not accepted. */
export interface PublicJwk {
  /** The key's type. */
  readonly kty: "OKP" | "EC" | "RSA";
  /** The key's id, which tokens name. */
  readonly kid?: string;
  /** The only algorithm the key is for. */
  readonly alg?: "EdDSA" | "Ed25519" | "ES256" | "ES384" | "ES512" | "RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512";
  /** What the key is for. */
  readonly use?: "sig";
  /** The curve. */
  readonly crv?: "Ed25519" | "P-256" | "P-384" | "P-521";
  /** The x coordinate, base64url. */
  readonly x?: string;
  /** The y coordinate, base64url. */
  readonly y?: string;
  /** The modulus, base64url. */
  readonly n?: string;
  /** The exponent, base64url. */
  readonly e?: string;
}

/** Public keys as a JSON Web Key Set. */
export interface PublicJwks {
  /** The keys. */
  readonly keys: readonly PublicJwk[];
}

/** The least that is recorded. */
export interface RecordingRequirement {
  /** `BestEffort` refuses `Off`; `Required` refuses everything else. */
  readonly mode?: "BestEffort" | "Required";
  /** `Durable`: records are on disk before a command runs. */
  readonly durability?: "Durable";
  /** What is recorded, besides what the resource asks for. */
  readonly content?: readonly ("commands" | "responses" | "input")[];
  /**
   * The least time that recordings are kept; resources that name none keep them for ever. A duration such
   * as `30d`.
   */
  readonly retention?: string;
}

/** What is kept of the sessions. */
export interface RecordingSettings {
  /** `Required`: what cannot be recorded does not run. `BestEffort`: it runs. `Off`: nothing is recorded. */
  readonly mode: "Required" | "BestEffort" | "Off";
  /**
   * `Accepted`: at most 256 records or one second may be unwritten when a command runs. `Durable`: each
   * command waits until its record is on disk.
   */
  readonly durability: "Accepted" | "Durable";
  /** What is recorded beside who, when and the verdict. */
  readonly content: readonly ("commands" | "responses" | "input")[];
  /**
   * How long recordings are kept; for ever where absent. A duration such as `90s`, `10m`, `1h30m` or
   * `30d`.
   */
  readonly retention?: string;
}

/** The ProtectedResources that the policy speaks of: by name or by label. */
export interface ResourceChoice {
  /** Names of ProtectedResources. */
  readonly names?: readonly string[];
  /** Labels of ProtectedResources; `{}` selects all. */
  readonly selector?: LabelSelector;
}

/** Who may reach what. Every entry of `from` may reach every entry of `to`. */
export interface ResourceGrantSpec {
  /** The ProtectedResources that may reach it. */
  readonly from: readonly GrantFrom[];
  /** What they may reach. */
  readonly to: readonly GrantTo[];
}

/** What the operator observed. */
export interface ResourceGrantStatus {
  /** The metadata.generation that this status speaks of. */
  readonly observedGeneration?: number;
  /** The latest observations: Accepted. */
  readonly conditions?: readonly Condition[];
}

/** Whose tokens and certificates are accepted. */
export interface ResourceIdentity {
  /** Names of IdentityProviders. Empty: nobody gets in. */
  readonly providers: readonly string[];
  /**
   * What the `aud` claim of tokens for this resource must hold; `sallyport:<namespace>/<name>` where
   * absent.
   */
  readonly audience?: string;
}

/** Certificates in both directions. Clients always use TLS. */
export interface ResourceTls {
  /** A Secret of type kubernetes.io/tls shown to clients; one is issued where absent. */
  readonly certificateRef?: SecretName;
  /** TLS between the gateway and the protected server. */
  readonly upstream: UpstreamTls;
}

/** One revocation. */
export interface Revocation {
  /** The user, with or without the prefix. */
  readonly subject?: string;
  /** The token's id (`jti`). */
  readonly tokenId?: string;
  /** Tokens issued before this moment are refused. */
  readonly notBefore?: string;
}

/** Which commands the rule matches. The keys are ANDed, the entries of a list ORed. */
export interface RuleMatch {
  /** What the command does. */
  readonly operations?: readonly ("read" | "write" | "define" | "control" | "export" | "execute" | "privilege" | "session")[];
  /**
   * What it touches, as `schema.table`, `verb:resource`, or the path of a file; `*` stands for any run of
   * characters.
   */
  readonly objects?: readonly string[];
  /** The protocol's own words: `DELETE`, `CREATE TABLE`. */
  readonly commands?: readonly string[];
  /** Set to true to match only writes with no WHERE, or with one that is always true. */
  readonly unbounded?: true;
  /**
   * A CEL expression over command, identity, resource, session and time that must be true. Times are in
   * UTC unless a zone is named.
   */
  readonly cel?: string;
}

/** One rule and who has approved under it. */
export interface RuleProgress {
  /** Which sort of policy. */
  readonly kind: "AccessPolicy" | "ClusterAccessPolicy";
  /** The policy; the right to approve is the verb `approve` on it. */
  readonly policy: string;
  /** The rule's name. */
  readonly rule: string;
  /** The rule as it was when the operator first saw the request; another rule is not the one approved. */
  readonly ruleHash?: string;
  /** How many people must approve. */
  readonly required: number;
  /** Who has approved, with the right to. */
  readonly approvedBy: readonly string[];
}

/** One rule. */
export interface RuleStrength {
  /** The policy, as in `policies`. */
  readonly policy: string;
  /** The rule's name, or `profile/<Profile>`. */
  readonly rule: string;
  /**
   * `authoritative`: decided on a complete parse and catalog. `heuristic`: a best effort that a
   * determined user can evade.
   */
  readonly enforcement: "authoritative" | "heuristic";
}

/** A SAML 2.0 identity provider. */
export interface SamlProvider {
  /** The provider's entity id. */
  readonly entityId: string;
  /** Where logins are sent. */
  readonly ssoUrl: string;
  /** The provider's signing certificates, as PEM. */
  readonly certificates: string;
}

/**
 * The certificate authorities that the server's certificate is checked against; the system's where
 * absent.
 */
export interface SecretKey {
  /** The name of the Secret, in the same namespace. */
  readonly name: string;
  /** The key in the Secret that holds the certificates. */
  readonly key: string;
}

/** A Secret of type kubernetes.io/tls shown to clients; one is issued where absent. */
export interface SecretName {
  /** The name of the Secret, in the same namespace. */
  readonly name: string;
}

/** A Kubernetes service account. */
export interface ServiceAccountName {
  /** The namespace of the service account. */
  readonly namespace: string;
  /** The name of the service account. */
  readonly name: string;
}

/** A Service in the same namespace. */
export interface ServiceRef {
  /** The Service's name. */
  readonly name: string;
  /** The Service's port. */
  readonly port: number;
}

/** Where the connection comes from. */
export interface SessionClient {
  /** The address that the gateway saw. */
  readonly address?: string;
  /** What the client calls itself; nobody checked it. */
  readonly application?: string;
}

/** What happened in it. */
export interface SessionCounts {
  /** Commands that were judged. */
  readonly commands?: number;
  /** Commands that were refused. */
  readonly refused?: number;
  /** Commands that were held for approval. */
  readonly held?: number;
  /** Commands that went past approval by break-glass. */
  readonly brokeGlass?: number;
  /** Rows of which something was masked. */
  readonly maskedRows?: number;
}

/** The pod that carries the session. */
export interface SessionGateway {
  /** The pod's name. */
  readonly pod: string;
  /** The pod's uid. */
  readonly uid?: string;
}

/** Where its recording is. */
export interface SessionRecording {
  /** What the recorder finds it by. */
  readonly reference: string;
  /** Events that the recorder has acknowledged. */
  readonly events?: number;
  /** The hash of the last event of the finished recording. */
  readonly hash?: string;
}

/** Who is connected to what. Written once, by the operator. */
export interface SessionSpec {
  /** The session's id in logs and recordings. */
  readonly sessionId: string;
  /** The ProtectedResource, in the same namespace. */
  readonly resource: string;
  /** The protocol spoken. */
  readonly protocol: string;
  /** Who is connected. */
  readonly subject: SessionSubject;
  /** The account that is used on the protected server. */
  readonly credential?: string;
  /** Where the connection comes from. */
  readonly client?: SessionClient;
  /** The pod that carries the session. */
  readonly gateway?: SessionGateway;
  /** When the session began. */
  readonly startedAt: string;
  /**
   * How long this object is kept after the session's end; the recording has its own retention. A duration
   * such as `90s`, `10m`, `1h30m` or `30d`.
   */
  readonly ttlAfterFinished?: string;
}

/** What became of it. Written by the operator alone, at most once a minute. */
export interface SessionStatus {
  /** Whether the connection is open; `Lost` where its gateway is gone without an end. */
  readonly state?: "Active" | "Ended" | "Lost";
  /** When it ended. */
  readonly endedAt?: string;
  /** Why it ended, as one word in CamelCase. */
  readonly endReason?: string;
  /** When the counts were true. */
  readonly observedAt?: string;
  /** What happened in it. */
  readonly counts?: SessionCounts;
  /** Where its recording is. */
  readonly recording?: SessionRecording;
  /** The metadata.generation that this status speaks of. */
  readonly observedGeneration?: number;
  /** The latest observations: Active, Recorded. */
  readonly conditions?: readonly Condition[];
}

/** Who is connected. */
export interface SessionSubject {
  /** The user, with the prefix of its identity provider. */
  readonly user: string;
  /** What sort of subject. */
  readonly kind: "Human" | "Workload" | "Agent";
  /** The IdentityProvider that vouched. */
  readonly provider?: string;
  /** The groups that policies could name. */
  readonly groups?: readonly string[];
  /** Whom an agent acts for. */
  readonly onBehalfOf?: string;
  /** The subject's Kubernetes username, where the provider maps one. */
  readonly kubernetesUsername?: string;
}

/** How long sessions outlive their token. */
export interface SessionTerms {
  /**
   * How long after the token's expiry a session may go on. A duration such as `90s`, `10m`, `1h30m` or
   * `30d`.
   */
  readonly grace: string;
}

/** Whom it concerns. The keys of one entry are ANDed, the entries of a list ORed. */
export interface Subject {
  /** A user, with the prefix of its identity provider: `okta:alice@example.com`. */
  readonly user?: string;
  /** A group, with the prefix of its identity provider: `okta:analysts`. */
  readonly group?: string;
  /** A Kubernetes service account. */
  readonly serviceAccount?: ServiceAccountName;
  /** What sort of subject: a person, a program, or an AI agent. */
  readonly kind?: "Human" | "Workload" | "Agent";
}

/** One toleration. */
export interface Toleration {
  /** The taint's key; absent means every taint. */
  readonly key?: string;
  /** How the value is compared. */
  readonly operator: "Equal" | "Exists";
  /** The taint's value. */
  readonly value?: string;
  /** The taint's effect; absent means every effect. */
  readonly effect?: "NoSchedule" | "PreferNoSchedule" | "NoExecute";
}

/** One account on the protected server. */
export interface UpstreamCredential {
  /** What clients name this account by. */
  readonly name: string;
  /**
   * The Secret with the keys `username` and `password`, or `username`, `tls.crt` and `tls.key`.
   * Standalone: the folder `secrets/<name>/<key>`.
   */
  readonly secretRef: SecretName;
  /**
   * postgres: the role that sessions run as (SET ROLE); the account must be a member of it. `{user}` in
   * it stands for the identity's name without the provider's prefix: each person a role of their own. A
   * session cannot leave it.
   */
  readonly role?: string;
  /** Whom this account serves; everybody whom a policy lets in where absent. */
  readonly subjects?: readonly Subject[];
}

/** TLS between the gateway and the protected server. */
export interface UpstreamTls {
  /**
   * `verify-full` checks the certificate and its name, `verify-ca` the certificate only, `require`
   * encrypts without checking, `disable` speaks plain text.
   */
  readonly mode: "verify-full" | "verify-ca" | "require" | "disable";
  /**
   * The certificate authorities that the server's certificate is checked against; the system's where
   * absent.
   */
  readonly caRef?: SecretKey;
}

/** Any object of the group sallyport.dev. */
export type SallyportObject = AccessPolicy | Approval | ClusterAccessPolicy | IdentityProvider | ProtectedResource | ResourceGrant | Session;
