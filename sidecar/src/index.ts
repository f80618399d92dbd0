/** The gateway, and what the command line uses of it: identity, recording and verification. */

export {
  type AuthenticatorOptions,
  createAuthenticator,
  type ReloadableAuthenticator,
} from "./identity/authenticator.ts";
export type * from "./identity/documents.ts";
export {
  audienceOf,
  generateLocalKey,
  issueLocalToken,
  type LocalTokenRequest,
} from "./identity/local-token.ts";
export type * from "./identity/model.ts";
export { listSessions, readSession, verifyRecordings } from "./recording/chains.ts";
export type * from "./recording/model.ts";
export { openNull } from "./recording/null-recorder.ts";
export { prune } from "./recording/prune.ts";
export { createRecorder, type RecorderOptions } from "./recording/recorder.ts";
export { printable, renderReplay } from "./recording/replay.ts";
export { defaultRecordingLimits, type RecordingLimits } from "./recording/session-journal.ts";
export type { ReadSessionOptions, SessionSummary } from "./recording/sessions.ts";
export { keyFingerprint, loadPublicKey, loadSigningKey, publicKeyPath } from "./recording/signing-key.ts";
export type {
  FindingStatus,
  LogFinding,
  SessionFinding,
  Verification,
  VerifyOptions,
} from "./recording/verify.ts";
