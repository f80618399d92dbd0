import type { ProtectedResource } from "@sallyport/crds";
import { renderGateway } from "./gateway-container.ts";
import { holds, type PodDocument } from "./inject.ts";
import type { ContainerSpec, GatewaySettings, ServerPods, VolumeSpec } from "./model.ts";
import { controlAudience, gatewayContainerName, gatewayLabel, namesOf } from "./names.ts";

/** Whether a pod may open the control stream for a resource, and whether it is of today. */
export type PodComparison =
  | { readonly kind: "current" }
  /** A true gateway of an earlier rendering: supplied, and counted as drift. */
  | { readonly kind: "drifted" }
  | { readonly kind: "foreign"; readonly message: string };

/**
 * Compares a live pod with the rendering. What proves a gateway must be equal: image, arguments, no command of its
 * own, its mounts and their volumes, no shared process namespace, and no other container with its token or secrets.
 */
export function comparePod(
  pod: PodDocument,
  resource: ProtectedResource,
  settings: GatewaySettings,
  server: ServerPods | undefined,
): PodComparison {
  const { container: wanted, volumes } = renderGateway(resource, settings, server);
  const isSidecar = resource.spec.placement.mode === "Sidecar";
  const { spec, metadata } = pod;
  const foreign = (message: string): PodComparison => ({ kind: "foreign", message });
  if (metadata.labels?.[gatewayLabel] !== namesOf(resource).label)
    return foreign("the pod is not of this resource");
  if (spec.hostNetwork === true || spec.hostPID === true || spec.shareProcessNamespace === true) {
    return foreign("the pod shares its host's network, or processes of its host or its containers");
  }
  const list = isSidecar ? (spec.initContainers ?? []) : spec.containers;
  const found = list[0];
  if (found === undefined || found.name !== gatewayContainerName)
    return foreign("the gateway does not come first");
  if (isSidecar && found.restartPolicy !== "Always") return foreign("the gateway is no native sidecar");
  const images = [settings.image, ...settings.acceptedImages];
  if (!images.includes(found.image)) return foreign("the image is none that is accepted");
  if (found.command !== undefined || !holds(found.args, wanted.args)) {
    return foreign("the gateway runs another command");
  }
  if (found.envFrom !== undefined || found.lifecycle !== undefined || !envIsOurs(found, wanted)) {
    return foreign("the gateway is started with another environment");
  }
  if (!holds(found.securityContext, wanted.securityContext) || isCapable(found))
    return foreign("the gateway has other rights");
  if (probesOf(found).some((probe) => probe.exec !== undefined))
    return foreign("a probe runs a program in the gateway's place");
  const stray = mountsOf(found).find((mount) => !isOurMount(mount, wanted, spec.volumes ?? [], volumes));
  if (stray !== undefined) return foreign(`the gateway has something else at ${stray.mountPath}`);
  const others = [...(spec.initContainers ?? []), ...spec.containers, ...ephemeral(spec)].filter(
    (container) => container !== found,
  );
  if (ephemeral(spec).length > 0) return foreign("a debugging container was added to the pod");
  const secret = secretsOf(volumes);
  const own = new Set(volumes.map(({ name }) => name));
  const intruder = others.find((container) => reads(container, spec.volumes ?? [], secret, own));
  if (intruder !== undefined)
    return foreign(`the container ${intruder.name} reads what is the gateway's alone`);
  const isSame =
    found.image === settings.image &&
    holds(found, wanted) &&
    volumes.every((volume) =>
      holds(
        spec.volumes?.find(({ name }) => name === volume.name),
        volume,
      ),
    );
  return isSame ? { kind: "current" } : { kind: "drifted" };
}

/** Every variable is one of ours: NODE_OPTIONS, say, would run another program in the gateway's name. */
function envIsOurs(found: ContainerSpec, wanted: ContainerSpec): boolean {
  const names = new Set((wanted.env as readonly { name: string }[]).map(({ name }) => name));
  const env = found.env;
  return Array.isArray(env) && env.every((one: { name?: string }) => names.has(one.name ?? ""));
}

