import { writeFile } from "node:fs/promises";
import type { IssuedCertificate } from "../targets/certificates.ts";
import type { Kubectl } from "./kubectl.ts";

/** What a client needs to reach an API server. */
export interface ApiAddress {
  readonly url: string;
  readonly caPem: string;
}

/** Who a kubeconfig speaks as. */
export type Credential = { readonly certificate: IssuedCertificate } | { readonly token: string };

/** Writes a kubeconfig with everything inline: it can be copied anywhere. */
export async function writeKubeconfig(
  path: string,
  api: ApiAddress,
  credential: Credential,
): Promise<string> {
  const base64 = (text: string) => Buffer.from(text).toString("base64");
  const user =
    "token" in credential
      ? { token: credential.token }
      : {
          "client-certificate-data": base64(credential.certificate.certPem),
          "client-key-data": base64(credential.certificate.keyPem),
        };
  const config = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [
      { name: "test", cluster: { server: api.url, "certificate-authority-data": base64(api.caPem) } },
    ],
    users: [{ name: "test", user }],
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    "current-context": "test",
  };
  await writeFile(path, `${JSON.stringify(config, undefined, 2)}\n`, { mode: 0o600 });
  return path;
}

/** Writes a kubeconfig that acts as another user: for clusters whose authority is not ours to issue certificates. */
export async function writeImpersonation(
  path: string,
  admin: Kubectl,
  user: { readonly name: string; readonly groups: readonly string[] },
): Promise<string> {
  const config = JSON.parse(await admin("config", "view", "--raw", "--minify", "-o", "json"));
  config.users[0].user.as = user.name;
  config.users[0].user["as-groups"] = user.groups;
  await writeFile(path, `${JSON.stringify(config, undefined, 2)}\n`, { mode: 0o600 });
  return path;
}
