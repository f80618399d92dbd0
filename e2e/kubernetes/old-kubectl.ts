/** kubectl of other ages, built once from the modules under old-kubectl/ (about two minutes each) and kept in the cache. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readFile, rename, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../cluster/kubectl.ts";

/** The ages that are built, beside the cluster's own. */
export const oldAges = ["1.20", "1.32"] as const;

const sources = join(import.meta.dirname, "old-kubectl");

/** The program of an age; built where it is not there yet. */
export async function oldKubectl(age: (typeof oldAges)[number]): Promise<string> {
  const hash = createHash("sha256");
  const files = [join(sources, "main.go"), ...["go.mod", "go.sum"].map((name) => join(sources, age, name))];
  for (const file of files) hash.update(await readFile(file));
  const cache = process.env.SALLYPORT_CACHE || join(homedir(), ".cache/sallyport");
  const program = join(cache, "kubectl", hash.digest("hex").slice(0, 16), "kubectl");
  if (existsSync(program)) return program;
  const folder = await mkdtemp(join(tmpdir(), "sallyport-kubectl-"));
  try {
    for (const file of files) await copyFile(file, join(folder, file.slice(file.lastIndexOf("/") + 1)));
    await mkdir(join(program, ".."), { recursive: true });
    const built = `${program}.${process.pid}`;
    const argv = ["-C", folder, "build", "-trimpath", "-ldflags", "-s -w", "-o", built, "."];
    const { code, stderr } = await run("go", argv, undefined, { CGO_ENABLED: "0", GOFLAGS: "-mod=readonly" });
    if (code !== 0) throw new Error(`kubectl ${age} could not be built: ${stderr.slice(-2_000)}`);
    await rename(built, program);
    return program;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
