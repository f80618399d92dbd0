/** Who is at the other end: the face of identity that the server and the protocols see. */
import type { Identity } from "@sallyport/policy";

/** What a client showed: a bearer token, or a certificate whose key it has. */
export type Credential =
  | { readonly kind: "token"; readonly token: string }
  | {
      readonly kind: "certificate";
      readonly subject: string;
      readonly raw: Uint8Array;
      /** TLS found nothing wrong with it: its authority may certify such names, by such algorithms. */
      readonly isVerified: boolean;
    };

/** The outcome of authentication. `publicReason` may be shown to the client and holds no token and no secret. */
export type Authentication =
  | { readonly kind: "authenticated"; readonly identity: Identity }
  | {
      readonly kind: "refused";
      readonly publicReason: string;
      readonly cause?: Error;
      /** True where the credential could not be checked: nothing is known against whoever showed it. */
      readonly isUndecided?: boolean;
    };

/** Says who a credential is, or why it is nobody. */
export interface Authenticator {
  /** Checks a credential for one resource; `audience` is the resource's own. Never throws for bad input. */
  authenticate(
    credential: Credential,
    request: { readonly audience: string; readonly providers: readonly string[] },
  ): Promise<Authentication>;
  /** True where the identity's token or subject has been revoked since (checked on every reload). */
  isRevoked(identity: Identity): boolean;
}
