/** `sallyport recorder`: the recorder itself, in this process. */
import { recorderOptions } from "@sallyport/sidecar/recorder-options";
import { type Command, Option } from "commander";
import type { Invocation } from "../terminal.ts";

/** Adds the recorder's own options, and its action. */
export function configure(command: Command, invocation: Invocation): void {
  command.description("run the recorder: gateways stream to it, and auditors replay from it, until SIGTERM");
  for (const { flag, argument, env, description, default: fallback } of recorderOptions) {
    const shown = fallback === undefined || fallback === "" ? "" : `; default: ${fallback}`;
    command.addOption(new Option(`--${flag} <${argument.toLowerCase()}>`, `${description} (${env}${shown})`));
  }
  command.addHelpText("after", help).action(async () => {
    const { runRecorder } = await import("@sallyport/sidecar/recorder");
    const given = recorderOptions.flatMap(({ flag }) => {
      const value: unknown = command.getOptionValue(attributeOf(flag));
      return typeof value === "string" ? [[flag, value] as const] : [];
    });
    invocation.exitCode = await runRecorder(Object.fromEntries(given));
  });
}

const help = `
Each flag has an environment variable of the same name; the flag wins.

Example:
  sallyport recorder --volume /var/lib/recordings --tls /tls --gateway-ca /ca/gateway.crt \\
    --signing-key /keys/recorder.key.pem --wrapping-keys /keys/wrapping --listen 0.0.0.0:7444 --api 0.0.0.0:7445`;

const attributeOf = (flag: string): string =>
  flag.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
