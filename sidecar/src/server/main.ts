import { pino } from "pino";
import { type GatewayConfiguration, readConfiguration } from "./configuration.ts";
import { Gateway } from "./gateway.ts";

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
  const log = pino({ level: configuration.logLevel, base: null });
  const gateway = new Gateway(configuration, log);
  const stopped = new Promise<void>((resolve) => {
    process.once("SIGTERM", resolve);
    process.once("SIGINT", resolve);
  });
  try {
    await gateway.start();
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  }
  await stopped;
  await gateway.stop();
  return 0;
}
