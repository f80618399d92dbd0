import { type ApprovedWindow, controlLimits } from "@sallyport/control";
import type { Approval } from "@sallyport/crds";
import type { Told } from "../control/index.ts";
import { keyOf } from "../kube/index.ts";
import {
  isBorneOut,
  knownHash,
  type OperatorCaches,
  type PolicyBook,
  rulesInForce,
} from "../resources/index.ts";

/** What tells gateways of windows. */
export interface WindowDeskParts {
  readonly caches: Pick<
    OperatorCaches,
    | "approvals"
    | "protectedResources"
    | "accessPolicies"
    | "clusterAccessPolicies"
    | "namespaces"
    | "revisions"
  >;
  readonly book: Pick<PolicyBook, "forResource">;
  /** Tells every gateway of a resource that is connected here. */
  readonly tell: (resource: string, windows: readonly ApprovedWindow[]) => void;
  readonly clock: () => Date;
}

const timerMsMax = 86_400_000;

/**
 * Tells the gateways of each resource which windows are open there: what was approved with `grant: Window`, as long as the
 * rule is the one that was approved. The whole list each time, so that what ended or was taken back is gone from it; every
 * replica tells its own gateways.
 */
export class WindowDesk {
  readonly #parts: WindowDeskParts;
  readonly #told = new Map<string, { readonly text: string; readonly endsAt: number }>();
  readonly #dirty = new Set<string>();
  #flushing: NodeJS.Immediate | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: WindowDeskParts) {
    this.#parts = parts;
    const { caches } = parts;
    caches.approvals.onChange(({ object }) => this.#touch(resourceKey(object)));
    caches.protectedResources.onChange(({ object }) => this.#touch(keyOf(object.metadata)));
    // Which rules are in force is worked out anew for the few resources that have windows at all.
    const all = () => {
      for (const key of this.#told.keys()) this.#touch(key);
    };
    for (const cache of [
      caches.accessPolicies,
      caches.clusterAccessPolicies,
      caches.namespaces,
      caches.revisions,
    ])
      (cache as typeof caches.accessPolicies).onChange(all);
  }

  /** A gateway has come: it learns what is open, and what it knew and is not in the list is over. */
  joined(resource: string, stream: Told): void {
    stream.tell({ kind: "windows", windows: this.#windows(resource) });
  }

  close(): void {
    clearTimeout(this.#timer);
    if (this.#flushing !== undefined) clearImmediate(this.#flushing);
  }

  #touch(resource: string): void {
    this.#dirty.add(resource);
    this.#flushing ??= setImmediate(() => this.#flush());
  }

  #flush(): void {
    this.#flushing = undefined;
    const keys = [...this.#dirty];
    this.#dirty.clear();
    for (const key of keys) {
      const windows = this.#windows(key);
      const text = JSON.stringify(windows);
      if ((this.#told.get(key)?.text ?? "[]") === text) continue;
      if (windows.length === 0) this.#told.delete(key);
      else this.#told.set(key, { text, endsAt: Math.min(...windows.map(({ until }) => until)) });
      this.#parts.tell(key, windows);
    }
    this.#wakeAtNextEnd();
  }

  /** A window ends by the clock as well, whoever leads and whether or not its object says so already. */
  #wakeAtNextEnd(): void {
    clearTimeout(this.#timer);
    const now = this.#parts.clock().getTime();
    if (this.#told.size === 0) return;
    const nextEnd = Math.min(...[...this.#told.values()].map(({ endsAt }) => endsAt));
    this.#timer = setTimeout(
      () => {
        for (const key of this.#told.keys()) this.#touch(key);
      },
      Math.min(timerMsMax, Math.max(1, nextEnd - now)),
    );
    this.#timer.unref();
  }

  #windows(resource: string): readonly ApprovedWindow[] {
    const { caches, book, clock } = this.#parts;
    const now = clock().getTime();
    const slash = resource.indexOf("/");
    const [namespace, name] = [resource.slice(0, slash), resource.slice(slash + 1)];
    const served = caches.protectedResources.get({ namespace, name });
    return caches.approvals
      .list(namespace)
      .filter(({ spec, status }) => spec.request.resource === name && status?.phase === "Approved")
      .filter(
        (approval) =>
          served !== undefined && isOfThis(served.metadata as Created, approval.metadata as Created),
      )
      .flatMap((approval) => windowsOf(approval, rulesInForce(approval, book, caches), now))
      .toSorted((a, b) => (`${a.approval} ${a.ruleText}` < `${b.approval} ${b.ruleText}` ? -1 : 1))
      .slice(0, controlLimits.windowsMax);
  }
}

/** Whether a request can be about a resource: what was approved of one that is gone is not approved of another of its name. */
export function isOfThis(resource: Created, approval: Created): boolean {
  const [since, asked] = [resource, approval].map((one) => Date.parse(one.creationTimestamp ?? "")) as [
    number,
    number,
  ];
  return asked >= since;
}

interface Created {
  readonly creationTimestamp?: string;
}

/** The windows that one Approval opens now: of rules that are word for word those that were approved. */
export function windowsOf(
  approval: Approval,
  rules: ReturnType<typeof rulesInForce>,
  nowMs: number,
): readonly ApprovedWindow[] {
  const { spec, status, metadata } = approval;
  const until = Date.parse(status?.grantedUntil ?? "");
  const isOpen = status?.phase === "Approved" && spec.revocation === undefined && until > nowMs;
  if (!isOpen || !isBorneOut(approval)) return [];
  const { requester, subject } = spec.request;
  // For an agent that has asked by itself, the object does not say whom it acts for: its sessions do.
  const approvedBy = (spec.decisions ?? []).map(({ approver }) => approver);
  return spec.request.policies.flatMap((_, place) => {
    const found = rules[place];
    const approved = knownHash(approval, place);
    if (found === undefined || found.ruleHash !== approved || found.terms.grant !== "Window") return [];
    const { ruleText } = found.terms;
    const window = { approval: metadata.name, requester, approvedBy, ruleText, until };
    return [subject === undefined ? window : { ...window, subject }];
  });
}

const resourceKey = ({ metadata, spec }: Approval): string =>
  `${metadata.namespace ?? ""}/${spec.request.resource}`;
