/** How a real cluster is had: one that is given, kind where Docker runs, or our own node. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { accessCluster, type Cluster } from "./access.ts";
import { issuerOf } from "./api-server.ts";
import { startKind } from "./kind.ts";
import { must, run } from "./kubectl.ts";
import { nodeHindrance, startNode } from "./node.ts";
import { canHavePrograms, isOnPath, nodeModules } from "./programs.ts";

/** Starts, or finds, a cluster; fails where there is no way to have one, and says what is missing. */
export async function startCluster(): Promise<Cluster> {
  if (process.env.KUBECONFIG) return givenCluster(process.env.KUBECONFIG);
  if (await dockerAnswers()) {
    if (isOnPath("kind")) return startKind();
    console.error("Docker runs but the command kind is not there; trying a node of our own");
  }
  const hindrance = nodeHindrance();
  if (hindrance === undefined && (await canHavePrograms(nodeModules))) return startNode();
  throw new Error(
    "no cluster can be had here: set KUBECONFIG, or start Docker with kind installed, or (on Linux, as root, with " +
      `nftables) install Go${hindrance === undefined ? "" : `; ${hindrance}`}`,
  );
}

async function dockerAnswers(): Promise<boolean> {
  if (!isOnPath("docker")) return false;
  return (await run("docker", ["info", "--format", "{{.ServerVersion}}"])).code === 0;
}

async function givenCluster(kubeconfig: string): Promise<Cluster> {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-given-"));
  const access = accessCluster("kubectl", kubeconfig, folder);
  await access.kubectl("version", "-o", "json");
  const command = process.env.SALLYPORT_LOAD_IMAGE;
  return {
    ...access,
    ...{ kind: "given", folder, issuer: await issuerOf(access.kubectl) },
    enforcesNetworkPolicy: process.env.SALLYPORT_NETWORK_POLICY === "enforced",
    loadImage: async (archive) => {
      // How an image gets onto somebody's nodes is theirs to say.
      if (!command) throw new Error("set SALLYPORT_LOAD_IMAGE to a command that loads an OCI archive");
      await must(command, [archive]);
    },
    close: () => rm(folder, { recursive: true, force: true }),
  };
}
