import type { PatchOperation } from "../placement/index.ts";

/** What the API server asks. */
export interface AdmissionRequest {
  readonly uid: string;
  readonly operation: string;
  readonly kind: string;
  readonly resource: string;
  readonly subResource?: string;
  readonly name?: string;
  readonly namespace?: string;
  readonly user: string;
  readonly groups: readonly string[];
  readonly isDryRun: boolean;
  readonly object?: unknown;
}

/** What it is told. */
export interface AdmissionResponse {
  readonly allowed: boolean;
  /** Why not, for the user. */
  readonly message?: string;
  readonly warnings?: readonly string[];
  readonly patch?: readonly PatchOperation[];
}

type Fields = Readonly<Record<string, unknown>>;

/** Reads an AdmissionReview; throws on anything else. */
export function readReview(body: string): { readonly request: AdmissionRequest } {
  const review = fieldsOf(JSON.parse(body));
  if (review.apiVersion !== "admission.k8s.io/v1" || review.kind !== "AdmissionReview") {
    throw new TypeError("the request is no AdmissionReview");
  }
  const request = fieldsOf(review.request);
  const userInfo = fieldsOf(request.userInfo);
  const groups = Array.isArray(userInfo.groups) ? userInfo.groups : [];
  const optional = (key: "subResource" | "name" | "namespace") =>
    typeof request[key] === "string" && request[key] !== "" ? { [key]: request[key] } : {};
  return {
    request: {
      uid: text(request, "uid"),
      operation: text(request, "operation"),
      kind: text(fieldsOf(request.kind), "kind"),
      resource: text(fieldsOf(request.resource), "resource"),
      ...optional("subResource"),
      ...optional("name"),
      ...optional("namespace"),
      user: typeof userInfo.username === "string" ? userInfo.username : "",
      groups: groups.filter((group): group is string => typeof group === "string"),
      isDryRun: request.dryRun === true,
      ...(request.object !== undefined && request.object !== null && { object: request.object }),
    },
  };
}

function fieldsOf(value: unknown): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError("the request is no AdmissionReview");
  }
  return value as Fields;
}

function text(fields: Fields, key: string): string {
  const value = fields[key];
  if (typeof value !== "string") throw new TypeError(`the AdmissionReview has no ${key}`);
  return value;
}
