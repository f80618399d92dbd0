/** What stays of a held statement: what approvers and recordings are shown of it, who decided, and what ran. */
import { execFile } from "node:child_process";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { listSessions, readSession } from "@sallyport/sidecar";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Gateway, sallyportCommand, startGateway } from "../targets/gateway.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { until } from "../targets/until.ts";

const policies = `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: cards}
spec:
  resources: {names: [shop]}
  subjects: [{group: "local:dev"}]
  profile: Admin
  maskedWrites: Allow
  rules:
    - name: writes
      match: {operations: [write], objects: ["public.cards"]}
      action: RequireApproval
      approval: {required: 1, timeout: 60s}
  masking:
    - {columns: [public.cards.number], with: Redact}
`;
const dora = { user: "dora", groups: ["dev"] };
const lea = { user: "lea", groups: ["leads"] };

let server: PostgresServer;
let gateway: Gateway;

beforeAll(async () => {
  server = await startPostgres({ tls: true, initSql: "CREATE TABLE cards (number text, note text);" });
  gateway = await startGateway({ server, policies, args: ["--approvers", "local:leads"] });
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

/** Runs the command line as an approver. */
async function sallyport(...args: readonly string[]): Promise<string> {
  const argv = [...sallyportCommand, ...args, "--state", dirname(gateway.recordingDir)];
  const env = { PATH: process.env.PATH, SALLYPORT_TOKEN: gateway.issuer.token(lea) };
  return (await promisify(execFile)(process.execPath, argv, { timeout: 60_000, env })).stdout;
}

/** Sends a statement that is held, gives what its approver was shown, and lets it run. */
async function approved(sql: string, values: readonly string[] = []) {
  const client = await gateway.connect(dora);
  const notices: string[] = [];
  client.on("notice", ({ message = "" }) => notices.push(message));
  const outcome = client.query(sql, [...values]);
  outcome.catch(() => undefined);
  const notice = await until(() => notices[0]);
  const name = /^held for approval (\S+):/.exec(notice)?.[1] ?? "";
  const shown = await sallyport("approvals", name);
  await sallyport("approve", name);
  expect(await outcome).toMatchObject({ rowCount: 1 });
  await client.end();
  return { name, shown, records: await recordsOf(name) };
}

/** The recording of the session that asked for an approval, once it is closed. */
async function recordsOf(approval: string): Promise<readonly Readonly<Record<string, unknown>>[]> {
  return until(async () => {
    for (const { sessionId, state } of await listSessions(gateway.recordingDir)) {
      if (state !== "closed") continue;
      const records: Readonly<Record<string, unknown>>[] = [];
      for await (const record of readSession(gateway.recordingDir, sessionId)) records.push({ ...record });
      if (JSON.stringify(records).includes(`"approval":"${approval}"`)) return records;
    }
    return undefined;
  });
}

test("approvers and recording see a masked value as its hash, in a text and in a parameter; the server gets the value", async () => {
  const literal = await approved("INSERT INTO cards VALUES ('4000-1111', 'a literal')");
  const parameter = await approved("INSERT INTO cards VALUES ($1, $2)", ["4000-2222", "a parameter"]);
  for (const { shown, records } of [literal, parameter]) {
    expect(shown).toMatch(/#[0-9a-f]{16}/);
    expect(shown).toContain("INSERT INTO cards VALUES (");
    for (const text of [shown, JSON.stringify(records)]) expect(text).not.toMatch(/4000-/);
  }
  expect(await server.query("SELECT number, note FROM cards ORDER BY number")).toEqual([
    { number: "4000-1111", note: "a literal" },
    { number: "4000-2222", note: "a parameter" },
  ]);
});

test("the recording says who asked, who decided, and that it ran then", async () => {
  const { name, records } = await approved("INSERT INTO cards (note) VALUES ('asked')");
  expect(records[0]).toMatchObject({ kind: "opening", user: "local:dora" });
  const command = records.find(({ kind, sql }) => kind === "command" && String(sql).includes("INTO cards"));
  expect(command).toMatchObject({ verdict: { action: "RequireApproval", policy: "cards", rule: "writes" } });
  const { n } = command ?? {};
  const events = records.filter(({ kind }) => kind === "event" || kind === "response").slice(-4);
  expect(events).toMatchObject([
    {
      name: "approvalAsked",
      fields: { approval: name, command: n, digest: expect.stringMatching(/^hmac-sha256:[0-9a-f]{64}$/) },
    },
    { name: "approvalDecided", fields: { approval: name, outcome: "approved", by: "local:lea" } },
    { name: "approvalRan", fields: { approval: name, command: n } },
    { kind: "response", n, tag: "INSERT 0 1" },
  ]);
});
