/** What a recording of the real gateway holds, how long it is kept, and that it verifies. */
import { dirname } from "node:path";
import { listSessions, loadPublicKey, readSession, verifyRecordings } from "@sallyport/sidecar";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { type Gateway, type GatewayProcess, spawnGateway, startGateway } from "../targets/gateway.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";

let server: PostgresServer;
let gateway: Gateway;

const policies = `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: readers}
spec:
  resources: {names: [shop]}
  subjects: [{group: "local:staff"}]
  profile: ReadOnly
`;

beforeAll(async () => {
  server = await startPostgres({ tls: true });
  gateway = await startGateway({
    server,
    policies,
    resource: { recording: { mode: "Required", durability: "Accepted", content: ["commands", "responses"] } },
  });
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

it("keeps statement, verdict, answer and the rows themselves, and verifies while the gateway runs", async () => {
  const client = await gateway.connect({ user: "ann", groups: ["staff"] });
  await client.query("SELECT 'remember me' AS word");
  await client.query("SELECT $1::int + 1 AS sum", [41]);
  await client.query("CREATE TABLE refused (id int)").catch(() => undefined);
  await client.end();
  const key = await loadPublicKey(gateway.publicKeyFile);
  await vi.waitFor(
    async () => {
      const [session] = await listSessions(gateway.recordingDir);
      expect(session?.state).toBe("closed");
    },
    { timeout: 20_000 },
  );
  const [session] = await listSessions(gateway.recordingDir);
  const records: unknown[] = [];
  for await (const record of readSession(gateway.recordingDir, session?.sessionId ?? ""))
    records.push(record);
  const text = JSON.stringify(records);
  expect(text).toContain("SELECT 'remember me' AS word");
  expect(text).toContain('"parameters":["41"]');
  expect(text).toContain("CREATE TABLE refused");
  expect(text).toContain('"action":"Deny"');
  expect(text).toMatch(/"kind":"rows"/);
  expect((await verifyRecordings(gateway.recordingDir, key)).ok).toBe(true);
});

it("removes closed sessions after the resource's retention, and does not call them missing", async () => {
  const kept = await startGateway({
    server,
    policies,
    resource: {
      recording: { mode: "Required", durability: "Accepted", content: ["commands"], retention: "1s" },
    },
  });
  let again: GatewayProcess | undefined;
  try {
    const client = await kept.connect({ user: "ann", groups: ["staff"] });
    await client.end();
    const stateOfFirst = async () => (await listSessions(kept.recordingDir))[0]?.state;
    await vi.waitFor(async () => expect(await stateOfFirst()).toBe("closed"), { timeout: 20_000 });
    // A gateway looks when it starts, and not again for ten minutes: by then the session must be old enough.
    const closedBy = Date.now();
    await vi.waitFor(() => expect(Date.now() - closedBy).toBeGreaterThan(1_000), { timeout: 5_000 });
    await kept.kill9();
    const { configDir, port } = kept;
    again = await spawnGateway({ configDir, port, stateDir: dirname(kept.recordingDir) });
    await vi.waitFor(async () => expect(await stateOfFirst()).toBe("pruned"), {
      timeout: 10_000,
      interval: 200,
    });
    const key = await loadPublicKey(kept.publicKeyFile);
    expect((await verifyRecordings(kept.recordingDir, key)).ok).toBe(true);
  } finally {
    await again?.stop();
    await kept.stop();
  }
});
