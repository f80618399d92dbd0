/** Who writes the webhooks' caBundle, on a real API server: the operator, cert-manager, and one after the other. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BundleChange, changeCaBundle } from "@sallyport/operator/certificates";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { ApiServer } from "../cluster/api-server.ts";
import { waitFor } from "../cluster/processes.ts";
import { type Authority, createAuthority } from "../targets/certificates.ts";
import { startApiServerWithKinds, startOperator, type TestOperator } from "../targets/operator.ts";

const kindsOf = ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] as const;
const injected = { "cert-manager.io/inject-ca-from": "sallyport-system/sallyport-webhook" };
const pemEnd = "-----END CERTIFICATE-----";

let api: ApiServer;
let folder: string;
let authority: Authority;
let issued: { readonly certPem: string; readonly keyPem: string };
let started: TestOperator[] = [];

beforeAll(async () => {
  api = await startApiServerWithKinds();
  folder = await mkdtemp(join(tmpdir(), "sallyport-webhook-"));
  authority = await createAuthority();
  issued = await authority.issue({ commonName: "webhook", dnsNames: ["webhook"], usage: "server" });
  await writeFile(join(folder, "tls.crt"), issued.certPem);
  await writeFile(join(folder, "tls.key"), issued.keyPem, { mode: 0o600 });
});
beforeEach(async () => {
  await Promise.all(started.map((one) => one.stop()));
  started = [];
  for (const kind of kindsOf) await api.kubectl("delete", kind, "sallyport", "--ignore-not-found");
});
afterAll(async () => {
  await Promise.all(started.map((one) => one.stop()));
  await api?.close();
  await rm(folder, { recursive: true });
});

const start = async (name: string, environment: Readonly<Record<string, string>> = {}) => {
  const one = await startOperator(api, { SALLYPORT_POD_NAME: name, ...environment });
  started.push(one);
  return one;
};
const startForCertManager = (name: string) =>
  start(name, {
    SALLYPORT_WEBHOOK_CERTIFICATES: "cert-manager",
    SALLYPORT_WEBHOOK_CERTIFICATE_FOLDER: folder,
  });
const ready = ({ operator }: TestOperator) =>
  waitFor("the operator to be ready", () => operator.notReady() === undefined || undefined);

/** As the chart writes them: without a bundle. */
const applyChart = (annotations: object) =>
  api.kubectl.apply(
    ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"].map((kind) => ({
      apiVersion: "admissionregistration.k8s.io/v1",
      kind,
      metadata: { name: "sallyport", annotations },
      webhooks: [
        {
          name: "pods.sallyport.dev",
          admissionReviewVersions: ["v1"],
          clientConfig: { service: { name: "sallyport-webhook", namespace: "sallyport-system" } },
          sideEffects: "None",
        },
      ],
    })),
  );

/** The bundle of the first webhook of each configuration, as PEM. */
const bundles = () =>
  Promise.all(
    kindsOf.map(async (kind) => {
      const path = "jsonpath={.webhooks[0].clientConfig.caBundle}";
      return Buffer.from(await api.kubectl("get", kind, "sallyport", "-o", path), "base64").toString();
    }),
  );
const change = ({ client }: TestOperator, kind: BundleChange, authorities: string) =>
  changeCaBundle(client, "sallyport", { kind, authorities }, AbortSignal.timeout(10_000));
const count = (bundle: string) => bundle.split(pemEnd).length - 1;
const holds = (bundle: string, pem: string) =>
  bundle.replaceAll(/\s/g, "").includes(pem.replaceAll(/\s/g, ""));

/** What cainjector does from 1.19 on: its authority joins what it finds, applied as its own field. */
async function inject(pem: string): Promise<void> {
  const found = await bundles();
  for (const [at, kind] of ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"].entries()) {
    const bundle = found[at] ?? "";
    const caBundle = Buffer.from(holds(bundle, pem) ? bundle : bundle + pem).toString("base64");
    const object = {
      apiVersion: "admissionregistration.k8s.io/v1",
      kind,
      metadata: { name: "sallyport" },
      webhooks: [{ name: "pods.sallyport.dev", clientConfig: { caBundle } }],
    };
    const flags = ["--server-side", "--field-manager=cainjector", "--force-conflicts", "-f", "-"];
    expect(await api.kubectl.try(JSON.stringify(object), "apply", ...flags)).toMatchObject({ code: 0 });
  }
}

test("O49 a replica is ready once the API server trusts what its webhook shows", async () => {
  await applyChart(injected);
  const replica = await startForCertManager("operator-waits");
  await waitFor(
    "the certificate alone to be missing",
    () => replica.operator.notReady()?.includes("caBundle") || undefined,
  );
  await inject(authority.caPem);
  await ready(replica);
});

test("O49 from its own certificates to cert-manager's: nothing leaves the bundle while both are shown", async () => {
  await applyChart({});
  const before = await start("operator-own");
  await ready(before);
  const [own = ""] = await bundles();
  expect(await bundles()).toEqual([own, own]);
  expect(count(own)).toBe(1);
  // The chart is upgraded: the replica of before still leads, and a new one comes up.
  await applyChart(injected);
  await inject(authority.caPem);
  await ready(await startForCertManager("operator-next"));
  for (const kind of ["join", "own"] as const) await change(before, kind, own);
  for (const bundle of await bundles())
    expect([holds(bundle, own), holds(bundle, authority.caPem), count(bundle)]).toEqual([true, true, 2]);
  // Once the rollout is over the new leader takes its own away, which cainjector would leave for good.
  await change(before, "leave", own);
  for (const bundle of await bundles())
    expect([holds(bundle, authority.caPem), count(bundle)]).toEqual([true, 1]);
  await change(before, "leave", authority.caPem);
  expect(count((await bundles())[0] ?? "")).toBe(1);
});

test("O49 from cert-manager's to its own: its authority joins before a replica is ready, and is alone later", async () => {
  await applyChart(injected);
  await inject(authority.caPem);
  const before = await startForCertManager("operator-injected");
  await ready(before);
  await applyChart({});
  const after = await start("operator-own-again");
  await ready(after);
  const [both = ""] = await bundles();
  expect([holds(both, authority.caPem), count(both)]).toEqual([true, 2]);
  const own = both.slice(0, both.indexOf(pemEnd) + pemEnd.length);
  await change(after, "own", own);
  for (const bundle of await bundles()) expect([holds(bundle, own), count(bundle)]).toEqual([true, 1]);
});
