/** The `sallyport` command line, for tests and the demo; `main.ts` runs it as a process. */
export { runCli } from "./program.ts";
export type { Terminal } from "./terminal.ts";
