/**
 * Fields of objects that policy hides: `core.secrets.data` (group, resource, top-level field) in answers of every form
 * that can be read. Forms that cannot are not asked for.
 */
import type { SessionMasking } from "@sallyport/policy";
import { isRecord } from "./facts.ts";
import { type ApiRequest, resourceName } from "./request.ts";
import { failure } from "./status.ts";

/** What is hidden from a session in the objects of one resource. */
export interface HiddenFields {
  readonly fields: readonly string[];
  /** True where whoever sees them hidden may not write objects of the resource either. */
  readonly deniesWrites: boolean;
  /** True where what the server says beside the object may quote it: nothing but a read passes admission by. */
  readonly mayBeQuoted: boolean;
}

const candidates = ["data", "stringData", "binaryData", "spec", "status"];
const reads = new Set(["get", "list", "watch"]);
const keyed = new Set(["data", "stringData", "binaryData"]);
/** A value that a Secret takes for data, and that reads as what it is. */
const hiddenText = "***";
/** Annotations in which tools keep the whole object that they applied. */
const appliedNames = /last-applied|\/original$|\/applied$/;

/** What of the request's resource is hidden; undefined: nothing. */
export function hiddenFields(masking: SessionMasking, request: ApiRequest): HiddenFields | undefined {
  if (masking.columns.isEmpty || !request.isResource) return undefined;
  const group = request.group === "" ? "core" : request.group;
  // A node's proxy is its kubelet's API, which shows the node's pods.
  const resource = resourceName(request) === "nodes/proxy" ? "pods" : request.resource;
  const named = (field: string) => masking.columns.names(`${group}.${resource}.${field}`);
  const fields = candidates.filter(named);
  if (fields.length === 0) return undefined;
  // What a Secret is given as text is kept as data.
  if (fields.includes("data") && !fields.includes("stringData")) fields.push("stringData");
  const isPlainRead = reads.has(request.verb) && request.subresource === "";
  return { fields, deniesWrites: masking.maskedWrites === "Deny", mayBeQuoted: !isPlainRead };
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

/** Whether a selector would tell of what is hidden: which objects it finds says what they hold. */
export function selectsByHidden({ query }: ApiRequest, { fields }: HiddenFields): boolean {
  const keys = query
    .getAll("fieldSelector")
    .flatMap((selector) => selector.split(","))
    .map((term) => (term.split(/[=!]/)[0] ?? "").trim());
  return keys.some((key) => fields.some((field) => key === field || key.startsWith(`${field}.`)));
}

/** An object, a list, a table or a watch event with the fields hidden. */
export function masked(value: unknown, hidden: HiddenFields): unknown {
  if (!isRecord(value)) return value;
  const { kind, apiVersion } = value;
  if (kind === "Status" && (apiVersion ?? "v1") === "v1" && !isRecord(value.status))
    return maskedStatus(value, hidden);
  // An object of somebody's own kind may have the members of an event, a table or a list beside those that are hidden.
  const own = maskedObject(value, hidden);
  if (typeof value.type === "string" && isRecord(value.object))
    return { ...own, object: masked(value.object, hidden) };
  if (kind === "Table" && Array.isArray(value.rows)) {
    // Columns of Secrets and ConfigMaps count their keys; those of other kinds may show what is hidden.
    const isShown = hidden.fields.every((field) => keyed.has(field));
    const rows = value.rows.map((row) => {
      if (!isRecord(row)) return row;
      const cells = Array.isArray(row.cells) ? row.cells : [];
      const kept = isShown ? cells : cells.map((cell, at) => (at === 0 ? cell : hiddenText));
      return { ...row, cells: kept, object: masked(row.object, hidden) };
    });
    return { ...own, rows };
  }
  if (Array.isArray(value.items)) return { ...own, items: value.items.map((one) => masked(one, hidden)) };
  return own;
}

function maskedObject(
  value: Readonly<Record<string, unknown>>,
  hidden: HiddenFields,
): Readonly<Record<string, unknown>> {
  const copy: Record<string, unknown> = { ...value };
  for (const field of hidden.fields) if (copy[field] !== undefined) copy[field] = hide(copy[field], field);
  if (isRecord(copy.metadata)) copy.metadata = withoutManaged(withoutLastApplied(copy.metadata), hidden);
  return copy;
}

/**
 * What a server says of a write that it does not take may repeat what the object holds now: validation does (`kubectl replace` of
 * a pod), and an admission policy or webhook says what it likes, for any reason.
 */
function maskedStatus(
  status: Readonly<Record<string, unknown>>,
  hidden: HiddenFields,
): Readonly<Record<string, unknown>> {
  const { message, code } = status;
  if (!hidden.mayBeQuoted || status.status === "Success") return status;
  const forms = hidden.fields.every((field) => keyed.has(field))
    ? [...plainForms, ...keyedForms]
    : plainForms;
  if (typeof message === "string" && forms.some((form) => form.test(message))) return status;
  const why = "the server refused this; why could show what is masked for you";
  return { ...failure(typeof code === "number" ? code : 500, why) };
}

/**
 * Whole messages of the server itself that say nothing of what an object holds. Those of policies and webhooks begin, or go on,
 * with words of their own.
 */
const plainForms = [
  /^[a-z0-9./-]+ "[^"]*" (not found|already exists)$/,
  /^[a-z0-9./-]+( "[^"]*")? is forbidden: User "[^"]*" cannot [a-z]+ resource "[^"]*" in API group "[^"]*"( in the namespace "[^"]*"| at the cluster scope)$/,
  /^the server could not find the requested resource$/,
  /^Operation cannot be fulfilled on [A-Za-z0-9./-]+ "[^"]*": the object has been modified; please apply your changes to the latest version and try again$/,
  /^Operation cannot be fulfilled on [A-Za-z0-9./-]+ "[^"]*": the (UID|ResourceVersion) in the precondition \([\w-]*\) does not match the \1 in record \([\w-]*\)\. The object might have been (modified|deleted and then recreated)$/,
  /^Operation cannot be fulfilled on [A-Za-z0-9./-]+ "[^"]*": StorageError: invalid object, Code: 4, Key: [\w./-]+, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: [\w-]*, UID in object meta: [\w-]*$/,
];

