/** The control stream with 200 gateways and 1,000 policies: how long a change takes to be in a gateway's hands. */
import type { Bundle, BundleDocument } from "@sallyport/control";
import { ControlClient } from "@sallyport/sidecar/control";
import { startControlPlane } from "../targets/control-plane.ts";
import type { Row } from "./report.ts";

const gatewayCount = 200;
const policiesOfResource = 5;
const singleChanges = 1_000;
const changesPerSecond = 100;
const rounds = 20;

/** Measures single changes, at a hundred a second, and changes that concern every gateway at once. */
export async function controlStream(): Promise<Row[]> {
  const plane = await startControlPlane({ heartbeatMs: 5_000, silenceMs: 60_000, currentEveryMs: 20_000 });
  const clients: ControlClient[] = [];
  try {
    const sets = Array.from({ length: gatewayCount }, (_, index) => new PolicySetOf(`ns-${index}`));
    for (const set of sets) plane.bundles.set(set.resource, set.bundle());
    plane.bundles.markComplete();
    const waiting = new Map<string, { readonly text: string; readonly done: () => void }[]>();
    let ready = 0;
    for (const [index, set] of sets.entries()) {
      const client = new ControlClient({
        address: plane.address,
        caFile: plane.caFile,
        tokenFile: await plane.gatewayPod(set.resource, `uid-${index}`),
        version: "bench",
        resource: set.resource,
        log: { info: ignore, warn: ignore, error: ignore },
        handlers: {
          endSession: ignore,
          bundle: async (bundle) => {
            ready++;
            const found = waiting.get(set.resource) ?? [];
            const texts = new Set(bundle.documents.map(({ json }) => json));
            waiting.set(
              set.resource,
              found.filter(({ text, done }) => {
                if (!texts.has(text)) return true;
                done();
                return false;
              }),
            );
            return { accepted: true, problems: [] };
          },
        },
      });
      client.start();
      clients.push(client);
    }
    while (ready < gatewayCount) await pause(5);
    const delivered = (set: PolicySetOf, text: string): Promise<number> => {
      const changedAt = performance.now();
      return new Promise((resolve) => {
        const done = () => resolve(performance.now() - changedAt);
        waiting.set(set.resource, [...(waiting.get(set.resource) ?? []), { text, done }]);
        plane.bundles.set(set.resource, set.bundle());
      });
    };
    const single: Promise<number>[] = [];
    for (let n = 0; n < singleChanges; n++) {
      const set = sets[(n * 37) % sets.length];
      // Not changed again before it has arrived: of two quick changes only the last is sent, by design.
      if (set !== undefined) single.push(delivered(set, set.change(n)));
      await pause(1000 / changesPerSecond);
    }
    const singleMs = await Promise.all(single);
    const allMs: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const text = document("ClusterAccessPolicy//floor", `round ${round}`);
      const all = sets.map((set) => {
        set.floor = text;
        return delivered(set, text.json);
      });
      allMs.push(...(await Promise.all(all)));
    }
    const state = `${gatewayCount} gateways, ${gatewayCount * policiesOfResource} policies`;
    return [
      row("policy change to its gateway, p99", singleMs, `${state}, ${changesPerSecond} changes a second`),
      row("floor change to every gateway, p99", allMs, `${state}, ${rounds} rounds`),
    ];
  } finally {
    await Promise.all(clients.map((client) => client.stop()));
    await plane.stop();
  }
}

/** The documents of one resource as they change. */
class PolicySetOf {
  readonly resource: string;
  floor = document("ClusterAccessPolicy//floor", "first");
  readonly #namespace: string;
  readonly #policies: BundleDocument[];

  constructor(namespace: string) {
    this.#namespace = namespace;
    this.resource = `${namespace}/db`;
    this.#policies = Array.from({ length: policiesOfResource }, (_, at) =>
      document(`AccessPolicy/${namespace}/p-${at}`, "first"),
    );
  }

  bundle(): Bundle {
    return { revision: {}, documents: [...this.#policies, this.floor] };
  }

  /** Changes one policy and answers its new text. */
  change(n: number): string {
    const at = n % policiesOfResource;
    const changed = document(`AccessPolicy/${this.#namespace}/p-${at}`, `change ${n}`);
    this.#policies[at] = changed;
    return changed.json;
  }
}

/** A document of the size of an ordinary policy. */
function document(key: string, mark: string): BundleDocument {
  const rules = Array.from({ length: 6 }, (_, at) => ({
    name: `rule-${at}`,
    match: {
      operations: ["read", "write"],
      objects: [`public.table_${at}`],
      cel: 'identity.user == "okta:a"',
    },
    action: "Allow",
  }));
  return {
    key,
    json: JSON.stringify({ kind: key.split("/")[0], metadata: { name: key, mark }, spec: { rules } }),
  };
}

function row(work: string, values: readonly number[], note: string): Row {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)] ?? 0;
  const p99 = at(0.99);
  const detail = `${text(p99)}; median ${text(at(0.5))}; ${note}`;
  return { work, against: "limit", ratio: 1000 / p99, atLeast: 1, detail };
}

const text = (ms: number) => `${ms.toFixed(0)} ms`;
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const ignore = () => undefined;
