import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { sallyport, testdata } from "../testing.ts";

const examples = ["bad", "bad-together"].map(
  (name) => new URL(`../../../crds/examples/${name}/`, import.meta.url).pathname,
);
const folders: string[] = [];

afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});

/** A copy of the good manifests that a test may spoil. */
async function copied(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-validate-"));
  folders.push(folder);
  await cp(join(testdata, "manifests"), folder, { recursive: true });
  return folder;
}

describe("sallyport validate", () => {
  test("good manifests pass", async () => {
    const { code, out, err } = await sallyport(["validate", "manifests"]);
    expect({ code, out, err }).toEqual({
      code: 0,
      out: "4 documents accepted; 0 errors, 0 warnings\n",
      err: "",
    });
  });

  test("every bad example is refused, with the field that it says", async () => {
    const folders = await Promise.all(
      examples.map(async (folder) => (await readdir(folder)).map((name) => join(folder, name))),
    );
    for (const file of folders.flat()) {
      const text = await readFile(file, "utf8");
      const [, path = ""] = /^# expect: ([^:\s]*):/.exec(text) ?? [];
      const { code, out } = await sallyport(["validate", file]);
      expect(code, file).toBe(1);
      expect(out, file).toMatch(/:\d+:\d+: (error|warning): /);
      expect(out, file).toContain(path);
    }
  });

  test("problems of schema, policy and identity come at once, each with its place", async () => {
    const folder = await copied();
    const path = join(folder, "policies.yaml");
    const text = await readFile(path, "utf8");
    await writeFile(path, text.replace("unbounded: true", 'unbounded: true, cel: "command.nonsense("'));
    const shop = join(folder, "shop.yaml");
    await writeFile(
      shop,
      (await readFile(shop, "utf8"))
        .replace("port: 5432", "port: 99999")
        .replace("MCowBQYDK2Vw", "AAAABQYDK2Vw"),
    );
    const { code, out } = await sallyport(["validate", folder, "--output", "json"]);
    expect(code).toBe(1);
    const { ok, problems } = JSON.parse(out);
    expect(ok).toBe(false);
    const places = problems.map((one: { path: string; file: string; line: number }) => {
      return `${one.file.replace(`${folder}/`, "")}:${one.line} ${one.path}`;
    });
    expect(places).toEqual([
      "policies.yaml:23 spec.rules[0].match.cel",
      "shop.yaml:7 spec.local",
      "shop.yaml:19 spec.endpoint.port",
    ]);
  });

  test("a mask of columns is accepted, and one by a tag that no column has is a problem", async () => {
    const folder = await copied();
    const path = join(folder, "policies.yaml");
    const text = await readFile(path, "utf8");
    const masked = (mask: string) =>
      writeFile(path, text.replace("profile: ReadOnly", `profile: ReadOnly\n  masking:\n    - {${mask}}`));
    await masked('columns: ["public.customers.ssn"], with: "Null"');
    expect((await sallyport(["validate", folder])).code).toBe(0);
    await masked("tags: [nothing], with: Redact");
    const { code, out } = await sallyport(["validate", folder]);
    expect(code).toBe(1);
    expect(out).toContain("policies.yaml:9:");
    expect(out).toContain("spec.masking[0].tags[0]");
  });

  test("text in a manifest cannot steer the terminal", async () => {
    const folder = await copied();
    await writeFile(
      join(folder, "evil.yaml"),
      '"\\u001b[2Jkind\\u202e": x\napiVersion: sallyport.dev/v1alpha1\n',
    );
    for (const output of ["text", "json"]) {
      const { code, out } = await sallyport(["validate", folder, "-o", output]);
      expect(code).toBe(1);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: the absence of control characters is the promise
      expect(out).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
    }
  });

  test("a folder that is not there is a usage error that says what to name", async () => {
    const { code, out, err } = await sallyport(["validate", "nowhere"]);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toBe(
      "sallyport: cannot read nowhere: there is no such file or folder\nName a folder of manifests (*.yaml).\n",
    );
  });
});
