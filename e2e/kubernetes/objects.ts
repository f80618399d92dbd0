/** The objects that scenarios are made of: a database, a client, and what they need to be let in by Pod Security. */
import { gatewayImageName } from "../image/gateway.ts";
import { postgresImageName } from "../image/postgres/image.ts";
import type { KubernetesObject } from "./scenario.ts";

/** What Pod Security `restricted` asks of a pod. */
export const restrictedPod = { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } };

/** What it asks of a container, and a root file system that nobody writes to. */
export const restrictedContainer = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ["ALL"] },
};

/** The superuser's password of the databases of scenarios. */
export const databasePassword = "only-the-gateway-knows";

/** How a database differs from others. */
export interface DatabaseOptions {
  /** Lines of pg_hba.conf in place of the one that asks everybody for a password. */
  readonly hba?: string;
  /** The Secret that holds its certificate: it speaks TLS. */
  readonly tls?: string;
}

/** PostgreSQL as a StatefulSet of one, its Service, and its credential in Secret `<name>-credential`. */
export function database(
  name: string,
  initSql: string,
  { hba, tls }: DatabaseOptions = {},
): KubernetesObject[] {
  const labels = { app: name };
  const credential = `${name}-credential`;
  return [
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: credential },
      stringData: { username: "postgres", password: databasePassword },
    },
    {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: `${name}-init` },
      data: { "init.sql": initSql },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name },
      spec: { selector: labels, ports: [{ name: "postgres", port: 5432 }] },
    },
    {
      apiVersion: "apps/v1",
      kind: "StatefulSet",
      metadata: { name, labels },
      spec: {
        serviceName: name,
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            automountServiceAccountToken: false,
            securityContext: { ...restrictedPod, fsGroup: 999 },
            terminationGracePeriodSeconds: 5,
            containers: [
              {
                name: "postgres",
                image: postgresImageName,
                imagePullPolicy: "Never",
                securityContext: restrictedContainer,
                env: [
                  {
                    name: "POSTGRES_PASSWORD",
                    valueFrom: { secretKeyRef: { name: credential, key: "password" } },
                  },
                  ...(hba === undefined ? [] : [{ name: "POSTGRES_HBA", value: hba }]),
                ],
                ports: [{ name: "postgres", containerPort: 5432 }],
                readinessProbe: { tcpSocket: { port: "postgres" }, periodSeconds: 1 },
                volumeMounts: [
                  { name: "data", mountPath: "/data" },
                  { name: "tmp", mountPath: "/tmp" },
                  { name: "init", mountPath: "/init" },
                  ...(tls === undefined ? [] : [{ name: "tls", mountPath: "/tls" }]),
                ],
              },
            ],
            volumes: [
              { name: "data", emptyDir: {} },
              { name: "tmp", emptyDir: {} },
              { name: "init", configMap: { name: `${name}-init` } },
              ...(tls === undefined ? [] : [{ name: "tls", secret: { secretName: tls } }]),
            ],
          },
        },
      },
    },
  ];
}

/** A pod with psql that waits for commands; `ca` is the ConfigMap whose ca.crt is mounted at /ca/ca.crt. */
export function clientPod(name: string, options: { readonly ca?: string } = {}): KubernetesObject {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, labels: { app: name } },
    spec: {
      automountServiceAccountToken: false,
      securityContext: restrictedPod,
      terminationGracePeriodSeconds: 0,
      containers: [
        {
          name: "client",
          image: postgresImageName,
          imagePullPolicy: "Never",
          args: ["sleep", "86400"],
          securityContext: restrictedContainer,
          volumeMounts: [
            { name: "tmp", mountPath: "/tmp" },
            ...(options.ca ? [{ name: "ca", mountPath: "/ca" }] : []),
          ],
        },
      ],
      volumes: [
        { name: "tmp", emptyDir: {} },
        ...(options.ca ? [{ name: "ca", configMap: { name: options.ca } }] : []),
      ],
    },
  };
}

/** A gateway as a Deployment of its own, from a ConfigMap of manifests: how it runs without an operator. */
export function standaloneGateway(gateway: {
  readonly name: string;
  readonly port: number;
  /** ConfigMap with manifests. */
  readonly manifests: string;
  /** Secrets that the manifests name, each mounted under its own name. */
  readonly secrets: readonly string[];
}): KubernetesObject[] {
  const { name, port } = gateway;
  const labels = { app: name };
  return [
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name },
      spec: { selector: labels, ports: [{ name: "postgres", port: 5432, targetPort: port }] },
    },
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name, labels },
      spec: {
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            automountServiceAccountToken: false,
            securityContext: { ...restrictedPod, fsGroup: 65532 },
            containers: [
              {
                name: "gateway",
                image: gatewayImageName,
                imagePullPolicy: "Never",
                args: [
                  "gateway",
                  ...["--manifests", "/manifests", "--secrets", "/secrets", "--state", "/state"],
                  ...["--listen", "0.0.0.0", "--admin", "0.0.0.0:9464", "--drain", "2"],
                ],
                securityContext: restrictedContainer,
                ports: [
                  { name: "postgres", containerPort: port },
                  { name: "admin", containerPort: 9464 },
                ],
                readinessProbe: { httpGet: { path: "/readyz", port: "admin" }, periodSeconds: 1 },
                volumeMounts: [
                  { name: "manifests", mountPath: "/manifests", readOnly: true },
                  { name: "state", mountPath: "/state" },
                  ...gateway.secrets.map((secret) => ({
                    name: secret,
                    mountPath: `/secrets/${secret}`,
                    readOnly: true,
                  })),
                ],
              },
            ],
            volumes: [
              { name: "manifests", configMap: { name: gateway.manifests } },
              { name: "state", emptyDir: {} },
              ...gateway.secrets.map((name) => ({ name, secret: { secretName: name } })),
            ],
          },
        },
      },
    },
  ];
}
