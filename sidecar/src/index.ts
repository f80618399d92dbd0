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
export type * from "./recording/model.ts";
