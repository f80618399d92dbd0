import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";

/** What the gateway counts. No user, statement or value is ever a label. */
export class Metrics {
  readonly registry = new Registry();
  readonly sessions = this.gauge("sallyport_sessions", "Live sessions", ["resource"]);
  readonly decisions = this.counter("sallyport_decisions_total", "Commands decided", ["resource", "action"]);
  readonly logins = this.counter("sallyport_logins_total", "Connections by how login ended", [
    "resource",
    "result",
  ]);
  readonly ended = this.counter("sallyport_sessions_ended_total", "Sessions ended by reason", [
    "resource",
    "reason",
  ]);
  readonly reloads = this.counter("sallyport_manifest_reloads_total", "Reloads by result", ["result"]);
  readonly manifestsAccepted = this.gauge(
    "sallyport_manifests_accepted",
    "1 while the last load was accepted",
    [],
  );
  readonly recordingUp = this.gauge("sallyport_recording_up", "1 while recordings can be written", []);

  constructor() {
    collectDefaultMetrics({ register: this.registry });
    this.recordingUp.set(1);
  }

  private counter<T extends string>(name: string, help: string, labelNames: readonly T[]): Counter<T> {
    return new Counter({ name, help, labelNames: [...labelNames], registers: [this.registry] });
  }

  private gauge<T extends string>(name: string, help: string, labelNames: readonly T[]): Gauge<T> {
    return new Gauge({ name, help, labelNames: [...labelNames], registers: [this.registry] });
  }
}
