/** What the node's programs leave behind when they end. */
import { existsSync, readFileSync } from "node:fs";
import { readdir, readFile, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { run } from "./kubectl.ts";

/** Shims outlive containerd; each holds one pod's containers, which end with their control group's processes. */
export async function killContainers(folder: string): Promise<void> {
  const shims: number[] = [];
  const members: number[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const command = readQuietly(`/proc/${name}/cmdline`);
    if (command.includes("containerd-shim") && command.includes(folder)) shims.push(Number(name));
  }
  for (const name of await readdir("/proc")) {
    if (/^\d+$/.test(name) && shims.includes(parentOf(Number(name)))) members.push(Number(name));
  }
  // The members are first processes of their pid namespaces: what they started ends with them.
  for (const pid of [...members, ...shims]) killQuietly(pid);
}

function parentOf(pid: number): number {
  return Number(/\) \S (\d+)/.exec(readQuietly(`/proc/${pid}/stat`))?.[1] ?? 0);
}

function readQuietly(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended in between.
  }
}

/** Unmounts everything below a folder. */
export async function unmountBelow(folder: string): Promise<void> {
  const mounts = (await readFile("/proc/self/mounts", "utf8"))
    .split("\n")
    .map((line) => line.split(" ")[1]?.replaceAll("\\040", " ") ?? "")
    .filter((path) => path.startsWith(`${folder}/`));
  for (const path of mounts.reverse()) await run("umount", ["-l", path]);
}

/** The kubelet leaves its groups behind; those that still hold a process of somebody else cannot be removed. */
export async function removeControlGroups(): Promise<void> {
  const root = "/sys/fs/cgroup";
  const tops = [root, ...(await readdir(root).catch(() => [])).map((name) => join(root, name))];
  for (const top of tops.map((path) => join(path, "kubepods")).filter((path) => existsSync(path))) {
    const inside = await readdir(top, { recursive: true, withFileTypes: true });
    const folders = inside.filter((entry) => entry.isDirectory()).map((e) => join(e.parentPath, e.name));
    for (const path of [...folders.sort().reverse(), top]) await rmdir(path).catch(() => {});
  }
}
