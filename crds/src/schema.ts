/** The part of OpenAPI v3 that a structural Kubernetes schema may use, as the CRD files write it. */

/** One `x-kubernetes-validations` entry: a CEL expression over `self` that must be true. */
export interface ValidationRule {
  readonly rule: string;
  readonly message: string;
  /** Where the problem is, below the node that carries the rule: `.action`. */
  readonly fieldPath?: string;
}

/** One node of a structural schema. */
export interface StructuralSchema {
  readonly title?: string;
  readonly description?: string;
  readonly type?: "object" | "array" | "string" | "integer" | "number" | "boolean";
  readonly format?: string;
  readonly default?: unknown;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly properties?: Readonly<Record<string, StructuralSchema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: StructuralSchema | false;
  readonly items?: StructuralSchema;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minProperties?: number;
  readonly maxProperties?: number;
  readonly "x-kubernetes-list-type"?: "atomic" | "set" | "map";
  readonly "x-kubernetes-list-map-keys"?: readonly string[];
  readonly "x-kubernetes-map-type"?: "atomic" | "granular";
  readonly "x-kubernetes-int-or-string"?: boolean;
  readonly "x-kubernetes-preserve-unknown-fields"?: boolean;
  readonly "x-kubernetes-validations"?: readonly ValidationRule[];
}

/** One step of a field path: a key or an index. */
export type PathSegment = string | number;

/** A kind of ours with what is needed to check its documents. */
export interface KindSchema {
  readonly scope: "Namespaced" | "Cluster";
  readonly schema: StructuralSchema;
}