/** Of Secrets and ConfigMaps validation names keys, and no values. */
const keyedForms = [
  /^[A-Z]\w* "[^"]*" is invalid: /,
  /^[A-Z]\w* in version "[^"]*" cannot be handled as a [A-Z]\w*: /,
  /^Apply failed with \d+ conflicts?: /,
];

/** Of lists with keys, managed fields hold the keys' values: ports, addresses, paths. */
function withoutManaged(
  metadata: Readonly<Record<string, unknown>>,
  hidden: HiddenFields,
): Readonly<Record<string, unknown>> {
  const { managedFields } = metadata;
  const names = new Set(hidden.fields.filter((field) => !keyed.has(field)).map((field) => `f:${field}`));
  if (!Array.isArray(managedFields) || names.size === 0) return metadata;
  const kept = managedFields.map((one) => {
    if (!isRecord(one) || !isRecord(one.fieldsV1)) return one;
    return {
      ...one,
      fieldsV1: Object.fromEntries(Object.entries(one.fieldsV1).filter(([name]) => !names.has(name))),
    };
  });
  return { ...metadata, managedFields: kept };
}

function hide(value: unknown, field: string): unknown {
  const text =
    field === "data" || field === "binaryData" ? Buffer.from(hiddenText).toString("base64") : hiddenText;
  if (!isRecord(value)) return value === null ? null : text;
  return Object.fromEntries(Object.keys(value).map((key) => [key, text]));
}

/** What kubectl and its like keep of the last apply holds the whole object. */
function withoutLastApplied(metadata: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const { annotations } = metadata;
  if (!isRecord(annotations)) return metadata;
  const kept = Object.entries(annotations).map(([name, value]) => {
    const mayHold =
      appliedNames.test(name) || (typeof value === "string" && value.trimStart().startsWith("{"));
    return [name, mayHold ? hiddenText : value];
  });
  return { ...metadata, annotations: Object.fromEntries(kept) };
}
