/** The programs of the tests' cluster: built once with the go command and kept outside of the repository. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, join, sep } from "node:path";

/** A folder under programs/: what is built from it together. */
export type ProgramModule = "etcd" | "kubernetes" | "cni" | "containerd" | "coredns" | "pause" | "helm";

/** What an API server without a node needs. */
export const apiModules: readonly ProgramModule[] = ["etcd", "kubernetes"];

/** What a node needs beside that. */
export const nodeModules: readonly ProgramModule[] = [
  ...apiModules,
  "cni",
  "containerd",
  "coredns",
  "pause",
  "helm",
];

/** Resolves to the folder that holds the programs of these modules; builds what is not there yet. */
export async function clusterPrograms(modules: readonly ProgramModule[]): Promise<string> {
  const bin = await programsFolder();
  const missing = modules.filter((module) => !existsSync(join(bin, `.${module}.built`)));
  if (missing.length === 0) return bin;
  if (!isOnPath("go")) {
    throw new Error(
      `the cluster's programs (${missing.join(", ")}) are not in ${bin} and there is no go command to build them`,
    );
  }
  console.error(`building ${missing.join(", ")} (about nine minutes for all, the first time only)`);
  await build(bin, missing);
  return bin;
}

/** Helm's program; built where it is not there, since an API server alone does without. */
export async function helmProgram(): Promise<string> {
  return join(await clusterPrograms(["helm"]), "helm");
}

/** True where the programs are built, or can be. */
export async function canHavePrograms(modules: readonly ProgramModule[]): Promise<boolean> {
  if (isOnPath("go")) return true;
  const bin = await programsFolder();
  return modules.every((module) => existsSync(join(bin, `.${module}.built`)));
}

/** Where this command is: on the path, or where Debian keeps those of the administrator. */
export function pathOf(command: string): string | undefined {
  const folders = [...(process.env.PATH ?? "").split(delimiter).filter(Boolean), "/usr/sbin", "/sbin"];
  return folders.map((folder) => join(folder, command)).find((path) => existsSync(path));
}

/** True where this command is. */
export function isOnPath(command: string): boolean {
  return pathOf(command) !== undefined;
}

const sources = join(import.meta.dirname, "programs");

/** The folder of Kubernetes' own programs: of the usual release, or of the one that SALLYPORT_KUBERNETES names. */
function kubernetesSources(): string {
  const release = process.env.SALLYPORT_KUBERNETES;
  const folder = release ? `kubernetes-${release}` : "kubernetes";
  if (!existsSync(join(sources, folder, "go.mod")))
    throw new Error(`SALLYPORT_KUBERNETES is ${release}, and there is no ${join(sources, folder)}/go.mod`);
  return folder;
}

/** Named after what is built, so that another version does not meet programs of this one. */
async function programsFolder(): Promise<string> {
  const cache = process.env.SALLYPORT_CACHE || join(homedir(), ".cache/sallyport");
  const kubernetes = kubernetesSources();
  const hash = createHash("sha256").update(await readFile(join(import.meta.dirname, "build.sh")));
  for (const name of (await readdir(sources, { recursive: true })).sort()) {
    const [module = ""] = name.split(sep);
    if (module.startsWith("kubernetes") && module !== kubernetes) continue;
    if (/\.(mod|sum|go)$/.test(name)) hash.update(name).update(await readFile(join(sources, name)));
  }
  return join(cache, "cluster", hash.digest("hex").slice(0, 16));
}

async function build(bin: string, modules: readonly ProgramModule[]): Promise<void> {
  const child = spawn(join(import.meta.dirname, "build.sh"), [bin, ...modules], {
    // What is built is progress, not the answer of whoever asked for the cluster.
    stdio: ["ignore", 2, 2],
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", resolve);
  });
  if (code !== 0) throw new Error(`e2e/cluster/build.sh ended with ${code}`);
}
