/** Brings the drivers that npm cannot: into .cache, where their registries are at hand. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const here = import.meta.dirname;
/** Outside of version control, and kept between runs. */
export const cacheFolder = join(here, "../../.cache/drivers");

/** A command to run a driver's script with, or why this machine cannot run it. */
export type Toolchain =
  | { readonly kind: "ready"; readonly command: string; readonly args: readonly string[] }
  | { readonly kind: "absent"; readonly reason: string };

/** The Python of `pythonDrivers`. */
export async function pythonScript(name: string): Promise<Toolchain> {
  const python = await pythonDrivers();
  return typeof python === "string"
    ? { kind: "ready", command: python, args: [join(here, name)] }
    : { kind: "absent", reason: python.reason };
}

/** This Node, which reads TypeScript by itself. */
export function nodeScript(name: string): Toolchain {
  return { kind: "ready", command: process.execPath, args: [join(here, name)] };
}

/**
 * A virtual environment with the Python drivers. Built beside and renamed, so that runs that start together never see half
 * of it, nor clear what another one fills.
 */
export async function pythonDrivers(): Promise<string | { readonly reason: string }> {
  const environment = join(cacheFolder, `py-${requirements.join("-").replaceAll(/[^a-z0-9.-]/g, "")}`);
  const python = join(environment, "bin/python");
  if (existsSync(environment)) return python;
  if (!(await hasCommand("python3", ["--version"]))) return { reason: "python3 is not installed" };
  await mkdir(cacheFolder, { recursive: true });
  const draft = await mkdtemp(`${environment}-`);
  try {
    await run("python3", ["-m", "venv", draft], { timeout: 60_000 });
    const install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ...requirements];
    await run(join(draft, "bin/python"), install, { timeout: 240_000 });
    await rename(draft, environment);
    return python;
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    return existsSync(environment)
      ? python
      : { reason: `the Python drivers cannot be installed: ${firstLine(error)}` };
  }
}

const requirements = [
  "psycopg[binary]==3.3.9",
  "psycopg2-binary==2.9.13",
  "asyncpg==0.32.0",
  "sqlalchemy[asyncio]==2.0.58",
  "alembic==1.20.1",
  "django==5.2.19",
];

/** Builds a Go program; a module proxy out of reach is absence, a program that does not compile is an error. */
export async function goProgram(name: "pgx" | "lib-pq"): Promise<Toolchain> {
  if (!(await hasCommand("go", ["version"]))) return { kind: "absent", reason: "go is not installed" };
  const folder = join(here, name);
  try {
    await run("go", ["mod", "download"], { cwd: folder, timeout: 120_000 });
  } catch (error) {
    return { kind: "absent", reason: `${name} cannot be downloaded: ${firstLine(error)}` };
  }
  await mkdir(cacheFolder, { recursive: true });
  const program = join(cacheFolder, name);
  await run("go", ["build", "-o", program, "."], { cwd: folder, timeout: 300_000 });
  return { kind: "ready", command: program, args: [] };
}

/** Builds the tokio-postgres program; what it depends on is locked. */
export async function tokioPostgresProgram(): Promise<Toolchain> {
  if (!(await hasCommand("cargo", ["--version"])))
    return { kind: "absent", reason: "cargo is not installed" };
  const manifest = ["--manifest-path", join(here, "tokio-postgres/Cargo.toml"), "--locked"];
  try {
    await run("cargo", ["fetch", ...manifest], { timeout: 120_000 });
  } catch (error) {
    return { kind: "absent", reason: `tokio-postgres cannot be downloaded: ${firstLine(error)}` };
  }
  const target = join(cacheFolder, "tokio-postgres");
  await run("cargo", ["build", "--quiet", "--offline", "--target-dir", target, ...manifest], {
    timeout: 500_000,
  });
  return { kind: "ready", command: join(target, "debug/sallyport-e2e-tokio-postgres"), args: [] };
}

/** The pgjdbc script, which Java compiles as it starts. */
export async function pgjdbcScript(): Promise<Toolchain> {
  if (!(await hasCommand("java", ["-version"]))) return { kind: "absent", reason: "java is not installed" };
  const jar = join(cacheFolder, `postgresql-${pgjdbcVersion}.jar`);
  if (!existsSync(jar)) {
    if (!(await hasCommand("mvn", ["--version"]))) return { kind: "absent", reason: "mvn is not installed" };
    const artifact = `-Dartifact=org.postgresql:postgresql:${pgjdbcVersion}`;
    try {
      const copy = ["-B", "-q", "dependency:copy", artifact, `-DoutputDirectory=${cacheFolder}`];
      await run("mvn", copy, { timeout: 120_000 });
    } catch (error) {
      return { kind: "absent", reason: `pgjdbc cannot be downloaded: ${firstLine(error)}` };
    }
  }
  return { kind: "ready", command: "java", args: ["-cp", jar, join(here, "pgjdbc/Script.java")] };
}

const pgjdbcVersion = "42.7.7";

/** True where the command can be run here. */
export async function hasCommand(command: string, args: readonly string[]): Promise<boolean> {
  try {
    await run(command, [...args], { timeout: 30_000 });
    return true;
  } catch {
    return false;
  }
}

/** The line of a failed command's errors that tells most. */
export function firstLine(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message: string };
  return (stderr || message).trim().split("\n").at(-1) ?? message;
}
