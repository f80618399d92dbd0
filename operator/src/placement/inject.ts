import type { ProtectedResource } from "@sallyport/crds";
import { renderGateway } from "./gateway-container.ts";
import type { ContainerSpec, GatewaySettings, ServerPods, VolumeSpec } from "./model.ts";
import { gatewayContainerName, gatewayLabel, namesOf, renderingAnnotation } from "./names.ts";

/** A pod as far as injection reads it. */
export interface PodDocument {
  readonly metadata: {
    readonly name?: string;
    readonly generateName?: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec: {
    readonly hostNetwork?: boolean;
    readonly hostPID?: boolean;
    readonly shareProcessNamespace?: boolean;
    readonly initContainers?: readonly ContainerSpec[];
    readonly containers: readonly ContainerSpec[];
    readonly volumes?: readonly VolumeSpec[];
  };
}

/** One operation of a JSON patch (RFC 6902). */
export interface PatchOperation {
  readonly op: "add" | "replace" | "remove";
  readonly path: string;
  readonly value?: unknown;
}

/** What is to be done with a pod. */
export type Injection =
  | { readonly kind: "patch"; readonly patch: readonly PatchOperation[] }
  | { readonly kind: "unchanged" }
  | { readonly kind: "refused"; readonly message: string };

/** Puts the gateway first among a pod's init containers; a pod that already holds it as rendered is left alone. */
export function injectGateway(
  pod: PodDocument,
  resource: ProtectedResource,
  settings: GatewaySettings,
  server: ServerPods | undefined,
): Injection {
  const { spec, metadata } = pod;
  if (spec.hostNetwork === true) {
    return {
      kind: "refused",
      message: "a pod on the host's network cannot be protected by a gateway beside it",
    };
  }
  if (spec.shareProcessNamespace === true) {
    return {
      kind: "refused",
      message: "containers that share processes could read the gateway's credentials",
    };
  }
  if (spec.containers.some(({ name }) => name === gatewayContainerName)) {
    return { kind: "refused", message: `the container name ${gatewayContainerName} is taken by the gateway` };
  }
  const { container, volumes, rendering } = renderGateway(resource, settings, server);
  const patch = [
    ...containerPatch(spec.initContainers ?? [], container, spec.initContainers !== undefined),
    ...volumePatch(spec.volumes ?? [], volumes, spec.volumes !== undefined),
    ...keyPatch("labels", metadata.labels, gatewayLabel, namesOf(resource).label),
    ...keyPatch("annotations", metadata.annotations, renderingAnnotation, rendering),
  ];
  return patch.length === 0 ? { kind: "unchanged" } : { kind: "patch", patch };
}

function containerPatch(
  existing: readonly ContainerSpec[],
  container: ContainerSpec,
  isList: boolean,
): readonly PatchOperation[] {
  const path = "/spec/initContainers";
  if (!isList) return [{ op: "add", path, value: [container] }];
  const at = existing.findIndex(({ name }) => name === container.name);
  const found = existing[at];
  if (found === undefined) return [{ op: "add", path: `${path}/0`, value: container }];
  // Another injector may have put its own before: first again. What somebody else wrote under our name is replaced.
  if (at === 0 && holds(found, container)) return [];
  return [
    { op: "remove", path: `${path}/${at}` },
    { op: "add", path: `${path}/0`, value: container },
  ];
}

function volumePatch(
  existing: readonly VolumeSpec[],
  volumes: readonly VolumeSpec[],
  isList: boolean,
): readonly PatchOperation[] {
  if (!isList) return [{ op: "add", path: "/spec/volumes", value: volumes }];
  return volumes.flatMap((volume): readonly PatchOperation[] => {
    const at = existing.findIndex(({ name }) => name === volume.name);
    const found = existing[at];
    if (found === undefined) return [{ op: "add", path: "/spec/volumes/-", value: volume }];
    return holds(found, volume) ? [] : [{ op: "replace", path: `/spec/volumes/${at}`, value: volume }];
  });
}

function keyPatch(
  field: "labels" | "annotations",
  existing: Readonly<Record<string, string>> | undefined,
  key: string,
  value: string,
): readonly PatchOperation[] {
  if (existing === undefined) return [{ op: "add", path: `/metadata/${field}`, value: { [key]: value } }];
  if (existing[key] === value) return [];
  const pointer = key.replaceAll("~", "~0").replaceAll("/", "~1");
  return [{ op: "add", path: `/metadata/${field}/${pointer}`, value }];
}

/** Whether everything wanted is there as wanted; the API server may have added defaults beside it. */
export function holds(found: unknown, wanted: unknown): boolean {
  if (wanted === undefined) return true;
  if (Array.isArray(wanted)) {
    return (
      Array.isArray(found) &&
      found.length === wanted.length &&
      wanted.every((one, at) => holds(found[at], one))
    );
  }
  if (typeof wanted === "object" && wanted !== null) {
    if (typeof found !== "object" || found === null) return false;
    return Object.entries(wanted).every(([key, one]) => holds((found as Record<string, unknown>)[key], one));
  }
  return (
    found === wanted || (isQuantity(found) && isQuantity(wanted) && quantity(found) === quantity(wanted))
  );
}

/** The API server writes `1000m` as `1`. */
function isQuantity(value: unknown): value is string | number {
  return typeof value === "number" || (typeof value === "string" && quantityForm.test(value));
}

function quantity(value: string | number): number {
  const [, amount = "0", suffix = ""] = quantityForm.exec(String(value)) ?? [];
  return Number(amount) * (suffixes[suffix] ?? 1);
}

const quantityForm = /^([0-9]+(?:\.[0-9]+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?$/;
const suffixes: Readonly<Record<string, number>> = {
  m: 0.001,
  ...Object.fromEntries(["k", "M", "G", "T", "P", "E"].map((name, at) => [name, 1000 ** (at + 1)])),
  ...Object.fromEntries(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].map((name, at) => [name, 1024 ** (at + 1)])),
};
