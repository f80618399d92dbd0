/** `sallyport policy`: policies tested and explained without a gateway or a server. */
import type { Command } from "commander";
import type { Invocation } from "../terminal.ts";
import { configure as configureExplain } from "./policy-explain.ts";
import { configure as configureTest } from "./policy-test.ts";

/** Adds the subcommands. */
export function configure(command: Command, invocation: Invocation): void {
  configureTest(command.command("test").summary("run case files"), invocation);
  configureExplain(command.command("explain").summary("say why a statement is decided as it is"), invocation);
}
