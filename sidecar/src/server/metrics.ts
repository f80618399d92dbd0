import type { VerdictAction } from "@sallyport/policy";
import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";

const actions = ["Allow", "Deny", "RequireApproval"] as const;

/** How many commands were decided which way. */
export type DecisionCounts = Record<VerdictAction, number>;

/** What the gateway counts. No user, statement or value is ever a label. */
export class Metrics {
  readonly registry = new Registry();
  readonly sessions = this.gauge("sallyport_sessions", "Live sessions", ["resource"]);
  private readonly decided = new Map<string, DecisionCounts>();
  readonly logins = this.counter("sallyport_logins_total", "Connections by how login ended", [
    "resource",
    "result",
  ]);
  readonly ended = this.counter("sallyport_sessions_ended_total", "Sessions ended by reason", [
    "resource",
    "reason",
  ]);
  readonly lockOuts = this.counter("sallyport_login_lockouts_total", "Lock-outs after failed logins", [
    "resource",
    "by",
  ]);
  readonly limits = this.counter(
    "sallyport_limits_reached_total",
    "Statements that reached a limit of policy",
    ["resource", "limit"],
  );
  readonly masked = this.counter("sallyport_masked_values_total", "Values of masked columns hidden", [
    "resource",
  ]);
  readonly patterns = this.counter("sallyport_patterns_found_total", "Patterns found in values and hidden", [
    "resource",
    "pattern",
  ]);
  readonly approvals = this.counter(
    "sallyport_approvals_total",
    "Commands that were held for approval, by what became of them",
    ["resource", "event"],
  );
  readonly breakGlass = this.counter(
    "sallyport_break_glass_total",
    "Commands that went past approval with a reason",
    ["resource"],
  );
  readonly handOvers = this.counter(
    "sallyport_cancels_handed_over_total",
    "Cancel requests that other gateways of the resource were asked about, by result",
    ["resource", "result"],
  );
  readonly reloads = this.counter("sallyport_manifest_reloads_total", "Reloads by result", ["result"]);
  readonly manifestsAccepted = this.gauge(
    "sallyport_manifests_accepted",
    "1 while the last load was accepted",
    [],
  );
  readonly recordingUp = this.gauge("sallyport_recording_up", "1 while recordings can be written", []);

  /** `process` tells several processes apart: counters of one that was started again begin anew. */
  constructor(process?: number) {
    if (process !== undefined) this.registry.setDefaultLabels({ process: String(process) });
    // Its 10 ms would wake an idle gateway a hundred times a second.
    collectDefaultMetrics({ register: this.registry, eventLoopMonitoringPrecision: 100 });
    this.recordingUp.set(1);
    const { decided } = this;
    new Counter({
      name: "sallyport_decisions_total",
      help: "Commands decided",
      labelNames: ["resource", "action"],
      registers: [this.registry],
      // Counted in plain numbers and handed over when somebody looks: labels cost more than the rest of a count.
      collect() {
        this.reset();
        for (const [resource, counts] of decided) {
          for (const action of actions) this.inc({ resource, action }, counts[action]);
        }
      },
    });
  }

  /** The running counts of a resource's decisions, for the data path to add to. */
  decisionsOf(resource: string): DecisionCounts {
    const counts = this.decided.get(resource) ?? { Allow: 0, Deny: 0, RequireApproval: 0 };
    this.decided.set(resource, counts);
    return counts;
  }

  private counter<T extends string>(name: string, help: string, labelNames: readonly T[]): Counter<T> {
    return new Counter({ name, help, labelNames: [...labelNames], registers: [this.registry] });
  }

  private gauge<T extends string>(name: string, help: string, labelNames: readonly T[]): Gauge<T> {
    return new Gauge({ name, help, labelNames: [...labelNames], registers: [this.registry] });
  }
}
