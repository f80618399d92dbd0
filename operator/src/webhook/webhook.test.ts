import { request } from "node:https";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { makeAuthority, makeKey, signLeaf } from "../certificates/authority.ts";
import type { Cache, EventNote, KubeClient, KubeObject } from "../kube/index.ts";
import { silentLog } from "../kube/index.ts";
import { testResource, testSettings } from "../placement/testing.ts";
import { connectReview } from "./connect.ts";
import { podInjection } from "./pods.ts";
import { policyReview } from "./policies.ts";
import { readReview } from "./review.ts";
import { type AdmissionHandler, type WebhookLimits, WebhookServer, webhookLimits } from "./server.ts";

const resource = testResource({
  placement: { mode: "Sidecar", podSelector: { matchLabels: { app: "orders-db" } } },
});
const service = {
  metadata: { name: "orders-db", namespace: "shop" },
  spec: { selector: { app: "orders-db" }, ports: [{ port: 5432, targetPort: 5432 }] },
};

function cacheOf<T extends KubeObject>(...objects: readonly T[]): Cache<T> {
  return {
    isSynced: true,
    heard: "0",
    whenSynced: async () => undefined,
    get: ({ name, namespace }) =>
      objects.find(({ metadata }) => metadata.name === name && metadata.namespace === namespace),
    list: (namespace) =>
      objects.filter(({ metadata }) => namespace === undefined || metadata.namespace === namespace),
    byIndex: () => [],
    onChange: () => () => undefined,
  };
}

function question(
  more: Record<string, unknown> = {},
  podSpec: Record<string, unknown> = {},
  labels = { app: "orders-db" },
) {
  return {
    uid: "1",
    operation: "CREATE",
    kind: { kind: "Pod" },
    resource: { resource: "pods" },
    namespace: "shop",
    userInfo: { username: "u" },
    object: {
      metadata: { generateName: "orders-db-", labels },
      spec: { containers: [{ name: "postgres", image: "p" }], ...podSpec },
    },
    ...more,
  };
}

const review = (request: object) =>
  JSON.stringify({ apiVersion: "admission.k8s.io/v1", kind: "AdmissionReview", request });

