/** `sallyport replay`: what happened in a session, in order. */
import type { SessionSummary } from "@sallyport/sidecar";
import type { Command } from "commander";
import { CliFailure } from "../failure.ts";
import { jsonText, type OutputFormat, withOutput } from "../output.ts";
import { readRecordings } from "../recordings.ts";
import { exitCodes, type Invocation } from "../terminal.ts";

interface ReplayOptions {
  readonly follow: boolean;
  readonly output: OutputFormat;
}

/** Adds options and action. */
export function configure(command: Command, { terminal }: Invocation): void {
  withOutput(command)
    .description("show what happened in a session: commands, decisions, results")
    .argument("<dir>", "folder of recordings")
    .argument("<session>", "the session's id, or its beginning")
    .option("-f, --follow", "go on until the session ends", false)
    .addHelpText("after", example)
    .action(async (dir: string, session: string, { follow, output }: ReplayOptions) => {
      await readRecordings(dir, terminal, async ({ listSessions, readSession, renderReplay }, folder) => {
        const sessionId = sessionNamed(session, await listSessions(folder), dir);
        const records = readSession(folder, sessionId, follow ? { follow, signal: terminal.stop } : {});
        if (output === "json") for await (const record of records) terminal.out(`${jsonText(record)}\n`);
        else for await (const line of renderReplay(records)) terminal.out(`${line}\n`);
      });
    });
}

const example = `
With --output json each record is one line. Reading proves nothing: run \`sallyport verify\` first.

Examples:
  sallyport replay state/recordings 0198f3
  sallyport replay state/recordings 0198f3 --follow`;

function sessionNamed(start: string, sessions: readonly SessionSummary[], dir: string): string {
  const ids = sessions.map(({ sessionId }) => sessionId);
  const found = ids.includes(start) ? [start] : ids.filter((id) => start !== "" && id.startsWith(start));
  const [only, another] = found;
  if (only !== undefined && another === undefined) return only;
  if (only === undefined) {
    throw new CliFailure(`there is no session ${start}`, {
      next: `List them: sallyport sessions ${dir}`,
      exitCode: exitCodes.finding,
    });
  }
  throw new CliFailure(`${found.length} sessions begin with ${start}`, {
    next: `Write more of the id: ${found.slice(0, 5).join(", ")}${found.length > 5 ? ", …" : ""}`,
  });
}
