import { existsSync } from "node:fs";
import { lstat, readdir, readlink, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../cluster/kubectl.ts";
import type { Entry } from "./tar.ts";

/** Everything below a folder, to lie at another place in an image; links stay links. */
export async function folderEntries(
  from: string,
  to: string,
  wanted: (name: string) => boolean = () => true,
): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (const name of await readdir(from, { recursive: true })) {
    if (!wanted(name)) continue;
    const [source, path] = [join(from, name), join(to, name)];
    const found = await lstat(source);
    if (found.isSymbolicLink()) entries.push({ kind: "link", path, to: await readlink(source) });
    else if (found.isFile()) entries.push({ kind: "file", path, from: source, mode: modeOf(found.mode) });
  }
  return entries;
}

/** One file with its own mode. */
export async function fileEntry(from: string, path: string): Promise<Entry> {
  return { kind: "file", path, from: await realpath(from), mode: modeOf((await stat(from)).mode) };
}

/** Who packed must not show: only whether it is a program. */
const modeOf = (mode: number) => ((mode & 0o111) === 0 ? 0o644 : 0o755);

/** The shared libraries that programs of this machine need, at the places where the loader looks for them. */
export async function libraryEntries(programs: readonly string[]): Promise<Entry[]> {
  const paths = new Set<string>();
  for (const program of programs) {
    const { code, stdout, stderr } = await run("ldd", [program]);
    if (code !== 0) throw new Error(`ldd ${program}: ${stderr}`);
    if (stdout.includes("not found")) throw new Error(`${program} misses a library:\n${stdout}`);
    for (const [, path] of stdout.matchAll(/(?:=>)?\s(\/\S+) \(0x/g)) if (path) paths.add(path);
  }
  const own = programs.map((program) => join(program, "../../lib"));
  const system = [...paths].filter((path) => !own.some((folder) => join(path).startsWith(`${folder}/`)));
  return Promise.all(system.sort().map((path) => fileEntry(path, path.slice(1))));
}

/** The first path that exists. */
export function firstOf(what: string, paths: readonly string[]): string {
  const found = paths.find((path) => existsSync(path));
  if (found === undefined) throw new Error(`${what} is not on this machine (${paths.join(", ")})`);
  return found;
}
