/** What gateways are given and what they tell, joined to the caches and to the objects that are written. */
export { ApprovalDesk } from "./approvals.ts";
export { Bundler } from "./bundles.ts";
export { ClusterAddresses } from "./cluster-addresses.ts";
export { ReportExchange, reportsLabel } from "./exchange.ts";
export { PeerDesk } from "./peers.ts";
export { certificateSigner, gatewayProof } from "./prove.ts";
export { SessionWriter } from "./sessions.ts";
export { WindowDesk } from "./windows.ts";
