/** Programs in Go that scenarios run: built once from a module and kept in the cache, like the cluster's own. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readFile, rename, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { run } from "../cluster/kubectl.ts";

/** The program that a folder holds the module of, by the folder's name. */
export const goModule = (folder: string): Promise<string> =>
  goProgram(
    basename(folder),
    ["main.go", "go.mod", "go.sum"].map((name) => join(folder, name)),
  );

/** The program `name` that these files make (go.mod and go.sum among them); built where it is not there yet. */
export async function goProgram(name: string, files: readonly string[]): Promise<string> {
  const hash = createHash("sha256");
  for (const file of files) hash.update(await readFile(file));
  const cache = process.env.SALLYPORT_CACHE || join(homedir(), ".cache/sallyport");
  const program = join(cache, name, hash.digest("hex").slice(0, 16), name);
  if (existsSync(program)) return program;
  const folder = await mkdtemp(join(tmpdir(), `sallyport-${name}-`));
  try {
    for (const file of files) await copyFile(file, join(folder, basename(file)));
    await mkdir(join(program, ".."), { recursive: true });
    const built = `${program}.${process.pid}`;
    // As the cluster's programs are compiled, so that what was compiled for them is not compiled again.
    const flags = ["-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", "-s -w"];
    const argv = ["-C", folder, "build", ...flags, "-o", built, "."];
    const { code, stderr } = await run("go", argv, undefined, { CGO_ENABLED: "0", GOFLAGS: "-mod=readonly" });
    if (code !== 0) throw new Error(`${name} could not be built: ${stderr.slice(-2_000)}`);
    await rename(built, program);
    return program;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