describe("injection", () => {
  const notes: EventNote[] = [];
  const events = { record: (note: EventNote) => notes.push(note), run: async () => undefined };
  const handler = podInjection({
    caches: { protectedResources: cacheOf(resource), services: cacheOf(service) },
    settings: testSettings,
    events: events as never,
  });
  const ask = async (request: object) => handler(readReview(review(request)).request);
  afterEach(() => {
    notes.length = 0;
  });

  test("gives a selected pod its gateway, also in a dry run, and others nothing", async () => {
    expect((await ask(question())).patch?.[0]).toMatchObject({ op: "add", path: "/spec/initContainers" });
    expect((await ask(question({ dryRun: true }))).patch).toHaveLength(4);
    expect(await ask(question({}, {}, { app: "other" }))).toEqual({ allowed: true });
  });

  test("O41 never touches the cluster's own pods, nor ours", async () => {
    for (const namespace of ["kube-system", "sallyport-system"]) {
      expect(await ask(question({ namespace }))).toEqual({ allowed: true });
    }
  });

  test("skips a pod on the host's network and says so in an event, but not in a dry run", async () => {
    expect((await ask(question({}, { hostNetwork: true }))).warnings?.[0]).toContain("host's network");
    expect(notes.map(({ reason }) => reason)).toEqual(["NotInjected"]);
    await ask(question({ dryRun: true }, { hostNetwork: true }));
    expect(notes).toHaveLength(1);
  });

  test("tells the name of a pod on one line and not at length: it has not been checked by anybody yet", async () => {
    const metadata = { name: `a\u001b[2J\nWarning: ${"x".repeat(5_000)}`, labels: { app: "orders-db" } };
    const object = { metadata, spec: { hostNetwork: true, containers: [] } };
    await ask(question({ object }));
    expect(notes[0]?.note).toMatch(/^The pod a \[2J Warning: x{1,240}… gets no gateway: [ -~]+$/);
  });

  test("refuses a pod that shares its processes, and one that only carries the label", async () => {
    expect((await ask(question({}, { shareProcessNamespace: true }))).allowed).toBe(false);
    const labelled = { app: "other", "sallyport.dev/gateway": "orders" };
    expect((await ask(question({}, {}, labelled))).allowed).toBe(false);
  });

  test("answers a thousand pods in far less than the bound of 50 ms each", async () => {
    const parsed = readReview(review(question())).request;
    const before = process.cpuUsage();
    for (let count = 0; count < 1000; count++) await handler(parsed);
    expect(process.cpuUsage(before).user / 1000 / 1000).toBeLessThan(5);
  });
});

describe("a proxy to a Service", () => {
  const closed = testResource({ bypassProtection: { networkPolicy: "Enforce", exec: "Enforce" } });
  const podOf = (labels: Record<string, string>) => ({
    metadata: { name: "db-0", namespace: "shop", labels },
    spec: { containers: [{ name: "postgres", image: "p" }] },
  });
  const services = {
    alias: { app: "orders-db", role: "primary" },
    page: { app: "page" },
    "by-hand": undefined,
  } as const;
  const asked: string[] = [];
  const handler = connectReview({
    client: {
      find: async (_: unknown, { name }: { readonly name: string }) =>
        name in services
          ? {
              metadata: { name, namespace: "shop" },
              spec: { selector: services[name as keyof typeof services] },
            }
          : undefined,
      list: async (_: unknown, { labelSelector = "" }: { readonly labelSelector?: string }) => {
        asked.push(labelSelector);
        const app = /app=([a-z-]+)/.exec(labelSelector)?.[1] ?? "";
        return { items: [podOf({ app, role: "primary" })] };
      },
    } as unknown as KubeClient,
    caches: { protectedResources: cacheOf(closed), services: cacheOf(service) },
    breakGlassGroup: "break-glass",
    book: { floored: (one) => one },
  });
  const proxy = (name: string, groups: readonly string[] = []) =>
    handler(
      readReview(
        review(
          question({
            operation: "CONNECT",
            kind: { kind: "ServiceProxyOptions" },
            resource: { resource: "services" },
            subResource: "proxy",
            name,
            userInfo: { username: "u", groups },
          }),
        ),
      ).request,
    );

  test.each([
    ["of the server itself", "orders-db", false],
    ["of the server by port", "https:orders-db:5432", false],
    ["that somebody else points at the server", "alias:5432", false],
    ["whose addresses are written by hand", "by-hand", false],
    ["of something else", "page:80", true],
    ["that is not there", "nothing", true],
  ])("%s", async (_, name, allowed) => {
    expect((await proxy(name)).allowed).toBe(allowed);
    expect((await proxy(name, ["break-glass"])).allowed).toBe(true);
  });

  test("is judged by all labels that it selects by", () => {
    expect(asked).toContain("app=orders-db,role=primary");
  });
});

test("a policy that does not compile is warned of, and not denied", async () => {
  const object = {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "AccessPolicy",
    metadata: { name: "broken", namespace: "shop" },
    spec: {
      resources: { names: ["orders"] },
      subjects: [{ user: "okta:a" }],
      rules: [{ name: "x", match: { cel: "(" }, action: "Deny" }],
    },
  };
  const handler = policyReview({ protectedResources: cacheOf(resource) });
  const asked = { ...question({ kind: { kind: "AccessPolicy" } }), object };
  const answer = await handler(readReview(review(asked)).request);
  expect(answer.allowed).toBe(true);
  expect(answer.warnings?.[0]).toContain("spec.rules[0].match.cel: InvalidCel");
});

test("a policy too long to be tried is let pass without a look, for its conditions to tell", async () => {
  const rules = Array.from({ length: 30_000 }, (_, n) => ({
    ...{ name: `r${n}`, match: { cel: "command.argv[0] in ['ls','cat']" }, action: "Deny" },
  }));
  const object = {
    ...{ apiVersion: "sallyport.dev/v1alpha1", kind: "AccessPolicy" },
    ...{ metadata: { name: "long", namespace: "shop" }, spec: { subjects: [{ user: "okta:a" }], rules } },
  };
  const { request } = readReview(review({ ...question({ kind: { kind: "AccessPolicy" } }), object }));
  const before = process.cpuUsage();
  const answer = await policyReview({ protectedResources: cacheOf(resource) })(request);
  expect(answer.allowed).toBe(true);
  expect(answer.warnings).toEqual([expect.stringContaining("not tried here")]);
  expect(process.cpuUsage(before).user / 1000).toBeLessThan(2_000);
});

describe("the server", () => {
  let ca = "";
  let certificate = { certificate: "", key: "" };
  let server: WebhookServer | undefined;
  beforeAll(async () => {
    const authority = await makeAuthority("CA", Date.now());
    const { publicKey, privateKey } = await makeKey();
    const leaf = {
      commonName: "w",
      names: ["localhost"],
      usage: "server",
      lifeMs: 60_000,
      now: Date.now(),
      publicKey,
    } as const;
    ca = authority.certificate;
    certificate = { certificate: await signLeaf(authority, leaf), key: privateKey };
  });
  afterEach(() => server?.close());

  async function serve(handler: AdmissionHandler, limits: Partial<WebhookLimits> = {}): Promise<void> {
    server = new WebhookServer({
      host: "127.0.0.1",
      port: 0,
      handlers: { "/pods": handler },
      log: silentLog,
      limits,
    });
    await server.use(certificate);
  }
  function post(path: string, body: string, tls: object = {}): Promise<{ status: number; body: string }> {
    return new Promise((resolve, reject) => {
      const options = {
        host: "127.0.0.1",
        port: server?.port,
        path,
        method: "POST",
        ca,
        servername: "localhost",
        agent: false,
      };
      const sent = request({ ...options, ...tls }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => {
          text += chunk;
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body: text }));
      });
      sent.on("error", reject);
      sent.end(body);
    });
  }

  test("answers with the question's uid, and a denial as 403", async () => {
    await serve(() => ({ allowed: false, message: "no" }));
    const { status, body } = await post("/pods", review(question()));
    expect(status).toBe(200);
    expect(JSON.parse(body).response).toMatchObject({
      uid: "1",
      allowed: false,
      status: { code: 403, message: "no" },
    });
  });

  test("fails, and so lets failurePolicy decide, where it cannot answer", async () => {
    await serve(() => {
      throw new Error("not synced");
    });
    expect((await post("/pods", review(question()))).status).toBe(500);
    expect((await post("/pods", "{")).status).toBe(500);
    expect((await post("/nowhere", "{}")).status).toBe(404);
  });

  test.each(["//", "//pods", "http://["])("outlives a request for %s, which is no URL", async (path) => {
    await serve(() => ({ allowed: true }));
    expect((await post(path, review(question()))).status).toBe(404);
    expect((await post("/pods?timeout=5s", review(question()))).status).toBe(200);
  });

  test("O50 takes no body beyond its bound, and no old TLS", async () => {
    await serve(() => ({ allowed: true }));
    const large = await post("/pods", " ".repeat(webhookLimits.bodyBytesMax + 1)).catch(() => ({
      status: 413,
    }));
    expect(large.status).toBe(413);
    const old = { minVersion: "TLSv1.1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" };
    await expect(post("/pods", review(question()), old)).rejects.toThrow();
  });

  /** Sends a body in pieces, and does not end it where `isOpen`. */
  function send(pieces: readonly string[], isOpen = false) {
    const answer = Promise.withResolvers<number>();
    const { port } = server as WebhookServer;
    const sent = request({
      host: "127.0.0.1",
      port,
      path: "/pods",
      method: "POST",
      rejectUnauthorized: false,
    });
    sent.on("response", (response) => answer.resolve(response.statusCode ?? 0));
    sent.on("error", answer.reject);
    for (const piece of pieces) sent.write(piece);
    if (!isOpen) sent.end();
    return { answer: answer.promise, end: () => sent.destroy() };
  }

  test("O50 a body in single bytes counts by the memory that it takes", async () => {
    await serve(() => ({ allowed: true }), { bodyBytesMax: 20_000 });
    const pieces = [...review(question())];
    expect(pieces.length * 10).toBeLessThan(20_000);
    const refused = await send(pieces).answer.catch(() => 413);
    expect(refused).toBe(413);
    expect((await post("/pods", review(question()))).status).toBe(200);
  });

  test("O50 the bodies of all questions have one bound, and what is over gives its part back", async () => {
    await serve(() => ({ allowed: true }), { bodiesBytesMax: 100_000 });
    const open = Array.from({ length: 3 }, () => send(["x".repeat(30_000)], true));
    for (const { answer } of open) answer.catch(() => undefined);
    await expect
      .poll(async () => (await post("/pods", " ".repeat(15_000))).status, { timeout: 15_000 })
      .toBe(503);
    for (const { end } of open) end();
    await expect
      .poll(async () => (await post("/pods", review(question()))).status, { timeout: 15_000 })
      .toBe(200);
  });

  test("O50 answers only so many at once, and serves a new certificate without a pause", async () => {
    const held: (() => void)[] = [];
    const concurrencyMax = 4;
    await serve(
      () =>
        new Promise((resolve) => {
          held.push(() => resolve({ allowed: true }));
        }),
      { concurrencyMax, answerMs: 20_000 },
    );
    const asked = Array.from({ length: concurrencyMax }, () => post("/pods", review(question())));
    await expect.poll(() => held.length, { timeout: 15_000 }).toBe(concurrencyMax);
    expect((await post("/pods", review(question()))).status).toBe(503);
    await server?.use(certificate);
    for (const release of held) release();
    expect((await Promise.all(asked)).every(({ status }) => status === 200)).toBe(true);
  });
});
