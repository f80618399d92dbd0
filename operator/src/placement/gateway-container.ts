import { createHash } from "node:crypto";
import type { ProtectedResource } from "@sallyport/crds";
import type { ContainerSpec, GatewaySettings, ServerPods, VolumeSpec } from "./model.ts";
import {
  adminPort,
  controlAudience,
  gatewayContainerName,
  listenPort,
  maskingKeyName,
  namesOf,
} from "./names.ts";
import { isOwnCluster, ownClusterSources } from "./own-cluster.ts";

/** The gateway as both placements hold it: the container, its volumes, and a hash of the two. */
export interface RenderedGateway {
  readonly container: ContainerSpec;
  readonly volumes: readonly VolumeSpec[];
  readonly rendering: string;
}

const identityPath = "/var/run/secrets/sallyport/identity";
const upstreamPath = "/var/run/secrets/sallyport/upstream";
const keyPath = "/var/run/secrets/sallyport/key";
const statePath = "/var/lib/sallyport";

/**
 * Renders the gateway's container for Pod Security `restricted`. Its token and the upstream secrets are volumes that
 * it alone mounts; secrets are optional, so that a missing one is reported by the gateway and not by a pod that hangs.
 */
export function renderGateway(
  resource: ProtectedResource,
  settings: GatewaySettings,
  server: ServerPods | undefined,
): RenderedGateway {
  const isSidecar = resource.spec.placement.mode === "Sidecar";
  const port = listenPort(resource) ?? 0;
  const container: ContainerSpec = {
    name: gatewayContainerName,
    image: settings.image,
    imagePullPolicy: settings.imagePullPolicy,
    args: ["gateway"],
    env: environment(resource, settings, server),
    ports: [
      { name: "gateway", containerPort: port, protocol: "TCP" },
      { name: "gw-admin", containerPort: adminPort, protocol: "TCP" },
    ],
    resources: resource.spec.placement.resources ?? defaultResources,
    securityContext: {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ["ALL"] },
      privileged: false,
      readOnlyRootFilesystem: true,
      runAsNonRoot: true,
      runAsUser: settings.userId,
      runAsGroup: settings.userId,
      seccompProfile: { type: "RuntimeDefault" },
    },
    ...probes(isSidecar, port),
    volumeMounts: [
      { name: "sallyport-identity", mountPath: identityPath, readOnly: true },
      { name: "sallyport-upstream", mountPath: upstreamPath, readOnly: true },
      { name: "sallyport-key", mountPath: keyPath, readOnly: true },
      { name: "sallyport-state", mountPath: statePath },
      { name: "sallyport-tmp", mountPath: "/tmp" },
    ],
    // A native sidecar: started before the application's containers, ended after them.
    ...(isSidecar && { restartPolicy: "Always" }),
  };
  const volumes = volumesOf(resource);
  return { container, volumes, rendering: hashOf({ container, volumes }) };
}

/** A short hash that is the same for the same value, whatever the order of its keys. */
export function hashOf(value: unknown): string {
  return createHash("sha256").update(canonical(value)).digest("hex").slice(0, 16);
}

const defaultResources = { requests: { cpu: "50m", memory: "128Mi" }, limits: { memory: "256Mi" } };

function environment(
  resource: ProtectedResource,
  settings: GatewaySettings,
  server: ServerPods | undefined,
): readonly { readonly name: string; readonly value?: string; readonly valueFrom?: unknown }[] {
  const { metadata, spec } = resource;
  const own = (name: string, fieldPath: string) => ({
    name,
    valueFrom: { fieldRef: { apiVersion: "v1", fieldPath } },
  });
  const values: Record<string, string> = {
    SALLYPORT_CONTROL: settings.control,
    SALLYPORT_CONTROL_CA: `${identityPath}/ca.crt`,
    SALLYPORT_CONTROL_TOKEN: `${identityPath}/token`,
    ...(settings.recorder !== "" && { SALLYPORT_RECORDER: settings.recorder }),
    SALLYPORT_RESOURCE: `${metadata.namespace ?? "default"}/${metadata.name}`,
    SALLYPORT_SECRETS: upstreamPath,
    SALLYPORT_MASKING_KEY: `${keyPath}/${maskingKeyName}`,
    SALLYPORT_STATE: statePath,
    SALLYPORT_LISTEN: "0.0.0.0",
    SALLYPORT_LISTEN_PORT: String(listenPort(resource) ?? 0),
    SALLYPORT_PROTOCOL: spec.protocol,
    SALLYPORT_ADMIN: `0.0.0.0:${adminPort}`,
    SALLYPORT_DRAIN: String(settings.drainSeconds),
  };
  // Beside the server it is reached over loopback: another pod of the same Service would refuse the connection.
  const beside = loopback(resource, server);
  if (beside !== undefined) values.SALLYPORT_UPSTREAM = beside;
  return [
    ...Object.entries(values).map(([name, value]) => ({ name, value })),
    own("SALLYPORT_POD_NAME", "metadata.name"),
    own("SALLYPORT_POD_UID", "metadata.uid"),
    own("SALLYPORT_POD_NAMESPACE", "metadata.namespace"),
  ];
}

