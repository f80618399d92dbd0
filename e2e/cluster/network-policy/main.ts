/**
 * Enforces NetworkPolicy on the tests' node, which no CNI plugin there does: watches pods, namespaces and policies and
 * writes one nftables table. Not for production: connections that are open stay open when a policy closes them, and a
 * pod that has just started is closed when its address is known, some milliseconds after it has it.
 * usage: node main.ts KUBECONFIG [COMMAND...]
 *   KUBECONFIG is JSON with everything inline; COMMAND is the nft of the node (`nft` where it is left out)
 */
import { readFile } from "node:fs/promises";
import { run } from "../kubectl.ts";
import { compileRules } from "./compile.ts";
import type { ClusterState, Namespace, NetworkPolicy, Pod } from "./objects.ts";
import { type ApiCredentials, watchObjects } from "./watch.ts";

const [kubeconfig = "", nft = "nft", ...nftArguments] = process.argv.slice(2);
const api = await credentials(kubeconfig);
const seen: { -readonly [K in keyof ClusterState]?: ClusterState[K] } = {};
let inForce = "";
let wanted = false;
let writing = false;

await Promise.all([
  watchObjects<Pod>(api, "/api/v1/pods", (pods) => void update({ pods })),
  watchObjects<Namespace>(api, "/api/v1/namespaces", (namespaces) => void update({ namespaces })),
  watchObjects<NetworkPolicy>(
    api,
    "/apis/networking.k8s.io/v1/networkpolicies",
    (policies) => void update({ policies }),
  ),
]);

/** One script at a time; what changes meanwhile is in the next one. */
async function update(change: Partial<ClusterState>): Promise<void> {
  Object.assign(seen, change);
  wanted = true;
  if (writing) return;
  writing = true;
  while (wanted) {
    wanted = false;
    const { pods, namespaces, policies } = seen;
    // Half of the picture would open what the other half closes.
    if (pods === undefined || namespaces === undefined || policies === undefined) break;
    const script = compileRules({ pods, namespaces, policies });
    if (script === inForce) continue;
    const { code, stderr } = await run(nft, [...nftArguments, "-f", "-"], script);
    if (code === 0) inForce = script;
    else console.error(`nft refused:\n${stderr}\n${script}`);
  }
  writing = false;
}

async function credentials(path: string): Promise<ApiCredentials> {
  const config = JSON.parse(await readFile(path, "utf8"));
  const decode = (text: string) => Buffer.from(text, "base64");
  const { cluster } = config.clusters[0];
  const { user } = config.users[0];
  return {
    url: cluster.server,
    ca: decode(cluster["certificate-authority-data"]),
    cert: decode(user["client-certificate-data"]),
    key: decode(user["client-key-data"]),
  };
}
