/**
 * The golden corpus: what analysis says of each statement, and what the profiles make of it. `UPDATE_GOLDEN=1` writes
 * the answers anew; read the difference before committing it. `e2e/scenarios/analysis-confirmed.test.ts` asks a server.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { compilePolicies } from "../compile.ts";
import { forSession, type SessionPolicy } from "../evaluate.ts";
import type { CommandPart } from "../model.ts";
import { type ProfileName, profileNames } from "../profiles.ts";
import { analyseSql } from "./analyse.ts";
import type { Analysis } from "./analysis.ts";
import { loadSqlParser } from "./parser.ts";
import { testNames } from "./testing.ts";

interface CorpusCase {
  readonly sql: string;
  readonly tags?: string;
  readonly parts?: readonly string[];
  readonly effects?: string;
  readonly rejected?: string;
  readonly allowed?: string;
  readonly server?: unknown;
}

const folder = new URL("../../testdata/sql/", import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith(".yaml"));

beforeAll(loadSqlParser);

describe.each(files)("%s", (name) => {
  const path = new URL(name, folder);
  const cases = parse(readFileSync(path, "utf8")) as CorpusCase[];
  if (process.env.UPDATE_GOLDEN === "1") {
    test("is written anew", () => {
      const answers = cases.map((one) => ({ sql: one.sql, ...answer(one.sql), ...serverOf(one) }));
      writeFileSync(path, stringify(answers, { lineWidth: 0 }));
      expect(answers.length).toBeGreaterThan(0);
    });
    return;
  }
  test.each(cases.map((one) => [one.sql, one] as const))("%s", (_sql, one) => {
    expect(answer(one.sql)).toEqual({ ...one, sql: undefined, server: undefined });
  });
});

test("the corpus is large enough to mean something", () => {
  const count = files.reduce(
    (sum, name) => sum + (parse(readFileSync(new URL(name, folder), "utf8")) as CorpusCase[]).length,
    0,
  );
  expect(count).toBeGreaterThanOrEqual(320);
});

function serverOf(one: CorpusCase): { server?: unknown } {
  return one.server === undefined ? {} : { server: one.server };
}

function answer(sql: string): Omit<CorpusCase, "sql"> {
  const analysis = analyseSql(sql, testNames());
  if (analysis.kind === "rejected") {
    const at = analysis.position === undefined ? "" : ` at ${analysis.position}`;
    return { rejected: `${analysis.sqlstate} ${analysis.message}${at}` };
  }
  const { statements } = analysis;
  const effects = statements.flatMap((one) => one.effects.map((effect) => effect.kind));
  return {
    tags: statements.map((one) => one.tag).join("; "),
    parts: statements.flatMap((one) => one.parts.map(partText)),
    ...(effects.length === 0 ? {} : { effects: effects.join(" ") }),
    allowed: allowedBy(sql, analysis),
  };
}

/** `write DELETE unbounded: public.orders, ~public.order_items`, a `~` before what is only reached. */
function partText(part: CommandPart): string {
  const objects = part.objects.map(
    ({ name, kind, direct }) => `${direct ? "" : "~"}${kind === "relation" ? "" : `${kind} `}${name}`,
  );
  const flags = `${part.unbounded ? " unbounded" : ""}${part.enforcement === "heuristic" ? " heuristic" : ""}`;
  return `${part.operation} ${part.words.join("/")}${flags}${objects.length === 0 ? "" : `: ${objects.join(", ")}`}`;
}

/** The profiles that let all parts through. */
function allowedBy(sql: string, analysis: Analysis & { kind: "analysed" }): string {
  const parts = analysis.statements.flatMap((statement) => statement.parts);
  const command = { protocol: "postgres", text: sql, parts };
  const allowing = profileNames.filter(
    (profile) => sessions.get(profile)?.decide(command, { nowMs: 0 }).action === "Allow",
  );
  return allowing.join(" ");
}

const sessions = new Map(profileNames.map((profile) => [profile, sessionWith(profile)]));

function sessionWith(profile: ProfileName): SessionPolicy {
  const resource = { namespace: "shop", name: "db", labels: {}, namespaceLabels: {}, protocol: "postgres" };
  const { set, problems } = compilePolicies(
    [
      {
        kind: "AccessPolicy",
        namespace: "shop",
        name: "profile",
        generation: 1,
        spec: { resources: { names: ["db"] }, subjects: [{ kind: "Human" }], profile },
      },
    ],
    [{ namespace: "shop", name: "db", labels: {}, spec: { protocol: "postgres" } }],
  );
  if (problems.length > 0) throw new Error(JSON.stringify(problems));
  return forSession(set, {
    resource,
    identity: { provider: "test", user: "test:a", groups: [], kind: "Human", claims: {} },
    session: { database: "shop", account: "app", applicationName: "", clientAddress: "127.0.0.1" },
  });
}
