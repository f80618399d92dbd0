/** Manifests from files and folders. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { type CheckOptions, checkManifests, type ManifestSource, type Manifests } from "./check.ts";
import type { Problem } from "./problem.ts";

/** Bounds on what one load reads. */
const filesMax = 10_000;
const fileBytesMax = 4 * 1024 * 1024;
/** How many folders deep manifests are looked for. */
export const depthMax = 16;

/** Whether a folder of manifests is read as if the name were not there. */
export const isPassedOver = (name: string): boolean => name.startsWith(".") || name === "secrets";

/** Whether a file of a folder is read. */
export const isManifestFile = (path: string): boolean => /\.(ya?ml|json)$/.test(path);

/**
 * Reads and checks manifests. A folder is read with the folders below it (`*.yaml`, `*.yml`, `*.json`), in the order
 * of the names, but for `secrets` and names that begin with a dot. What cannot be read, or is empty, is a problem: never throws.
 */
export async function loadManifests(
  from: string | readonly string[],
  options: CheckOptions = {},
): Promise<Manifests> {
  const found: Found = { sources: [], problems: [] };
  for (const path of typeof from === "string" ? [from] : from) await collect(path, 0, found);
  if (found.sources.length === 0 && found.problems.length === 0) {
    const path = typeof from === "string" ? from : from.join(", ");
    found.problems.push(fileProblem(path, "holds no manifests (*.yaml, *.yml, *.json)"));
  }
  const { documents, problems } = checkManifests(found.sources, options);
  return { documents, problems: [...found.problems, ...problems] };
}

interface Found {
  readonly sources: ManifestSource[];
  readonly problems: Problem[];
}

/** `depth` 0 is what the caller named: any file there is read, whatever its name. */
async function collect(path: string, depth: number, found: Found): Promise<void> {
  try {
    const { isFolder, isFile, size } = await kindOf(path);
    if (isFolder) {
      if (depth >= depthMax) throw new Error(`folders are nested deeper than ${depthMax}`);
      for (const name of (await readdir(path)).sort()) {
        if (!isPassedOver(name)) await collect(join(path, name), depth + 1, found);
      }
    } else if (isFile && (depth === 0 || isManifestFile(path))) {
      if (found.sources.length >= filesMax) throw new Error(`there are more than ${filesMax} files`);
      if (size > fileBytesMax) throw new Error(`is larger than ${fileBytesMax} bytes`);
      const text = await readFile(path, "utf8");
      // More often one whose writing was cut short than one that is meant; it may have held a Deny.
      if (text === "") throw new Error("is empty; remove it if it has nothing to say");
      found.sources.push({ file: path, text });
    }
  } catch (error) {
    // Skipping a file in silence could drop a Deny.
    found.problems.push(fileProblem(path, error instanceof Error ? error.message : "cannot be read"));
  }
}

async function kindOf(path: string): Promise<{ isFolder: boolean; isFile: boolean; size: number }> {
  const found = await stat(path);
  return { isFolder: found.isDirectory(), isFile: found.isFile(), size: found.size };
}

const fileProblem = (file: string, message: string): Problem => ({
  severity: "error",
  file,
  line: 1,
  column: 1,
  path: "",
  message,
  document: "",
});
