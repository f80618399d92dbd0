/** How a release is made: by what nobody can change under it, and with no more rights than each job needs. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { run } from "../cluster/kubectl.ts";

const root = join(import.meta.dirname, "../..");
const folder = join(root, ".github/workflows");
interface Workflow {
  readonly on: Readonly<Record<string, unknown>>;
  readonly permissions: object;
  readonly jobs: Readonly<Record<string, { readonly permissions?: Readonly<Record<string, string>> }>>;
}

const workflows = async () =>
  Promise.all(
    (await readdir(folder)).map(async (name) => ({ name, text: await readFile(join(folder, name), "utf8") })),
  );

test("every action is named by a commit, with its version beside it, and every tool by a version", async () => {
  let actions = 0;
  for (const { name, text } of await workflows()) {
    for (const [, used] of text.matchAll(/uses: (.+)$/gm)) {
      actions += 1;
      expect(used, name).toMatch(/^[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
    }
    for (const [, installed] of text.matchAll(/go install (\S+)/g))
      expect(installed, name).toMatch(/@v\d+\.\d+\.\d+$/);
  }
  expect(actions).toBeGreaterThan(0);
});

test("no job has a right that it does not ask for, and what others send in writes nothing", async () => {
  for (const { name, text } of await workflows()) {
    const { on, permissions, jobs } = parse(text) as Workflow;
    expect(permissions, name).toEqual({});
    expect(Object.keys(on), name).not.toContain("pull_request_target");
    if (!("pull_request" in on)) continue;
    for (const job of Object.values(jobs)) expect(job.permissions).toEqual({ contents: "read" });
  }
});

test("a tag that names another version than the chart's is not released", async () => {
  const { code, stderr } = await run("env", [
    "GITHUB_REF_NAME=v99.0.0",
    join(root, ".ci/release"),
    "registry.invalid/sallyport",
  ]);
  expect(code).toBe(1);
  expect(stderr).toMatch(/the tag is v99\.0\.0 and the chart's version \d/);
});
