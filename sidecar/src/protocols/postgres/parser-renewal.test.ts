import { loadSqlParser } from "@sallyport/policy";
import { beforeAll, expect, test } from "vitest";
import { client, openSession } from "./testing.ts";

beforeAll(loadSqlParser);

test("statements behind some that end the parser wait for the next one, and run", async () => {
  const session = openSession([]);
  const fatal = client.query(`SELECT ${"1+".repeat(100_000)}1`);
  await session.send(fatal, fatal, fatal, fatal, client.query("SELECT id FROM customers"));
  const sent = session.upstreamBytes().toString("latin1");
  expect(sent.match(/SELECT "refused_by_test"/g)).toHaveLength(4);
  expect(sent).toContain("SELECT id FROM customers");
  expect(session.recording.commands.map(({ verdict }) => verdict.action)).toEqual([
    ...["Deny", "Deny", "Deny", "Deny"],
    "Allow",
  ]);
});
