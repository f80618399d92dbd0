/** A label selector as manifests write it; that its operators and values are right is checked elsewhere. */
export interface Selector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly Requirement[];
}

interface Requirement {
  readonly key: string;
  readonly operator: string;
  readonly values?: readonly string[];
}

/** Whether a label selector picks an object with these labels; an empty selector picks everything. */
export function isSelectedBy(selector: Selector, labels: Readonly<Record<string, string>>): boolean {
  const { matchLabels, matchExpressions } = selector;
  return (
    Object.entries(matchLabels ?? {}).every(([key, value]) => labelOf(labels, key) === value) &&
    (matchExpressions ?? []).every((requirement) => holds(requirement, labelOf(labels, requirement.key)))
  );
}

function holds({ operator, values }: Requirement, label: string | undefined): boolean {
  switch (operator) {
    case "In":
      return label !== undefined && (values ?? []).includes(label);
    // As Kubernetes has it, an object without the label is not in the values either.
    case "NotIn":
      return label === undefined || !(values ?? []).includes(label);
    case "Exists":
      return label !== undefined;
    case "DoesNotExist":
      return label === undefined;
    default:
      // Schema and compiler refuse it before; what they never saw picks nothing.
      return false;
  }
}

/** Own properties only, so that a label is never found on Object.prototype. */
const labelOf = (labels: Readonly<Record<string, string>>, key: string): string | undefined =>
  Object.hasOwn(labels, key) ? labels[key] : undefined;
