/** Failures that people can repair: what happened, and what to do next. */
import { exitCodes } from "./terminal.ts";

/** Ends a command; the message and the next step go to stderr, the cause's message too where there is one. */
export class CliFailure extends Error {
  override readonly name = "CliFailure";
  readonly next: string;
  readonly exitCode: number;

  constructor(message: string, options: { next: string; cause?: unknown; exitCode?: number }) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.next = options.next;
    this.exitCode = options.exitCode ?? exitCodes.usage;
  }
}

/** Why something failed, in one line. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const known = systemReasons[(error as NodeJS.ErrnoException).code ?? ""];
  return known ?? error.message.split("\n", 1)[0] ?? error.name;
}

const systemReasons: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file or folder",
  EACCES: "permission denied",
  EISDIR: "it is a folder",
  ENOTDIR: "it is not a folder",
  EEXIST: "it exists already",
};
