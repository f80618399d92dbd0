/** The import table is only worth something while a forbidden import fails; each row here breaks it on purpose. */
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";

const root = import.meta.dirname;
const workspaces = ["crds", "control", "policy", "sidecar", "operator", "cli", "e2e"];

const forbidden = [
  ["policy/src/x-upwards.ts", "@sallyport/sidecar", "workspace-policy"],
  ["crds/src/x-upwards.ts", "@sallyport/policy", "workspace-crds"],
  ["sidecar/src/x-upwards.ts", "@sallyport/cli", "workspace-sidecar"],
  ["control/src/x-upwards.ts", "@sallyport/policy", "workspace-control"],
  ["sidecar/src/x-sideways.ts", "../../operator/src/kube/index.ts", "workspace-sidecar"],
  ["operator/src/x-sideways.ts", "@sallyport/sidecar", "workspace-operator"],
  ["operator/src/kube/x-upwards.ts", "../reconcile/index.ts", "operator-kube"],
  ["policy/src/x-impure.ts", "node:fs", "policy-is-pure"],
  ["policy/src/x-type-only.ts", "type ../../sidecar/src/index.ts", "workspace-policy"],
  ["sidecar/src/protocols/x-io.ts", "node:net", "protocols-do-no-io"],
  ["sidecar/src/protocols/x-recorder.ts", "../recording/model.ts", "sidecar-protocols"],
  ["sidecar/src/wire/x-guard.ts", "../recording/model.ts", "sidecar-wire"],
  ["sidecar/src/wire/x-missing.ts", "./nowhere.ts", "no-orphan-import"],
] as const;
const planted = [
  ...forbidden,
  ["policy/src/x-cycle-a.ts", "type ./x-cycle-b.ts"],
  ["policy/src/x-cycle-b.ts", "type ./x-cycle-a.ts"],
] as const;

interface Cruise {
  readonly summary: {
    readonly violations: readonly {
      readonly from: string;
      readonly to: string;
      readonly rule: { name: string };
    }[];
    readonly totalCruised: number;
  };
}

let copy: string;
/** Of the copy, with a file for each forbidden import beside the project's own: to read it all takes seconds. */
let found: Cruise["summary"];

beforeAll(async () => {
  copy = await mkdtemp(join(tmpdir(), "sallyport-architecture-"));
  for (const name of [".dependency-cruiser.cjs", "tsconfig.json", "package.json", ...workspaces]) {
    await cp(join(root, name), join(copy, name), { recursive: true, filter: isSource });
  }
  // Third-party packages come from here; our own workspaces must resolve to the copy.
  await mkdir(join(copy, "node_modules/@sallyport"), { recursive: true });
  for (const name of await readdir(join(root, "node_modules"))) {
    if (name !== "@sallyport" && !name.startsWith(".")) {
      await symlink(join(root, "node_modules", name), join(copy, "node_modules", name));
    }
  }
  for (const name of workspaces) {
    await symlink(join(copy, name), join(copy, "node_modules/@sallyport", name));
  }
  for (const [path, target] of planted) await plant(path, target);
  found = (await cruise(copy)).summary;
  // Seven seconds of work, which on a machine that others use have taken two minutes.
}, 300_000);
afterAll(() => rm(copy, { recursive: true, force: true }));

test("no file of the project breaks the import table", () => {
  const own = found.violations.filter(({ from }) => !planted.some(([path]) => path === from));
  expect(own).toEqual([]);
  expect(found.totalCruised).toBeGreaterThan(500);
});

test("every forbidden import is found", () => {
  const broken = found.violations.map(({ from, rule }) => `${from} ${rule.name}`);
  for (const [path, , rule] of forbidden) expect(broken).toContain(`${path} ${rule}`);
  expect(broken).toContain("policy/src/x-cycle-a.ts no-cycle");
});

function isSource(path: string): boolean {
  return !/\/(node_modules|dist)(\/|$)/.test(path.slice(root.length));
}

async function plant(path: string, target: string): Promise<void> {
  const typeOnly = target.startsWith("type ");
  const from = JSON.stringify(target.replace("type ", ""));
  await mkdir(dirname(join(copy, path)), { recursive: true });
  await writeFile(join(copy, path), typeOnly ? `export type * from ${from};\n` : `export * from ${from};\n`);
}

async function cruise(folder: string): Promise<Cruise> {
  const tool = join(root, "node_modules/dependency-cruiser/bin/dependency-cruise.mjs");
  const args = [tool, "--no-progress", "--output-type", "json", ...workspaces];
  // It exits with the number of violations; the report is on standard output all the same.
  const { stdout } = await promisify(execFile)(process.execPath, args, {
    cwd: folder,
    maxBuffer: 64 * 1024 * 1024,
  }).catch((error: { stdout?: string }) => ({ stdout: error.stdout ?? "" }));
  return JSON.parse(stdout) as Cruise;
}
