/** What types of users' own making consist of, as far as masks have to know it. */

/** A composite type by its fields, an array type by what it holds, an enumeration by its labels. */
export type TypeShape =
  | { readonly kind: "composite"; readonly fields: readonly FieldType[] }
  | { readonly kind: "array"; readonly element: number }
  | { readonly kind: "enum"; readonly labels: readonly string[] };

/** A field of a composite type. */
export interface FieldType {
  /** The oid that the definition names, which may be a domain's. */
  readonly declared: number;
  /** The oid of what a domain is made of; of any other type its own. */
  readonly oid: number;
  readonly shape?: TypeShape;
}

/**
 * The shape that a masked value of such a type may show: fields that are NULL stay NULL, so a composite keeps its fields
 * only where it is the masked column's own value. An array shows nothing of what it held.
 */
export function shapeShown(
  shape: TypeShape | undefined,
  choice: { readonly isExact: boolean; readonly hidesNull?: true },
): TypeShape | undefined {
  if (shape === undefined || shape.kind !== "composite") return shape;
  return choice.isExact && choice.hidesNull !== true ? shape : undefined;
}
