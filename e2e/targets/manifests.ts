/** Manifests that gateways of tests read. JSON is YAML, so those that are made here need no YAML library. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Bundle } from "@sallyport/control";
import { loadManifests } from "@sallyport/crds";
import type { PostgresServer } from "./postgres.ts";
import type { LocalIssuer } from "./tokens.ts";

const apiVersion = "sallyport.dev/v1alpha1";

/** Keys that go over a spec. */
export type SpecChange = Readonly<Record<string, unknown>>;

/** The IdentityProvider of an issuer; its users' names begin with its own. */
export function localProvider(issuer: LocalIssuer, change: SpecChange = {}, name = "local") {
  return {
    apiVersion,
    kind: "IdentityProvider",
    metadata: { name },
    spec: {
      type: "local",
      prefix: `${name}:`,
      local: { issuer: issuer.name, publicKeys: [issuer.publicKeyPem] },
      ...change,
    },
  };
}

/** The ProtectedResource `shop` in front of a server; Secret `shop` has what the gateway logs in with. */
export function shopResource(server: PostgresServer, change: SpecChange = {}) {
  const upstream =
    server.caPem === "" ? { mode: "disable" } : { mode: "verify-full", caRef: { name: "shop" } };
  return {
    apiVersion,
    kind: "ProtectedResource",
    metadata: { name: "shop", namespace: "default" },
    spec: {
      protocol: "postgres",
      endpoint: { host: server.host, port: server.port },
      tls: { upstream },
      credentials: [{ name: "shop", secretRef: { name: "shop" } }],
      identity: { providers: ["local"] },
      ...change,
    },
  };
}

/** An IdentityProvider that is accepted and that nobody logs in by. */
export const oktaProvider = {
  apiVersion,
  kind: "IdentityProvider",
  metadata: { name: "okta" },
  spec: { type: "oidc", prefix: "okta:", oidc: { issuer: "https://example.okta.com" } },
};

/** The Service of a database, for a resource that no gateway serves. */
export function databaseService(name: string, namespace: string, targetPort: string | number = 5432) {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace },
    spec: { selector: { app: name }, ports: [{ port: 5432, targetPort }] },
  };
}

/** A ProtectedResource in front of Service `orders-db`, for whom `okta` knows. */
export function ordersResource(namespace: string, change: SpecChange = {}, name = "orders") {
  return {
    apiVersion,
    kind: "ProtectedResource",
    metadata: { name, namespace },
    spec: {
      protocol: "postgres",
      endpoint: { serviceRef: { name: "orders-db", port: 5432 } },
      credentials: [{ name: "default", secretRef: { name: "orders-db" } }],
      identity: { providers: ["okta"] },
      ...change,
    },
  };
}

/** Writes a Secret as it is mounted: a folder with a file for each of its keys, which only the gateway may read. */
export async function writeSecret(folder: string, values: Readonly<Record<string, string>>): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  for (const [key, value] of Object.entries(values))
    await writeFile(join(folder, key), value, { mode: 0o600 });
}

/** From where a placed gateway may dial what: here its server is on its own machine, as a sidecar's is. */
export const besideServer = { ownPod: true, forbidden: [], allowed: [] };

/** What the operator would send of these manifests, with the defaults that the API server would fill in. */
export async function bundleOf(
  manifests: readonly object[],
  { revision = 1, reach = besideServer }: { readonly revision?: number; readonly reach?: unknown } = {},
): Promise<Bundle> {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-manifests-"));
  try {
    await writeFile(join(folder, "all.yaml"), manifests.map((one) => JSON.stringify(one)).join("\n---\n"));
    const { documents, problems } = await loadManifests(folder);
    if (problems.length > 0) throw new Error(`manifests with problems: ${JSON.stringify(problems)}`);
    return {
      revision: { all: String(revision) },
      documents: documents.map(({ object }) => ({
        key: `${object.kind}/${object.metadata.namespace ?? ""}/${object.metadata.name}`,
        json: JSON.stringify({
          ...object,
          metadata: { ...object.metadata, generation: revision },
          ...(object.kind === "ProtectedResource" && { reach }),
        }),
      })),
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
