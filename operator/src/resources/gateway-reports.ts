/** What gateways say of themselves on the control stream, as far as a status tells it. */

/** Something that a person should mend. */
export interface ReportedProblem {
  readonly reason: string;
  readonly message: string;
  readonly subject?: string;
}

/** The latest word of one gateway. */
export interface GatewayReport {
  readonly podUid: string;
  /** Whether it holds the policy of this moment. */
  readonly isCurrent: boolean;
  readonly problems: readonly ReportedProblem[];
  /** The host key that its clients meet, as a line of known_hosts without a name. */
  readonly knownHosts?: string;
}

/** The gateways that are heard from, by resource (`namespace/name`). */
export interface GatewayReports {
  of(resource: string): readonly GatewayReport[];
}