function loopback(resource: ProtectedResource, server: ServerPods | undefined): string | undefined {
  const { endpoint, placement } = resource.spec;
  if (placement.mode !== "Sidecar" || endpoint.serviceRef === undefined) return undefined;
  const port = typeof server?.targetPort === "number" ? server.targetPort : endpoint.serviceRef.port;
  return `127.0.0.1:${port}`;
}

function probes(isSidecar: boolean, port: number): Readonly<Record<string, unknown>> {
  const http = (path: string) => ({ httpGet: { path, port: adminPort, scheme: "HTTP" } });
  return {
    // The listener answers before it has policy (57P03), so that a database never waits for the operator.
    startupProbe: { tcpSocket: { port }, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 120 },
    livenessProbe: { ...http("/healthz"), periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6 },
    // A sidecar's readiness would be the database's, and take it out of its own Services.
    ...(!isSidecar && {
      readinessProbe: { ...http("/readyz"), periodSeconds: 2, timeoutSeconds: 2, failureThreshold: 3 },
    }),
  };
}

function volumesOf(resource: ProtectedResource): readonly VolumeSpec[] {
  const token = { audience: controlAudience, expirationSeconds: 3600, path: "token" };
  const authorities = { name: namesOf(resource).authorities, items: [{ key: "ca.crt", path: "ca.crt" }] };
  return [
    {
      name: "sallyport-identity",
      projected: {
        defaultMode: 0o444,
        sources: [{ serviceAccountToken: token }, { configMap: authorities }],
      },
    },
    { name: "sallyport-upstream", projected: { defaultMode: 0o444, sources: upstreamSecrets(resource) } },
    // Not optional: hashes and host keys of a key that one pod made for itself would be that pod's alone.
    {
      name: "sallyport-key",
      projected: {
        defaultMode: 0o444,
        sources: [
          { secret: { name: namesOf(resource).key, items: [{ key: maskingKeyName, path: maskingKeyName }] } },
        ],
      },
    },
    { name: "sallyport-state", emptyDir: { sizeLimit: "256Mi" } },
    { name: "sallyport-tmp", emptyDir: { sizeLimit: "16Mi" } },
  ];
}

/** Each secret as a folder of its keys; only keys that the gateway reads are named. */
function upstreamSecrets(resource: ProtectedResource): readonly unknown[] {
  const { credentials, options, protocol, tls } = resource.spec;
  const keys = new Map<string, Set<string>>();
  const add = (name: string, ...more: readonly string[]) => {
    keys.set(name, new Set([...(keys.get(name) ?? []), ...more]));
  };
  const isOwn = isOwnCluster(resource);
  const more = protocolKeys[protocol] ?? [];
  for (const { secretRef } of isOwn ? [] : credentials) {
    add(secretRef.name, "username", "password", "tls.crt", "tls.key", ...more);
  }
  if (tls.certificateRef !== undefined) add(tls.certificateRef.name, "tls.crt", "tls.key");
  if (isOwn) return [...ownClusterSources(resource), ...sourcesOf(keys)];
  if (tls.upstream.caRef !== undefined) add(tls.upstream.caRef.name, tls.upstream.caRef.key);
  const hostKey = protocol === "ssh" ? hostKeyOf(options?.hostKeyRef) : undefined;
  if (hostKey !== undefined) add(hostKey.name, hostKey.key);
  return sourcesOf(keys);
}

/** What secrets of a protocol hold beside names, passwords and certificates. */
const protocolKeys: Readonly<Record<string, readonly string[]>> = {
  ssh: ["ssh-privatekey"],
  kubernetes: ["kubeconfig"],
};

const sourcesOf = (keys: ReadonlyMap<string, ReadonlySet<string>>): readonly unknown[] =>
  [...keys].map(([name, names]) => ({
    secret: {
      name,
      optional: true,
      items: [...names].map((key) => ({ key, path: `${name}/${key}` })),
    },
  }));

/** The options of a protocol are open: what is no reference names nothing, and the gateway says what is missing. */
function hostKeyOf(ref: unknown): { readonly name: string; readonly key: string } | undefined {
  const { name, key = "ssh-privatekey" } = (ref ?? {}) as { readonly name?: unknown; readonly key?: unknown };
  const isUsable = (one: unknown): one is string => typeof one === "string" && secretWord.test(one);
  return isUsable(name) && isUsable(key) ? { name, key } : undefined;
}

const secretWord = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$/;

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const entries = Object.entries(value).filter(([, one]) => one !== undefined);
  entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, one]) => `${JSON.stringify(key)}:${canonical(one)}`).join()}}`;
}
