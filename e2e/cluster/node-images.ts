/** What runs on the node before anything of ours: the pause container and CoreDNS. */
import { join } from "node:path";
import { dnsAddress, pauseName } from "./node-configuration.ts";

const dnsName = "localhost/coredns:1";

/** The image of the container that holds a pod's network. */
export const pauseImage = (bin: string) => ({
  name: pauseName,
  layers: [[{ path: "pause", kind: "file" as const, from: join(bin, "pause"), mode: 0o755 }]],
  entrypoint: ["/pause"],
  user: "65532:65532",
});

/** The image of CoreDNS. */
export const dnsImage = (bin: string) => ({
  name: dnsName,
  layers: [[{ path: "coredns", kind: "file" as const, from: join(bin, "coredns"), mode: 0o755 }]],
  entrypoint: ["/coredns"],
  user: "65532:65532",
});

/** CoreDNS as clusters have it, with the labels that policies name. */
export function dnsObjects(): object[] {
  const labels = { "k8s-app": "kube-dns" };
  const metadata = { name: "coredns", namespace: "kube-system", labels };
  const ports = [
    { name: "dns", port: 53, targetPort: 1053, protocol: "UDP" },
    { name: "dns-tcp", port: 53, targetPort: 1053, protocol: "TCP" },
  ];
  const container = {
    name: "coredns",
    image: dnsName,
    imagePullPolicy: "Never",
    args: ["-conf", "/etc/coredns/Corefile"],
    ports: [
      { name: "dns", containerPort: 1053, protocol: "UDP" },
      { name: "dns-tcp", containerPort: 1053, protocol: "TCP" },
    ],
    volumeMounts: [{ name: "config", mountPath: "/etc/coredns" }],
    readinessProbe: { httpGet: { path: "/ready", port: 8181 }, periodSeconds: 1 },
  };
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRole",
      metadata: { name: "system:coredns" },
      rules: [
        {
          apiGroups: [""],
          resources: ["services", "pods", "namespaces", "endpoints"],
          verbs: ["list", "watch"],
        },
        { apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["list", "watch"] },
      ],
    },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRoleBinding",
      metadata: { name: "system:coredns" },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "system:coredns" },
      subjects: [{ kind: "ServiceAccount", name: "coredns", namespace: "kube-system" }],
    },
    { apiVersion: "v1", kind: "ConfigMap", metadata, data: { Corefile: corefile } },
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata,
      spec: {
        replicas: 1,
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            serviceAccountName: "coredns",
            priorityClassName: "system-cluster-critical",
            containers: [container],
            volumes: [{ name: "config", configMap: { name: "coredns" } }],
          },
        },
      },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { ...metadata, name: "kube-dns" },
      spec: { selector: labels, clusterIP: dnsAddress, ports },
    },
  ];
}

const corefile = `.:1053 {
  errors
  ready :8181
  kubernetes cluster.local in-addr.arpa {
    pods insecure
    ttl 5
  }
}
`;
