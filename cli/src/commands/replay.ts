/** `sallyport replay`: what happened in a session, in order. */
import { once } from "node:events";
import type { Recorded, SessionSummary } from "@sallyport/sidecar";
import { type Command, InvalidArgumentError } from "commander";
import { asciicastLines } from "../asciicast.ts";
import { CliFailure } from "../failure.ts";
import { jsonText, type OutputFormat, withOutput } from "../output.ts";
import { servePlayerPage } from "../player-page.ts";
import { readRecordings } from "../recordings.ts";
import { exitCodes, type Invocation, type Terminal } from "../terminal.ts";

interface ReplayOptions {
  readonly follow: boolean;
  readonly asciicast?: number | true;
  readonly web?: number | true;
  readonly output: OutputFormat;
}

/** Adds options and action. */
export function configure(command: Command, { terminal }: Invocation): void {
  withOutput(command)
    .description("show what happened in a session: commands, decisions, results")
    .argument("<dir>", "folder of recordings")
    .argument("<session>", "the session's id, or its beginning")
    .option("-f, --follow", "go on until the session ends", false)
    .option("--asciicast [command]", "what a command printed as asciicast v2, by its number", parseNumber)
    .option("--web [command]", "what a command printed, in a player page on this machine", parseNumber)
    .addHelpText("after", example)
    .action(async (dir: string, session: string, { follow, output, asciicast, web }: ReplayOptions) => {
      await readRecordings(dir, terminal, async ({ listSessions, readSession, renderReplay }, folder) => {
        const { sessionId, state } = sessionNamed(session, await listSessions(folder), dir);
        // What a crash ended grows no more.
        const isFollowed = follow && state === "open";
        const records = readSession(folder, sessionId, isFollowed ? { follow, signal: terminal.stop } : {});
        if (web !== undefined) {
          await showPage(asciicastLines(records, web === true ? undefined : web), sessionId, terminal);
          return;
        }
        const lines =
          asciicast !== undefined
            ? asciicastLines(records, asciicast === true ? undefined : asciicast)
            : output === "json"
              ? jsonLines(records)
              : renderReplay(records);
        for await (const line of lines) {
          terminal.out(`${line}\n`);
          await terminal.drained();
        }
      });
    });
}

const example = `
With --output json each record is one line. Reading proves nothing: run \`sallyport verify\` first.

Examples:
  sallyport replay state/recordings 0198f3
  sallyport replay state/recordings 0198f3 --follow
  sallyport replay state/recordings 0198f3 --web`;

/** Serves the page until the person has seen it. */
async function showPage(lines: AsyncIterable<string>, sessionId: string, terminal: Terminal): Promise<void> {
  const cast: string[] = [];
  for await (const text of lines) cast.push(...text.split("\n"));
  if (cast.length === 0)
    throw new CliFailure("that session printed nothing", {
      next: "Name a command that did: sallyport replay … shows them with their numbers.",
      exitCode: exitCodes.finding,
    });
  const { url, close } = await servePlayerPage(cast, `Session ${sessionId}`);
  terminal.out(`${url}\n`);
  terminal.err("Open it in a browser on this machine; Ctrl-C ends it.\n");
  const { stop } = terminal;
  if (!stop.aborted) await once(stop, "abort");
  await close();
}

function parseNumber(given: string): number {
  const number = Number(given);
  if (!Number.isSafeInteger(number) || number < 1) throw new InvalidArgumentError("Give a command's number.");
  return number;
}

async function* jsonLines(records: AsyncIterable<Recorded>): AsyncGenerator<string, void, undefined> {
  for await (const record of records) yield jsonText(record);
}

function sessionNamed(start: string, sessions: readonly SessionSummary[], dir: string): SessionSummary {
  const exact = sessions.filter(({ sessionId }) => sessionId === start);
  const found =
    exact.length > 0
      ? exact
      : sessions.filter(({ sessionId }) => start !== "" && sessionId.startsWith(start));
  const [only, another] = found;
  if (only !== undefined && another === undefined) return only;
  if (only === undefined) {
    throw new CliFailure(`there is no session ${start}`, {
      next: `List them: sallyport sessions ${dir}`,
      exitCode: exitCodes.finding,
    });
  }
  throw new CliFailure(`${found.length} sessions begin with ${start}`, {
    next: `Write more of the id: ${found
      .slice(0, 5)
      .map(({ sessionId }) => sessionId)
      .join(", ")}${found.length > 5 ? ", …" : ""}`,
  });
}
