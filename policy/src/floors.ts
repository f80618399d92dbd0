import { durationMs } from "@sallyport/crds/pure";
import type { Requirements } from "./documents.ts";

/** What of a ProtectedResource a ClusterAccessPolicy may require. */
export interface FlooredSpec {
  readonly recording: {
    readonly mode: "Required" | "BestEffort" | "Off";
    readonly durability: "Accepted" | "Durable";
    readonly content: readonly ("commands" | "responses" | "input")[];
    readonly retention?: string;
  };
  readonly bypassProtection: {
    readonly networkPolicy: "Enforce" | "Off";
    readonly exec: "Enforce" | "Off";
  };
}

const modes = ["Off", "BestEffort", "Required"] as const;
const contents = ["commands", "responses", "input"] as const;

/** The spec with all that is required of it; never less than what it says itself. */
export function withFloors<S extends FlooredSpec>(spec: S, requirements: readonly Requirements[]): S {
  return requirements.reduce(tightened, spec);
}

function tightened<S extends FlooredSpec>(spec: S, { recording, bypassProtection }: Requirements): S {
  const { mode, durability, content, retention } = spec.recording;
  const isRequired = modes.indexOf((recording?.mode ?? "Off") as "Off") > modes.indexOf(mode);
  const kept = longer(retention, recording?.retention);
  const { retention: _, ...rest } = spec.recording;
  const asked = new Set<string>([...content, ...(recording?.content ?? [])]);
  return {
    ...spec,
    recording: {
      ...rest,
      mode: isRequired ? recording?.mode : mode,
      durability: recording?.durability === "Durable" ? "Durable" : durability,
      content: contents.filter((one) => asked.has(one)),
      ...(kept !== undefined && { retention: kept }),
    },
    bypassProtection: {
      ...spec.bypassProtection,
      ...(bypassProtection?.networkPolicy === "Enforce" && { networkPolicy: "Enforce" }),
      ...(bypassProtection?.exec === "Enforce" && { exec: "Enforce" }),
    },
  };
}

/** Without a retention recordings stay for ever: nothing that is required is longer. */
function longer(own: string | undefined, required: string | undefined): string | undefined {
  if (own === undefined || required === undefined) return own;
  return (durationMs(required) ?? Number.POSITIVE_INFINITY) > (durationMs(own) ?? 0) ? required : own;
}

/** Whether a requirement says something that this build enforces, whole. */
export function isRequirement(value: unknown): value is Requirements {
  if (!isObject(value) || !hasOnly(value, ["recording", "bypassProtection"])) return false;
  const { recording = {}, bypassProtection = {} } = value;
  if (!isObject(recording) || !hasOnly(recording, ["mode", "durability", "content", "retention"]))
    return false;
  if (!isObject(bypassProtection) || !hasOnly(bypassProtection, ["networkPolicy", "exec"])) return false;
  const { mode, durability, content, retention } = recording;
  return (
    (mode === undefined || mode === "BestEffort" || mode === "Required") &&
    (durability === undefined || durability === "Durable") &&
    (content === undefined || (Array.isArray(content) && content.every((one) => contents.includes(one)))) &&
    (retention === undefined || (typeof retention === "string" && durationMs(retention) !== undefined)) &&
    [bypassProtection.networkPolicy, bypassProtection.exec].every(
      (one) => one === undefined || one === "Enforce",
    )
  );
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const hasOnly = (value: object, names: readonly string[]): boolean =>
  Object.keys(value).every((name) => names.includes(name));
