import { X509Certificate } from "node:crypto";
import { type KubeClient, type KubeObject, resourceType } from "../kube/index.ts";

interface WebhookConfiguration extends KubeObject {
  readonly webhooks?: readonly {
    readonly name: string;
    readonly clientConfig: { readonly caBundle?: string };
  }[];
}

const types = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"].map((kind) =>
  resourceType<WebhookConfiguration>(
    "admissionregistration.k8s.io/v1",
    kind,
    `${kind.toLowerCase()}s`,
    "Cluster",
  ),
);

/** Says of a configuration that cert-manager's cainjector writes its bundle. */
const injectedFrom = "cert-manager.io/inject-ca-from";

/** What becomes of a webhook's bundle. */
export type BundleChange =
  /** Ours join what is there: replicas that show another authority's certificate may still be serving. */
  | "join"
  /** Ours and no others. */
  | "own"
  /** Others without ours: cert-manager leaves in a bundle what it finds there. */
  | "leave";

/**
 * Changes the bundle in the webhooks of one name: that field and nothing else, where it differs. What is cert-manager's
 * to write gets nothing of ours: two that write in turns would each undo the other.
 */
export async function changeCaBundle(
  client: KubeClient,
  name: string,
  change: { readonly kind: BundleChange; readonly authorities: string },
  signal: AbortSignal,
): Promise<void> {
  const own = certificatesOf(change.authorities);
  for (const type of types) {
    const found = await client.find(type, { name }, { signal });
    // The chart makes them; where it did not, there is nothing to serve.
    if (found?.webhooks === undefined) continue;
    const isInjected = found.metadata.annotations?.[injectedFrom] !== undefined;
    if (isInjected !== (change.kind === "leave")) continue;
    let differs = false;
    const webhooks = found.webhooks.map((webhook) => {
      const before = decoded(webhook.clientConfig.caBundle);
      const after = changed(before, own, change.kind);
      differs ||= after !== before;
      return { name: webhook.name, clientConfig: { caBundle: Buffer.from(after).toString("base64") } };
    });
    if (!differs) continue;
    const { apiVersion, kind } = type;
    const applied = { apiVersion, kind, metadata: { name }, webhooks };
    await client.apply(type, applied, { fieldManager: "sallyport-certificates", force: true, signal });
  }
}

/** Whether each of the webhooks trusts who signed a certificate (PEM, with what stands between it and its root). */
export async function isTrustedByWebhooks(
  client: KubeClient,
  name: string,
  certificate: string,
  signal: AbortSignal,
): Promise<boolean> {
  const chain = certificatesOf(certificate).flatMap(readable);
  for (const type of types) {
    const found = await client.find(type, { name }, { signal });
    for (const { clientConfig } of found?.webhooks ?? []) {
      const roots = certificatesOf(decoded(clientConfig.caBundle)).flatMap(readable);
      if (!chain.some((one) => roots.some((root) => isSignedBy(one, root)))) return false;
    }
  }
  return true;
}

function changed(before: string, own: readonly string[], kind: BundleChange): string {
  const there = certificatesOf(before);
  const isOwn = (one: string) => own.some((each) => bare(each) === bare(one));
  switch (kind) {
    case "own":
      return textOf(own);
    case "join": {
      const others = there.filter((one) => !isOwn(one));
      return there.length - others.length === own.length ? before : textOf([...own, ...others]);
    }
    case "leave": {
      const others = there.filter((one) => !isOwn(one));
      // An empty bundle would have the API server trust what its own system does.
      return others.length === there.length || others.length === 0 ? before : textOf(others);
    }
  }
}

const isSignedBy = (one: X509Certificate, root: X509Certificate) =>
  one.fingerprint256 === root.fingerprint256 || (one.checkIssued(root) && one.verify(root.publicKey));

/** What somebody else put there is no reason to fail. */
function readable(pem: string): readonly X509Certificate[] {
  try {
    return [new X509Certificate(pem)];
  } catch {
    return [];
  }
}

/** Others break lines elsewhere. */
const bare = (pem: string) => pem.replaceAll(/\s/g, "");

const certificatesOf = (text: string): readonly string[] =>
  text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];

const textOf = (certificates: readonly string[]) => `${certificates.join("\n")}\n`;

const decoded = (caBundle = "") => Buffer.from(caBundle, "base64").toString("utf8");
