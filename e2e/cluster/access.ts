import { join } from "node:path";
import type { ApiServer } from "./api-server.ts";
import { writeImpersonation } from "./kubeconfig.ts";
import { createKubectl, requestToken } from "./kubectl.ts";

/** What tests ask of a cluster, however it was had. */
export type ClusterAccess = Pick<ApiServer, "kubeconfig" | "kubectl" | "user" | "serviceAccountToken">;

/** A cluster with at least one node that runs pods. */
export interface Cluster extends ClusterAccess, Pick<ApiServer, "folder" | "close"> {
  readonly kind: "given" | "kind" | "node";
  /** False where it is not known whether the network plugin enforces NetworkPolicy. */
  readonly enforcesNetworkPolicy: boolean;
  readonly issuer: string;
  /** Makes the image of an OCI archive available to pods with `imagePullPolicy: Never`. */
  loadImage(archive: string): Promise<void>;
}

/** Speaks to a cluster that runs: as its administrator, and as users that the administrator impersonates. */
export function accessCluster(program: string, kubeconfig: string, folder: string): ClusterAccess {
  const kubectl = createKubectl(program, kubeconfig);
  let users = 0;
  return {
    kubeconfig,
    kubectl,
    user: async (name, groups = []) => {
      users += 1;
      const path = join(folder, `as-${process.pid}-${users}.kubeconfig`);
      return createKubectl(program, await writeImpersonation(path, kubectl, { name, groups }));
    },
    serviceAccountToken: (namespace, name, audiences = []) =>
      requestToken(kubectl, { namespace, name, audiences }),
  };
}
