/** IdentityProvider: refuses what would let one provider speak for another's people. */
import type { IdentityProvider } from "@sallyport/crds";
import type { EventRecorder, KubeClient } from "../../kube/index.ts";
import type { Reconciler } from "../../reconcile/index.ts";
import { type Problem, writeAccepted } from "../accepted.ts";
import { byAge, type OperatorCaches } from "../caches.ts";
import { kinds } from "../kinds.ts";

/** What the controller is made of. */
export interface ProviderControllerParts {
  readonly client: KubeClient;
  readonly caches: Pick<OperatorCaches, "identityProviders">;
  readonly events: EventRecorder;
  readonly clock: () => Date;
}

interface Observed {
  readonly provider: IdentityProvider;
  readonly others: readonly IdentityProvider[];
}

interface Decision {
  readonly provider: IdentityProvider;
  readonly problem: Problem | undefined;
}

/** Types of providers that gateways of this release can verify. */
const supportedTypes: ReadonlySet<string> = new Set(["oidc", "local", "kubernetes"]);

/** Why a provider is not used; undefined where it is. Gateways are given accepted providers only. */
export function providerProblem(
  provider: IdentityProvider,
  all: readonly IdentityProvider[],
): Problem | undefined {
  const { type, prefix, kubernetes } = provider.spec;
  if (!supportedTypes.has(type) || (type === "kubernetes" && kubernetes?.verification === "TokenReview")) {
    const what = type === "kubernetes" ? "verification by TokenReview" : `type ${type}`;
    return { reason: "NotEnforceable", message: `This release cannot use ${what} yet.` };
  }
  // A prefix is the provider's name in every policy: the elder keeps it.
  const elder = all
    .filter((other) => other.spec.prefix === prefix)
    .toSorted(byAge)
    .find(({ metadata }) => metadata.name !== provider.metadata.name);
  if (elder !== undefined && byAge(elder, provider) < 0) {
    return { reason: "PrefixTaken", message: `The prefix ${prefix} is that of ${elder.metadata.name}.` };
  }
  return undefined;
}

/** Makes the controller's reconciler. */
export function providerReconciler(
  parts: ProviderControllerParts,
): Reconciler<Observed | undefined, Decision | undefined> {
  const { client, caches, events, clock } = parts;
  return {
    observe: async ({ ref }) => {
      const provider = caches.identityProviders.get(ref);
      return provider === undefined ? undefined : { provider, others: caches.identityProviders.list() };
    },
    decide: (observed) => {
      if (observed === undefined) return undefined;
      const { provider, others } = observed;
      return { provider, problem: providerProblem(provider, others) };
    },
    act: async (decision, { signal }) => {
      if (decision === undefined) return { kind: "done" };
      await writeAccepted({
        ...{ client, events, signal, now: clock() },
        type: kinds.identityProvider,
        object: decision.provider,
        message: "Gateways may use the provider.",
        problem: decision.problem,
        fieldManager: "sallyport-identity-provider-status",
      });
      return { kind: "done" };
    },
  };
}
