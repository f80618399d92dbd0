/**
 * Fields of objects that policy hides: `core.secrets.data` (group, resource, top-level field) in answers of every form
 * that can be read. Forms that cannot are not asked for.
 */
import type { SessionMasking } from "@sallyport/policy";
import { isRecord } from "./facts.ts";
import type { ApiRequest } from "./request.ts";

/** What is hidden from a session in the objects of one resource. */
export interface HiddenFields {
  readonly fields: readonly string[];
  /** True where whoever sees them hidden may not write objects of the resource either. */
  readonly deniesWrites: boolean;
}

const candidates = ["data", "stringData", "binaryData", "spec", "status"];
const keyed = new Set(["data", "stringData", "binaryData"]);
/** A value that a Secret takes for data, and that reads as what it is. */
const hiddenText = "***";
/** Annotations in which tools keep the whole object that they applied. */
const appliedNames = /last-applied|\/original$|\/applied$/;

/** What of the request's resource is hidden; undefined: nothing. */
export function hiddenFields(masking: SessionMasking, request: ApiRequest): HiddenFields | undefined {
  if (masking.columns.isEmpty || !request.isResource) return undefined;
  const group = request.group === "" ? "core" : request.group;
  const named = (field: string) => masking.columns.names(`${group}.${request.resource}.${field}`);
  const fields = candidates.filter(named);
  if (fields.length === 0) return undefined;
  // What a Secret is given as text is kept as data.
  if (fields.includes("data") && !fields.includes("stringData")) fields.push("stringData");
  return { fields, deniesWrites: masking.maskedWrites === "Deny" };
}

/** The forms of an answer that can be masked, of those that the client takes; undefined where there is none. */
export function maskableAccept(accept: string | undefined): string | undefined {
  const asked = accept === undefined || accept.trim() === "" ? ["application/json"] : accept.split(",");
  const kept = asked
    .map((one) => one.trim())
    .filter((one) => /^(application\/json\b|application\/\*|\*\/\*)/.test(one))
    .map((one) => one.replace(/^(application\/\*|\*\/\*)/, "application/json"));
  return kept.length === 0 ? undefined : kept.join(", ");
}

/** An object, a list, a table or a watch event with the fields hidden. */
export function masked(value: unknown, hidden: HiddenFields): unknown {
  if (!isRecord(value)) return value;
  const { kind } = value;
  if (typeof value.type === "string" && isRecord(value.object))
    return { ...value, object: masked(value.object, hidden) };
  if (kind === "Table" && Array.isArray(value.rows)) {
    // Columns of Secrets and ConfigMaps count their keys; those of other kinds may show what is hidden.
    const isShown = hidden.fields.every((field) => keyed.has(field));
    const rows = value.rows.map((row) => {
      if (!isRecord(row)) return row;
      const cells = Array.isArray(row.cells) ? row.cells : [];
      const kept = isShown ? cells : cells.map((cell, at) => (at === 0 ? cell : hiddenText));
      return { ...row, cells: kept, object: masked(row.object, hidden) };
    });
    return { ...value, rows };
  }
  if (Array.isArray(value.items)) return { ...value, items: value.items.map((one) => masked(one, hidden)) };
  if (kind === "Status") return value;
  const copy: Record<string, unknown> = { ...value };
  for (const field of hidden.fields) if (copy[field] !== undefined) copy[field] = hide(copy[field], field);
  if (isRecord(copy.metadata)) copy.metadata = withoutLastApplied(copy.metadata);
  return copy;
}

function hide(value: unknown, field: string): unknown {
  const text =
    field === "data" || field === "binaryData" ? Buffer.from(hiddenText).toString("base64") : hiddenText;
  if (!isRecord(value)) return value === null ? null : text;
  return Object.fromEntries(Object.keys(value).map((key) => [key, text]));
}

/** What kubectl and its like keep of the last apply holds the whole object, and managed fields hold the names of its keys only. */
function withoutLastApplied(metadata: Readonly<Record<string, unknown>>): unknown {
  const { annotations } = metadata;
  if (!isRecord(annotations)) return metadata;
  const kept = Object.entries(annotations).map(([name, value]) => {
    const mayHold =
      appliedNames.test(name) || (typeof value === "string" && value.trimStart().startsWith("{"));
    return [name, mayHold ? hiddenText : value];
  });
  return { ...metadata, annotations: Object.fromEntries(kept) };
}
