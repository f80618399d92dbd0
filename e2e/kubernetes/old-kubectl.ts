/** kubectl of other ages, built once from the modules under old-kubectl/ (about two minutes each) and kept in the cache. */
import { join } from "node:path";
import { goProgram } from "./go-program.ts";

/** The ages that are built, beside the cluster's own. */
export const oldAges = ["1.20", "1.32"] as const;

const sources = join(import.meta.dirname, "old-kubectl");

/** The program of an age; built where it is not there yet. */
export function oldKubectl(age: (typeof oldAges)[number]): Promise<string> {
  const files = [join(sources, "main.go"), ...["go.mod", "go.sum"].map((name) => join(sources, age, name))];
  return goProgram("kubectl", files);
}
