import { controlAudience } from "@sallyport/control";
import { type KubeClient, type KubeObject, type ResourceType, resourceType } from "../kube/index.ts";

/** A pod as the API server knows it. */
export interface LivePod extends KubeObject {
  readonly spec?: unknown;
  readonly status?: unknown;
}

/** What somebody who opens a stream turned out to be. */
export type Authenticated =
  | {
      readonly kind: "gateway";
      /** `namespace/name` of the resource that its pod was rendered for. */
      readonly resource: string;
      readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
      /** Milliseconds since the epoch at which the token ends. */
      readonly expiresAt: number;
    }
  | { readonly kind: "refused"; readonly code: "unauthenticated" | "notAGateway"; readonly message: string };

/** Whether a live pod is a gateway as it would be rendered today, and of which resource. */
export type IsGateway = (
  pod: LivePod,
) =>
  | { readonly kind: "gateway"; readonly resource: string }
  | { readonly kind: "foreign"; readonly message: string };

/** What proves gateways. */
export interface GatewayAuthenticatorOptions {
  readonly client: Pick<KubeClient, "create" | "find">;
  readonly isGateway: IsGateway;
  readonly now?: () => number;
}

interface TokenReview extends KubeObject {
  readonly spec: { readonly token: string; readonly audiences: readonly string[] };
  readonly status?: {
    readonly authenticated?: boolean;
    readonly audiences?: readonly string[];
    readonly user?: {
      readonly username?: string;
      readonly extra?: Readonly<Record<string, readonly string[]>>;
    };
  };
}

const tokenReviews = resourceType<TokenReview>(
  "authentication.k8s.io/v1",
  "TokenReview",
  "tokenreviews",
  "Cluster",
);
const pods: ResourceType<LivePod> = resourceType<LivePod>("v1", "Pod", "pods");

/** Proves that a token is that of a live pod which is a gateway of ours. */
export class GatewayAuthenticator {
  readonly #options: GatewayAuthenticatorOptions;
  readonly #now: () => number;

  constructor(options: GatewayAuthenticatorOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  /** Asks the API server whose token it is, and looks at the pod itself; rejects where it cannot be asked. */
  async authenticate(token: string): Promise<Authenticated> {
    const claims = claimsOf(token);
    // A token that would open other doors too is none of a gateway's: theirs have this audience alone.
    const isForUs = claims?.audiences.length === 1 && claims.audiences[0] === controlAudience;
    if (claims === undefined || !isForUs)
      return refused("unauthenticated", "the token is not for this audience");
    const { status } = await this.#options.client.create(tokenReviews, {
      metadata: { name: "" },
      spec: { token, audiences: [controlAudience] },
    });
    if (status?.authenticated !== true || !(status.audiences ?? []).includes(controlAudience)) {
      return refused("unauthenticated", "the API server does not accept the token");
    }
    const { username = "", extra = {} } = status.user ?? {};
    const [, namespace] = /^system:serviceaccount:([a-z0-9-]+):[a-z0-9.-]+$/.exec(username) ?? [];
    const name = only(extra["authentication.kubernetes.io/pod-name"]);
    const uid = only(extra["authentication.kubernetes.io/pod-uid"]);
    if (namespace === undefined || name === undefined || uid === undefined) {
      return refused("notAGateway", "the token is not bound to a pod");
    }
    return this.check({ namespace, name, uid }, claims.expiresAt);
  }

  /** Looks at the pod again: it may be gone, another one, or no gateway of today any more. */
  async check(
    pod: { readonly namespace: string; readonly name: string; readonly uid: string },
    expiresAt: number,
  ): Promise<Authenticated> {
    if (expiresAt <= this.#now()) return refused("unauthenticated", "the token has expired");
    const live = await this.#options.client.find(pods, pod);
    // One that is being deleted still serves: its sessions drain, and how they ended is to be reported.
    if (live === undefined || live.metadata.uid !== pod.uid) return refused("notAGateway", "the pod is gone");
    const found = this.#options.isGateway(live);
    if (found.kind === "foreign") return refused("notAGateway", found.message);
    if (!found.resource.startsWith(`${pod.namespace}/`)) {
      return refused("notAGateway", "the resource is in another namespace");
    }
    return { kind: "gateway", resource: found.resource, pod, expiresAt };
  }
}

function refused(code: "unauthenticated" | "notAGateway", message: string): Authenticated {
  return { kind: "refused", code, message };
}

const only = (values: readonly string[] | undefined) => (values?.length === 1 ? values[0] : undefined);

/** What a token claims; believed only where it can refuse. */
function claimsOf(
  token: string,
): { readonly audiences: readonly unknown[]; readonly expiresAt: number } | undefined {
  try {
    const payload: unknown = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
    if (typeof payload !== "object" || payload === null) return undefined;
    const { aud, exp } = payload as { readonly aud?: unknown; readonly exp?: unknown };
    if (typeof exp !== "number") return undefined;
    return { audiences: Array.isArray(aud) ? aud : [aud], expiresAt: exp * 1000 };
  } catch {
    // Not a token at all.
    return undefined;
  }
}
