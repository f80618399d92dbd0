import { pino } from "pino";
import { type GatewayConfiguration, readConfiguration } from "./configuration.ts";
import { Gateway } from "./gateway.ts";
import { runPart } from "./part.ts";
import { Processes, processVariable } from "./processes.ts";

export { type GatewayOption, gatewayOptions } from "./configuration.ts";

/** Runs the gateway until SIGTERM or SIGINT; resolves with the process's exit code. */
export async function runGateway(flags: Readonly<Record<string, string | undefined>>): Promise<number> {
  let configuration: GatewayConfiguration;
  try {
    configuration = readConfiguration(flags, process.env);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return 2;
  }
  const number = process.send === undefined ? undefined : process.env[processVariable];
  const base = number === undefined ? null : { process: Number(number) };
  const log = pino({ level: configuration.logLevel, base });
  if (number !== undefined && configuration.processes > 1) {
    try {
      return await runPart(configuration, log, Number(number));
    } catch (error) {
      failed(error);
      // It serves nobody and writes nothing; the channel to the first process would keep it alive.
      process.exit(1);
    }
  }
  const gateway =
    configuration.processes > 1 ? new Processes(configuration, log) : new Gateway(configuration, log);
  const stopped = new Promise<void>((resolve) => {
    process.once("SIGTERM", resolve);
    process.once("SIGINT", resolve);
  });
  try {
    await gateway.start();
  } catch (error) {
    const code = failed(error);
    // What is open by then, a port or a recording, would keep the process alive and serve on.
    await gateway.stop();
    return code;
  }
  await stopped;
  await gateway.stop();
  return 0;
}

function failed(error: unknown): number {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  return 1;
}
