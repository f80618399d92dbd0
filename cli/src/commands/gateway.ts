/** `sallyport gateway`: the gateway itself, in this process. */
import { gatewayOptions } from "@sallyport/sidecar/gateway-options";
import { type Command, Option } from "commander";
import type { Invocation } from "../terminal.ts";

/** Adds the gateway's own options, and its action. */
export function configure(command: Command, invocation: Invocation): void {
  command.description("run the gateway in front of the resources of a folder of manifests, until SIGTERM");
  for (const { flag, argument, env, description, default: fallback } of gatewayOptions) {
    const shown = fallback === undefined || fallback === "" ? "" : `; default: ${fallback}`;
    command.addOption(new Option(`--${flag} <${argument.toLowerCase()}>`, `${description} (${env}${shown})`));
  }
  command.addHelpText("after", help).action(async () => {
    const { runGateway } = await import("@sallyport/sidecar/server");
    // Flags by the gateway's own names; it reads the environment for what was not given.
    const given = gatewayOptions.flatMap(({ flag }) => {
      const value: unknown = command.getOptionValue(attributeOf(flag));
      return typeof value === "string" ? [[flag, value] as const] : [];
    });
    invocation.exitCode = await runGateway(Object.fromEntries(given));
  });
}

const help = `
Each flag has an environment variable of the same name; the flag wins.

Example:
  sallyport gateway --manifests manifests/ --state /var/lib/sallyport`;

const attributeOf = (flag: string): string =>
  flag.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
