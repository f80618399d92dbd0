/** The contract between gateway, operator and recorder: their messages, and the framed connection that carries them. */
export { type AdminOptions, serveAdmin } from "./admin.ts";
export { Allowance, type AllowedRate } from "./allowance.ts";
export { Backoff } from "./backoff.ts";
export {
  type Applied,
  applyUpdate,
  type Bundle,
  type BundleDocument,
  type BundleUpdate,
  bundleKinds,
  digestOf,
  isOlder,
  kindOf,
  newer,
  type Revision,
  updateFrom,
} from "./bundle.ts";
export { type ConnectionLimits, defaultConnectionLimits, FramedConnection } from "./connection.ts";
export { encodeFrame, type Frame, FrameError, FrameReader } from "./frames.ts";
export {
  type ApprovalAsk,
  type ApprovedWindow,
  type BrokenGlass,
  type BrokenRule,
  type CertificatePurpose,
  controlLimits,
  type GatewayMessage,
  type GatewayPeer,
  type GatewayProblem,
  type OperatorMessage,
  parseGatewayMessage,
  parseOperatorMessage,
  type RefusalCode,
  type SessionCause,
  type SessionReport,
  signingProof,
} from "./messages.ts";
export {
  asksPeers,
  controlAudience,
  controlProtocol,
  type GatewayName,
  gatewayUri,
  parseGatewayUri,
  peerNumber,
  peerPort,
  peerProtocol,
  recorderAudience,
  recorderFor,
  recordingProtocol,
  ruleHashOf,
} from "./names.ts";
export { oneLine } from "./one-line.ts";
export { isRange, type Reach, readReach } from "./reach.ts";
export {
  parseRecordingAnswer,
  parseRecordingRequest,
  type RecordingAnswer,
  type RecordingFailure,
  type RecordingRequest,
  recordingStreamLimits,
} from "./recording-messages.ts";
export { requestPath } from "./request-path.ts";
export { MessageError } from "./shape.ts";
export { wholeNumber } from "./whole-number.ts";
