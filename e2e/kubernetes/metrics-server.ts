/** A metrics API for scenarios about autoscaling: the real metrics-server, built once from the module of that name. */
import { join } from "node:path";
import type { ClusterAccess } from "../cluster/access.ts";
import { waitFor } from "../cluster/processes.ts";
import { fileEntry } from "../image/files.ts";
import type { ImageSpec } from "../image/pack.ts";
import { goModule } from "./go-program.ts";
import { restrictedContainer, restrictedPod } from "./objects.ts";
import type { KubernetesObject } from "./scenario.ts";

const imageName = "localhost/sallyport-test-metrics-server:1";

/** Its image; the program takes some five minutes to build, the first time only. */
export async function metricsServerImage(): Promise<ImageSpec> {
  const program = await goModule(join(import.meta.dirname, "metrics-server"));
  return {
    name: imageName,
    layers: [[await fileEntry(program, "metrics-server")]],
    entrypoint: ["/metrics-server"],
    user: "65532:65532",
  };
}

/** Gives a cluster that has none a metrics API, until `stopMetricsServer`. */
export async function startMetricsServer({ kubectl }: ClusterAccess): Promise<void> {
  await kubectl.apply(metricsServerObjects());
  try {
    await kubectl("wait", "--for=condition=Available", `apiservice/${metricsApi}`, "--timeout=90s");
    const hasMetrics = async () => {
      const { code } = await kubectl.try(undefined, "top", "nodes", "--no-headers");
      return code === 0 || undefined;
    };
    await waitFor("the node's metrics", hasMetrics, { ms: 90_000, pauseMs: 500 });
  } catch (error) {
    const logs = ["-n", "kube-system", "logs", `deployment/${name}`, "--tail=40"];
    console.log((await kubectl.try(undefined, ...logs)).stdout);
    throw error;
  }
}

/** Takes it away, if it is there; never one that is the cluster's own. */
export async function stopMetricsServer({ kubectl }: ClusterAccess): Promise<void> {
  // The API first: as long as it is known and silent, no namespace can be removed.
  const kinds = "apiservice,deployment,service,rolebinding,clusterrolebinding,clusterrole,serviceaccount";
  await kubectl("-n", "kube-system", "delete", kinds, "-l", `k8s-app=${name}`, "--ignore-not-found");
}

/** The name of its APIService. */
export const metricsApi = "v1beta1.metrics.k8s.io";

const name = "e2e-metrics-server";
const rbac = "rbac.authorization.k8s.io";

/** As its own manifests have it, but that the kubelet's certificate is checked. */
function metricsServerObjects(): readonly KubernetesObject[] {
  const labels = { "k8s-app": name };
  const metadata = { name, namespace: "kube-system", labels };
  const ofCluster = (name: string) => ({ name, labels });
  const subjects = [{ kind: "ServiceAccount", name, namespace: "kube-system" }];
  const boundTo = (role: string) => ({
    ...{
      apiVersion: `${rbac}/v1`,
      kind: "ClusterRoleBinding",
      metadata: ofCluster(`${name}:${role}`),
      subjects,
    },
    roleRef: { apiGroup: rbac, kind: "ClusterRole", name: role },
  });
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata },
    {
      ...{ apiVersion: `${rbac}/v1`, kind: "ClusterRole", metadata: ofCluster(`system:${name}`) },
      rules: [
        { apiGroups: [""], resources: ["nodes/metrics"], verbs: ["get"] },
        { apiGroups: [""], resources: ["pods", "nodes"], verbs: ["get", "list", "watch"] },
      ],
    },
    boundTo(`system:${name}`),
    boundTo("system:auth-delegator"),
    {
      ...{ apiVersion: `${rbac}/v1`, kind: "RoleBinding", metadata, subjects },
      roleRef: { apiGroup: rbac, kind: "Role", name: "extension-apiserver-authentication-reader" },
    },
    {
      ...{ apiVersion: "v1", kind: "Service", metadata },
      spec: { selector: labels, ports: [{ port: 443, targetPort: "https" }] },
    },
    {
      ...{ apiVersion: "apps/v1", kind: "Deployment", metadata },
      spec: {
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            serviceAccountName: name,
            priorityClassName: "system-cluster-critical",
            securityContext: restrictedPod,
            containers: [
              {
                ...{ name, image: imageName, imagePullPolicy: "Never", securityContext: restrictedContainer },
                args: [
                  ...[
                    "--cert-dir=/tmp",
                    "--secure-port=10250",
                    "--metric-resolution=10s",
                    "--kubelet-request-timeout=5s",
                  ],
                  ...["--kubelet-preferred-address-types=InternalIP", "--kubelet-use-node-status-port"],
                  "--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
                ],
                ports: [{ name: "https", containerPort: 10_250 }],
                readinessProbe: {
                  httpGet: { path: "/readyz", port: "https", scheme: "HTTPS" },
                  ...{ periodSeconds: 1, failureThreshold: 3 },
                },
                volumeMounts: [{ name: "tmp", mountPath: "/tmp" }],
              },
            ],
            volumes: [{ name: "tmp", emptyDir: {} }],
          },
        },
      },
    },
    {
      ...{ apiVersion: "apiregistration.k8s.io/v1", kind: "APIService", metadata: ofCluster(metricsApi) },
      spec: {
        ...{ group: "metrics.k8s.io", version: "v1beta1" },
        service: { name, namespace: "kube-system" },
        // It signs its own certificate.
        insecureSkipTLSVerify: true,
        ...{ groupPriorityMinimum: 100, versionPriority: 100 },
      },
    },
  ];
}
