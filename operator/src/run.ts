import { pino } from "pino";
import { collectDefaultMetrics, Registry } from "prom-client";
import { type OperatorConfiguration, readConfiguration } from "./configuration.ts";
import { connectionFrom, kubeClient, kubeMetrics } from "./kube/index.ts";
import { Operator } from "./operator.ts";

/** Runs the operator until SIGTERM or SIGINT; resolves with the process's exit code. */
export async function runOperator(): Promise<number> {
  let configuration: OperatorConfiguration;
  try {
    configuration = readConfiguration(process.env);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return 2;
  }
  const log = pino({ level: configuration.logLevel, base: null });
  process.on("unhandledRejection", (error) => {
    log.fatal({ err: error }, "a promise failed that nobody waited for");
    process.exit(1);
  });
  const stop = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => stop.abort(new Error(name)));
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 });
  const metrics = kubeMetrics(registry);
  const client = kubeClient({ connection: await connectionFrom(process.env), metrics });
  try {
    await new Operator({ client, configuration, registry, metrics, log }).run(stop.signal);
    return 0;
  } catch (error) {
    // A lost lease, too: whoever leads now must not have a second one beside it.
    log.fatal({ err: error }, "the operator ends");
    return 1;
  } finally {
    client.close();
  }
}
