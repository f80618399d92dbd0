import { createHmac } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Approval } from "@sallyport/crds";
import { Registry } from "prom-client";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Cache, Change } from "../kube/index.ts";
import { ApprovalNotifier } from "./notifier.ts";
import { bodyOf, parseTemplate } from "./template.ts";

const key = "0123456789abcdef-secret";
const now = 1_700_000_000_000;
let folder: string;
let server: Server;
let statuses: number[];
const heard: { readonly headers: IncomingHttpHeaders; readonly body: string }[] = [];
const over = new Set<AbortController>();

beforeEach(async () => {
  heard.length = 0;
  statuses = [];
  folder = await mkdtemp(join(tmpdir(), "sallyport-notify-"));
  server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (piece: string) => {
      body += piece;
    });
    request.on("end", () => {
      heard.push({ headers: request.headers, body });
      response.writeHead(statuses.shift() ?? 200, { location: "/elsewhere" });
      response.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await writeFile(join(folder, "url"), `http://127.0.0.1:${port}/services/SECRET-PATH\n`);
  await writeFile(join(folder, "key"), `${key}\n`);
});
afterEach(async () => {
  for (const one of over) one.abort();
  over.clear();
  server.close();
  server.closeAllConnections();
  await rm(folder, { recursive: true, force: true });
});

const approval = (
  name: string,
  phase: NonNullable<Approval["status"]>["phase"],
  more: object = {},
): Approval =>
  ({
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "Approval",
    metadata: { name, namespace: "shop", uid: `uid-${name}`, creationTimestamp: new Date(now).toISOString() },
    spec: {
      request: {
        type: "Statement",
        requester: "alice",
        resource: "orders",
        policies: [{ kind: "AccessPolicy", policy: "prod", rule: "schema", required: 1 }],
        command: 'DROP TABLE "t"; -- <!channel> {{requester}}',
        ...more,
      },
      decisions: [],
    },
    status: {
      phase,
      conditions: [
        {
          type: "Validated",
          status: "True",
          reason: "Asked",
          message: "",
          lastTransitionTime: "2026-01-01T00:00:00Z",
        },
      ],
    },
  }) as Approval;

function notifier(before: readonly Approval[] = [], template = "") {
  const listeners: ((change: Change<Approval>) => void)[] = [];
  const logged: string[] = [];
  const write = (fields: object, message: string) => logged.push(JSON.stringify(fields) + message);
  const registry = new Registry();
  const made = new ApprovalNotifier({
    approvals: {
      list: () => before,
      onChange: (listener: (change: Change<Approval>) => void) => {
        listeners.push(listener);
        return () => undefined;
      },
    } as unknown as Cache<Approval>,
    folder,
    template: parseTemplate(template),
    registry,
    log: { debug: write, info: write, warn: write, error: write } as never,
    clock: () => now,
    limits: { triesMax: 3, waitingMax: 2, backoff: { firstMs: 1, mostMs: 2 } },
  });
  const lead = () => {
    const signal = new AbortController();
    over.add(signal);
    void made.run(signal.signal);
  };
  const change = (object: Approval) => {
    for (const listener of listeners) listener({ kind: "added", object });
  };
  return { lead, change, logged, registry };
}

const until = (count: number) => vi.waitFor(() => expect(heard.length).toBeGreaterThanOrEqual(count), 20_000);

test("each event is sent once, signed over its time and body", async () => {
  const { lead, change } = notifier();
  lead();
  change(approval("a", "Pending"));
  change(approval("a", "Pending"));
  change(approval("a", "Denied"));
  await until(2);
  expect(heard.map(({ headers }) => headers["idempotency-key"])).toEqual(["uid-a/Requested", "uid-a/Denied"]);
  for (const { headers, body } of heard) {
    const at = headers["x-sallyport-timestamp"];
    const expected = createHmac("sha256", key).update(`${at}.${body}`).digest("hex");
    expect(headers["x-sallyport-signature"]).toBe(`v1=${expected}`);
  }
  expect(JSON.parse(heard[0]?.body ?? "").text).toContain("Requested: alice on shop/orders (prod/schema)");
});

test("what passes is tried again, within bounds; what does not pass is not, and no address is logged", async () => {
  const { lead, change, logged, registry } = notifier();
  lead();
  statuses = [503, 200];
  change(approval("a", "Pending"));
  await until(2);
  statuses = [500, 500, 500];
  change(approval("b", "Pending"));
  await until(5);
  statuses = [403];
  change(approval("c", "Pending"));
  await until(6);
  // Nobody is followed elsewhere.
  statuses = [302];
  change(approval("d", "Pending"));
  await until(7);
  await vi.waitFor(
    async () => expect(await registry.metrics()).toMatch(/notifications_total\{result="failed"\} 3/),
    { timeout: 20_000 },
  );
  expect(heard).toHaveLength(7);
  expect(logged).toHaveLength(3);
  expect(logged.join("")).not.toMatch(/SECRET-PATH|0123456789abcdef|127\.0\.0\.1/);
});

test("who does not lead sends nothing; who begins to lead sends what is recent and still asked", async () => {
  const old = approval("old", "Pending");
  const early = {
    ...old,
    metadata: { ...old.metadata, creationTimestamp: "2020-01-01T00:00:00Z" },
  } as Approval;
  const { lead, change } = notifier([approval("a", "Pending"), approval("b", "Used"), early]);
  change(approval("a", "Pending"));
  expect(heard).toEqual([]);
  lead();
  await until(1);
  change(approval("a", "Approved"));
  await until(2);
  expect(heard.map(({ headers }) => headers["idempotency-key"])).toEqual([
    "uid-a/Requested",
    "uid-a/Approved",
  ]);
});

test("a queue that is full loses its oldest, and counts that", async () => {
  const { lead, change, registry } = notifier();
  lead();
  // The first is on its way; of the others two can wait.
  for (const name of ["a", "b", "c", "d"]) change(approval(name, "Pending"));
  await vi.waitFor(() => expect(heard.at(-1)?.headers["idempotency-key"]).toBe("uid-d/Requested"), 20_000);
  expect(await registry.metrics()).toMatch(/notifications_total\{result="dropped"\} [12]/);
});

test("a requester's text stays text: no field, no markup and no JSON comes of it", () => {
  const template = parseTemplate('{"blocks": [{"text": "{{requester}}: {{command|slack}}"}], "n": 1}');
  const body = JSON.parse(bodyOf(template, approval("a", "Pending"), "Requested"));
  expect(body).toEqual({
    blocks: [{ text: 'alice: DROP TABLE "t"; -- &lt;!channel&gt; {{requester}}' }],
    n: 1,
  });
});

test.each([
  ["no JSON", "text"],
  ["an unknown field", '{"text": "{{password}}"}'],
  ["a list", "[]"],
])("a template with %s is refused at the start", (_, text) => {
  expect(() => parseTemplate(text)).toThrow(/template of notifications/);
});

test.each([
  ["clear text", "http://example.com/x"],
  ["another scheme", "file:///etc/passwd"],
])("nothing is sent over %s", async (_, address) => {
  await writeFile(join(folder, "url"), address);
  const { lead, change, logged } = notifier();
  lead();
  change(approval("a", "Pending"));
  await vi.waitFor(() => expect(logged.join("")).toMatch(/the url is not https/), { timeout: 20_000 });
  expect(heard).toEqual([]);
});
