import type { ResourceGrant } from "@sallyport/crds";

type Selector = NonNullable<ResourceGrant["spec"]["to"][number]["podSelector"]>;

/** A selector as the API server takes it in a query; empty where it selects everything. */
export function labelSelectorText({ matchLabels = {}, matchExpressions = [] }: Selector): string {
  const equal = Object.entries(matchLabels).map(([key, value]) => `${key}=${value}`);
  return [...equal, ...matchExpressions.map(requirementText)].join();
}

function requirementText({ key, operator, values = [] }: NonNullable<Selector["matchExpressions"]>[number]) {
  switch (operator) {
    case "In":
      return `${key} in (${values.join()})`;
    case "NotIn":
      return `${key} notin (${values.join()})`;
    case "Exists":
      return key;
    case "DoesNotExist":
      return `!${key}`;
  }
}
