/** `sallyport sessions`: which sessions a folder of recordings holds. */
import type { SessionSummary } from "@sallyport/sidecar";
import { type Command, Option } from "commander";
import { type OutputFormat, table, withOutput, writeJson } from "../output.ts";
import { readRecordings } from "../recordings.ts";
import type { Invocation } from "../terminal.ts";
import { parseResource, type ResourceName } from "../values.ts";

interface SessionsOptions {
  readonly user?: string;
  readonly resource?: ResourceName;
  readonly state?: SessionSummary["state"];
  readonly refused: boolean;
  readonly output: OutputFormat;
}

/** Adds options and action. */
export function configure(command: Command, { terminal }: Invocation): void {
  withOutput(command)
    .description("list the recorded sessions of a folder, oldest first")
    .argument("<dir>", "folder of recordings")
    .option("--user <name>", "only this user's, with the provider's prefix")
    .option("--resource <ns/name>", "only this resource's", parseResource)
    .addOption(new Option("--state <state>", "only these").choices(["open", "closed", "torn", "pruned"]))
    .option("--refused", "only those in which something was refused", false)
    .addHelpText("after", "\nExamples:\n  sallyport sessions state/recordings --user local:alice")
    .action(async (dir: string, options: SessionsOptions) => {
      const all = await readRecordings(dir, terminal, ({ listSessions }, folder) => listSessions(folder));
      const sessions = all.filter((session) => isWanted(session, options));
      if (options.output === "json") writeJson(terminal, sessions.map(withTimes));
      else if (sessions.length > 0) terminal.out(table(headings, sessions.map(rowOf), terminal.columns));
      else terminal.err(all.length === 0 ? "No session is recorded here.\n" : "No session matches.\n");
    });
}

const headings = [
  "SESSION",
  "STARTED",
  "LASTED",
  "STATE",
  "USER",
  "RESOURCE",
  "DATABASE",
  "COMMANDS",
  "REFUSED",
];

function isWanted(session: SessionSummary, { user, resource, state, refused }: SessionsOptions): boolean {
  if (user !== undefined && session.user !== user) return false;
  if (state !== undefined && session.state !== state) return false;
  if (refused && (session.refused ?? 0) === 0) return false;
  return (
    resource === undefined || (session.namespace === resource.namespace && session.resource === resource.name)
  );
}

function rowOf(session: SessionSummary): readonly string[] {
  const { startedAt, endedAt, commands, refused } = session;
  return [
    session.sessionId,
    timeText(startedAt)?.replace(/\.\d+Z$/, "Z") ?? "?",
    endedAt === undefined ? "-" : durationText(endedAt - startedAt),
    session.state,
    session.user,
    `${session.namespace}/${session.resource}`,
    session.database,
    // An open session's counts are known when it closes.
    commands?.toString() ?? "-",
    refused?.toString() ?? "-",
  ];
}

function withTimes(session: SessionSummary): object {
  const { startedAt, endedAt } = session;
  return {
    ...session,
    startedAt: timeText(startedAt),
    endedAt: endedAt === undefined ? null : timeText(endedAt),
  };
}

/** Undefined where what was recorded is no time. */
function timeText(ms: number): string | undefined {
  return Number.isFinite(ms) && Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : undefined;
}

function durationText(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${seconds % 60}s`;
  return `${Math.floor(seconds / 3600)}h${Math.floor((seconds % 3600) / 60)}m`;
}
