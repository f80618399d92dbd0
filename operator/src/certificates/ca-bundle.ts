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

/** Writes our authorities into the webhooks of one name: that field and nothing else, where it differs. */
export async function injectCaBundle(
  client: KubeClient,
  name: string,
  authorities: string,
  signal: AbortSignal,
): Promise<void> {
  const caBundle = Buffer.from(authorities).toString("base64");
  for (const type of types) {
    const found = await client.find(type, { name }, { signal });
    // The chart makes them; where it did not, there is nothing to serve.
    const stale = found?.webhooks?.filter(({ clientConfig }) => clientConfig.caBundle !== caBundle) ?? [];
    if (found?.webhooks === undefined || stale.length === 0) continue;
    const webhooks = found.webhooks.map((webhook) => ({ name: webhook.name, clientConfig: { caBundle } }));
    const { apiVersion, kind } = type;
    const applied = { apiVersion, kind, metadata: { name }, webhooks };
    await client.apply(type, applied, { fieldManager: "sallyport-certificates", force: true, signal });
  }
}
