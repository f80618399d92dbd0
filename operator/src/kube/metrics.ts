/** What the loops count, under the names that controller-runtime's dashboards know. */
import { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** The instruments of queues, watches, calls and the lease. */
export interface KubeMetrics {
  readonly requests: Counter<"method" | "code">;
  readonly watchRestarts: Counter<"kind" | "reason">;
  readonly lists: Counter<"kind">;
  readonly cached: Gauge<"kind">;
  readonly queueDepth: Gauge<"name">;
  readonly queueAdds: Counter<"name">;
  readonly queueRetries: Counter<"name">;
  readonly queueSeconds: Histogram<"name">;
  readonly workSeconds: Histogram<"name">;
  readonly unfinishedSeconds: Gauge<"name">;
  readonly longestRunningSeconds: Gauge<"name">;
  readonly leader: Gauge<"name">;
  readonly reconciles: Counter<"controller" | "result">;
  readonly reconcileErrors: Counter<"controller">;
  readonly reconcileSeconds: Histogram<"controller">;
  readonly activeWorkers: Gauge<"controller">;
  /** Called when the gauges of running work are read: they change by themselves. */
  readonly samplers: Set<() => void>;
}

/** Makes the instruments in a registry. */
export function kubeMetrics(registry: Registry): KubeMetrics {
  const registers = [registry];
  const samplers = new Set<() => void>();
  const name = ["name"] as const;
  const kind = ["kind"] as const;
  const controller = ["controller"] as const;
  return {
    samplers,
    requests: new Counter({
      name: "rest_client_requests_total",
      help: "Calls to the API server by method and status; <error> where no answer came",
      labelNames: ["method", "code"],
      registers,
    }),
    watchRestarts: new Counter({
      name: "sallyport_watch_restarts_total",
      help: "Watches begun again, by kind and why",
      labelNames: ["kind", "reason"],
      registers,
    }),
    lists: new Counter({
      name: "sallyport_lists_total",
      help: "Complete lists read, by kind",
      labelNames: kind,
      registers,
    }),
    cached: new Gauge({
      name: "sallyport_cached_objects",
      help: "Objects kept in memory, by kind",
      labelNames: kind,
      registers,
    }),
    queueDepth: new Gauge({
      name: "workqueue_depth",
      help: "Keys that wait for a worker",
      labelNames: name,
      registers,
    }),
    queueAdds: new Counter({
      name: "workqueue_adds_total",
      help: "Keys added",
      labelNames: name,
      registers,
    }),
    queueRetries: new Counter({
      name: "workqueue_retries_total",
      help: "Keys added again after a failure",
      labelNames: name,
      registers,
    }),
    queueSeconds: new Histogram({
      name: "workqueue_queue_duration_seconds",
      help: "How long keys wait for a worker",
      labelNames: name,
      buckets,
      registers,
    }),
    workSeconds: new Histogram({
      name: "workqueue_work_duration_seconds",
      help: "How long a key is worked on",
      labelNames: name,
      buckets,
      registers,
    }),
    unfinishedSeconds: new Gauge({
      name: "workqueue_unfinished_work_seconds",
      help: "Seconds of work in progress that no duration counts yet",
      labelNames: name,
      collect: () => {
        for (const sample of samplers) sample();
      },
      registers,
    }),
    longestRunningSeconds: new Gauge({
      name: "workqueue_longest_running_processor_seconds",
      help: "How long the oldest work in progress has run",
      labelNames: name,
      registers,
    }),
    leader: new Gauge({
      name: "leader_election_master_status",
      help: "1 where this process holds the lease",
      labelNames: name,
      registers,
    }),
    reconciles: new Counter({
      name: "controller_runtime_reconcile_total",
      help: "Reconciliations by result: success, requeue_after, conflict, error, terminal_error",
      labelNames: ["controller", "result"],
      registers,
    }),
    reconcileErrors: new Counter({
      name: "controller_runtime_reconcile_errors_total",
      help: "Reconciliations that failed",
      labelNames: controller,
      registers,
    }),
    reconcileSeconds: new Histogram({
      name: "controller_runtime_reconcile_time_seconds",
      help: "How long a reconciliation takes",
      labelNames: controller,
      buckets,
      registers,
    }),
    activeWorkers: new Gauge({
      name: "controller_runtime_active_workers",
      help: "Workers that reconcile just now",
      labelNames: controller,
      registers,
    }),
  };
}

const buckets = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
