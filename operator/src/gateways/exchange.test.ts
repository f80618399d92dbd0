import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { kubeClient, silentLog, type UntypedObject } from "../kube/index.ts";
import { type FakeApi, startFakeApi } from "../kube/testing.ts";
import type { GatewayReport } from "../resources/index.ts";
import { ReportExchange } from "./exchange.ts";

let api: FakeApi;
let stop: AbortController;
beforeEach(async () => {
  api = await startFakeApi();
  stop = new AbortController();
});
afterEach(() => api.close());

/** What a replica publishes of its own gateways, by resource. */
async function published(own: Readonly<Record<string, readonly GatewayReport[]>>) {
  const exchange = new ReportExchange({
    ...{ client: kubeClient({ connection: api.connection }), namespace: "system", podName: "operator-1" },
    ...{ prefix: "sallyport", own: { of: (resource) => own[resource] ?? [] }, log: silentLog },
    others: {
      ...{ isSynced: true, heard: "0", whenSynced: async () => undefined, get: () => undefined },
      ...{ list: () => [], byIndex: () => [], onChange: () => () => undefined },
    },
    onChange: () => undefined,
  });
  for (const resource of Object.keys(own)) exchange.note(resource);
  const ended = exchange.run(stop.signal);
  const applied = () => api.requests.find(({ method }) => method === "PATCH")?.body as UntypedObject;
  await vi.waitFor(() => expect(applied()).toBeDefined(), { timeout: 15_000, interval: 5 });
  stop.abort();
  await ended;
  const { reports = "" } = applied().data as { readonly reports?: string };
  return { text: reports, told: JSON.parse(reports) as Record<string, readonly GatewayReport[]> };
}

const report = (problems: GatewayReport["problems"] = []): GatewayReport => ({
  podUid: "pod-1",
  isCurrent: true,
  problems,
});
/** As many problems as several streams of a pod may tell, each as long as may be. */
const talkative = (character: string) =>
  report(Array.from({ length: 200 }, () => ({ reason: "PolicyRefused", message: character.repeat(2_048) })));
/** What a ConfigMap may hold. */
const bytesMax = 1024 * 1024;

test("gateways that say very much keep nobody from hearing of the others", async () => {
  const own = {
    ...Object.fromEntries(Array.from({ length: 3 }, (_, at) => [`loud/db-${at}`, [talkative("x")]])),
    "shop/orders": [report()],
    "shop/quiet": [report([{ reason: "SecretMissing", message: "the Secret shop-db is not there" }])],
  };
  const { text, told } = await published(own);
  expect(Buffer.byteLength(text)).toBeLessThan(bytesMax);
  expect(told).toMatchObject({ "shop/orders": own["shop/orders"], "shop/quiet": own["shop/quiet"] });
  expect(Object.keys(told)).toHaveLength(4);
});

test("what is published fits in its object in whatever letters it is said", async () => {
  const { text, told } = await published({ "loud/db": [talkative("€")], "shop/orders": [report()] });
  expect(Buffer.byteLength(text)).toBeLessThan(bytesMax);
  expect(told["shop/orders"]).toEqual([report()]);
});
