import { once } from "node:events";
import type { Command } from "commander";

/** What a command meets of its surroundings; tests hand in their own. */
export interface Terminal {
  /** Writes results: what a pipe is meant to carry. */
  out(text: string): void;
  /** Resolves when what was written is on its way; whoever writes without end waits for it. */
  drained(): Promise<void>;
  /** Writes what goes wrong and what to do next. */
  err(text: string): void;
  /** True where colours help a person; false in pipes, files and under NO_COLOR. */
  readonly hasColours: boolean;
  /** Where long tables are cut; undefined where nobody looks. */
  readonly columns: number | undefined;
  readonly cwd: string;
  /** Milliseconds since the epoch. */
  now(): number;
  /** Aborts when the person wants to stop. */
  readonly stop: AbortSignal;
}

/** One run of the command line: commands write to its terminal and leave their exit code. */
export interface Invocation {
  readonly terminal: Terminal;
  exitCode: number;
  /** The whole tree of commands, every one of them loaded; for completion. */
  readonly commandTree: () => Promise<Command>;
}

/** 0: done. 1: something was found or refused. 2: the command could not be understood or its input not read. */
export const exitCodes = { ok: 0, finding: 1, usage: 2 } as const;

/** As a shell reports a process that SIGPIPE ended. */
const brokenPipeExitCode = 141;

/** The terminal of this process. */
export function processTerminal(): Terminal {
  let stop: AbortController | undefined;
  // `sallyport sessions | head` closes the pipe: that is an end, and no defect; but nothing was found out to be good.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(process.exitCode ?? brokenPipeExitCode);
    throw error;
  });
  return {
    out: (text) => void process.stdout.write(text),
    drained: async () => {
      if (process.stdout.writableNeedDrain) await once(process.stdout, "drain");
    },
    err: (text) => void process.stderr.write(text),
    hasColours: process.stdout.isTTY === true && (process.env.NO_COLOR ?? "") === "",
    columns: process.stdout.isTTY === true ? process.stdout.columns : undefined,
    cwd: process.cwd(),
    now: () => Date.now(),
    // Signals end a process that nobody asks this of.
    get stop() {
      if (stop === undefined) {
        const controller = new AbortController();
        for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => controller.abort());
        stop = controller;
      }
      return stop.signal;
    },
  };
}