function isCapable({ securityContext }: ContainerSpec): boolean {
  const { capabilities } = (securityContext ?? {}) as {
    readonly capabilities?: { readonly add?: readonly string[] };
  };
  return (capabilities?.add ?? []).length > 0;
}

function probesOf({ startupProbe, livenessProbe, readinessProbe }: ContainerSpec) {
  return [startupProbe, livenessProbe, readinessProbe].map(
    (probe) => (probe ?? {}) as { readonly exec?: unknown },
  );
}

interface Mount {
  readonly name: string;
  readonly mountPath: string;
}

function mountsOf({ volumeMounts }: ContainerSpec): readonly Mount[] {
  return (volumeMounts ?? []) as readonly Mount[];
}

/**
 * Whether a mount is one of the gateway's, of the same kind of volume: what lies over its program is another program, and
 * what others can read its keys from is no secret. Earlier releases have fewer, later ones more beside its secrets.
 */
function isOurMount(
  { name, mountPath }: Mount,
  wanted: ContainerSpec,
  volumes: readonly VolumeSpec[],
  ours: readonly VolumeSpec[],
): boolean {
  if (mountPath.includes("..")) return false;
  if (mountPath.startsWith("/var/run/secrets/") && !ours.some((volume) => volume.name === name)) return true;
  const isWanted = mountsOf(wanted).some((mount) => mount.name === name && mount.mountPath === mountPath);
  const kind = (list: readonly VolumeSpec[]) => {
    const volume = list.find((one) => one.name === name) ?? { name };
    return Object.keys(volume).find((key) => key !== "name");
  };
  return isWanted && kind(volumes) === kind(ours);
}

function ephemeral(spec: PodDocument["spec"]): readonly ContainerSpec[] {
  const { ephemeralContainers } = spec as { readonly ephemeralContainers?: readonly ContainerSpec[] };
  return ephemeralContainers ?? [];
}

function secretsOf(volumes: readonly VolumeSpec[]): ReadonlySet<string> {
  const names = new Set<string>();
  for (const source of volumes.flatMap(sourcesOf)) {
    if (source.secret?.name !== undefined) names.add(source.secret.name);
  }
  return names;
}

interface Source {
  readonly secret?: { readonly name?: string };
  readonly serviceAccountToken?: { readonly audience?: string };
}

function sourcesOf(volume: VolumeSpec): readonly Source[] {
  const { projected, secret } = volume as {
    readonly projected?: { readonly sources?: readonly Source[] };
    readonly secret?: { readonly secretName?: string };
  };
  if (secret?.secretName !== undefined) return [{ secret: { name: secret.secretName } }];
  return projected?.sources ?? [];
}

function reads(
  container: ContainerSpec,
  volumes: readonly VolumeSpec[],
  secrets: ReadonlySet<string>,
  own: ReadonlySet<string>,
): boolean {
  const guarded = new Set(
    volumes
      .filter(
        (volume) =>
          own.has(volume.name) ||
          sourcesOf(volume).some(
            ({ secret, serviceAccountToken }) =>
              serviceAccountToken?.audience === controlAudience || secrets.has(secret?.name ?? ""),
          ),
      )
      .map(({ name }) => name),
  );
  const { volumeMounts, env, envFrom } = container as {
    readonly volumeMounts?: readonly { readonly name: string }[];
    readonly env?: readonly { readonly valueFrom?: { readonly secretKeyRef?: { readonly name?: string } } }[];
    readonly envFrom?: readonly { readonly secretRef?: { readonly name?: string } }[];
  };
  return (
    (volumeMounts ?? []).some(({ name }) => guarded.has(name)) ||
    (env ?? []).some(({ valueFrom }) => secrets.has(valueFrom?.secretKeyRef?.name ?? "")) ||
    (envFrom ?? []).some(({ secretRef }) => secrets.has(secretRef?.name ?? ""))
  );
}
