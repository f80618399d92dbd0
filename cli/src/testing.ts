/** Runs the command line inside a test, with a terminal that remembers. */
import { runCli } from "./program.ts";

/** What a run wrote and how it ended. */
export interface RunOutcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** What a test sets of the terminal; the folder that the person stands in is this package's test data. */
export interface RunSetting {
  readonly cwd?: string;
  readonly hasColours?: boolean;
  readonly columns?: number;
  readonly now?: number;
  readonly stop?: AbortSignal;
  /** Sees each text written to stdout. */
  readonly onOut?: (text: string) => void;
}

/** Where the command line's own test data lies. */
export const testdata: string = new URL("testdata", import.meta.url).pathname;

/** Runs `sallyport` with these arguments. */
export async function sallyport(argv: readonly string[], setting: RunSetting = {}): Promise<RunOutcome> {
  let out = "";
  let err = "";
  const code = await runCli(argv, {
    out: (text) => {
      out += text;
      setting.onOut?.(text);
    },
    drained: async () => {},
    err: (text) => {
      err += text;
    },
    hasColours: setting.hasColours ?? false,
    columns: setting.columns,
    cwd: setting.cwd ?? testdata,
    now: () => setting.now ?? Date.now(),
    stop: setting.stop ?? new AbortController().signal,
  });
  return { code, out, err };
}
