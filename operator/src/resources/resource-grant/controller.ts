/** ResourceGrant: tells whether what it opens is there. What it opens is decided where a resource's reach is. */
import type { ResourceGrant } from "@sallyport/crds";
import type { EventRecorder, KubeClient } from "../../kube/index.ts";
import type { Reconciler } from "../../reconcile/index.ts";
import { type Problem, writeAccepted } from "../accepted.ts";
import type { OperatorCaches } from "../caches.ts";
import { kinds } from "../kinds.ts";

/** What the controller is made of. */
export interface GrantControllerParts {
  readonly client: KubeClient;
  readonly caches: Pick<OperatorCaches, "resourceGrants" | "services">;
  readonly events: EventRecorder;
  readonly clock: () => Date;
}

interface Decision {
  readonly grant: ResourceGrant;
  readonly problem: Problem | undefined;
}

/** Makes the controller's reconciler. */
export function grantReconciler(
  parts: GrantControllerParts,
): Reconciler<
  { readonly grant: ResourceGrant; readonly services: ReadonlySet<string> } | undefined,
  Decision | undefined
> {
  const { client, caches, events, clock } = parts;
  return {
    observe: async ({ ref }) => {
      const grant = caches.resourceGrants.get(ref);
      const services = caches.services.list(ref.namespace).map(({ metadata }) => metadata.name);
      return grant && { grant, services: new Set(services) };
    },
    decide: (observed) =>
      observed && { grant: observed.grant, problem: grantProblem(observed.grant, observed.services) },
    act: async (decision, { signal }) => {
      if (decision === undefined) return { kind: "done" };
      await writeAccepted({
        ...{ client, events, signal, now: clock() },
        type: kinds.resourceGrant,
        object: decision.grant,
        message: "Whoever it names may reach what it names.",
        problem: decision.problem,
        fieldManager: "sallyport-resource-grant-status",
      });
      return { kind: "done" };
    },
  };
}

/** A Service that is not there opens nothing; which pods a selector finds changes all the time. */
export function grantProblem(grant: ResourceGrant, services: ReadonlySet<string>): Problem | undefined {
  const missing = grant.spec.to.flatMap(({ serviceName }) =>
    serviceName === undefined || services.has(serviceName) ? [] : [serviceName],
  );
  if (missing.length === 0) return undefined;
  return {
    reason: "ServiceNotFound",
    message: `There is no Service ${missing.slice(0, 10).join(", ")} here.`,
  };
}
