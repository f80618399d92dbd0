/** Brings the drivers that npm cannot: into .cache, where their registries are at hand. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const here = import.meta.dirname;
const cache = join(here, "../../.cache/drivers");

/** A command to run a driver's script with, or why this machine cannot run it. */
export type Toolchain =
  | { readonly kind: "ready"; readonly command: string; readonly args: readonly string[] }
  | { readonly kind: "absent"; readonly reason: string };

/** This Node, which reads TypeScript by itself. */
export function nodeScript(name: string): Toolchain {
  return { kind: "ready", command: process.execPath, args: [join(here, name)] };
}

/** A virtual environment with both Python drivers. */
export async function pythonDrivers(): Promise<string | { readonly reason: string }> {
  const environment = join(cache, `python-${requirements.join("-").replaceAll(/[^a-z0-9.-]/g, "")}`);
  const python = join(environment, "bin/python");
  const complete = join(environment, "complete");
  if (existsSync(complete)) return python;
  if (!(await hasCommand("python3", ["--version"]))) return { reason: "python3 is not installed" };
  await mkdir(cache, { recursive: true });
  try {
    await run("python3", ["-m", "venv", "--clear", environment], { timeout: 60_000 });
    const install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ...requirements];
    await run(python, install, { timeout: 120_000 });
    await mkdir(complete);
    return python;
  } catch (error) {
    return { reason: `the Python drivers cannot be installed: ${firstLine(error)}` };
  }
}

const requirements = ["psycopg[binary]==3.3.9", "asyncpg==0.32.0"];

/** Builds the pgx program; a module proxy out of reach is absence, a program that does not compile is an error. */
export async function pgxProgram(): Promise<Toolchain> {
  if (!(await hasCommand("go", ["version"]))) return { kind: "absent", reason: "go is not installed" };
  const folder = join(here, "pgx");
  try {
    await run("go", ["mod", "download"], { cwd: folder, timeout: 120_000 });
  } catch (error) {
    return { kind: "absent", reason: `pgx cannot be downloaded: ${firstLine(error)}` };
  }
  await mkdir(cache, { recursive: true });
  const program = join(cache, "pgx");
  await run("go", ["build", "-o", program, "."], { cwd: folder, timeout: 300_000 });
  return { kind: "ready", command: program, args: [] };
}

/** True where the command can be run here. */
export async function hasCommand(command: string, args: readonly string[]): Promise<boolean> {
  try {
    await run(command, [...args], { timeout: 30_000 });
    return true;
  } catch {
    return false;
  }
}

function firstLine(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message: string };
  return (stderr || message).trim().split("\n").at(-1) ?? message;
}
