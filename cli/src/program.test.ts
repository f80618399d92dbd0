import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { commands } from "./commands/index.ts";
import { printable, table } from "./output.ts";
import { sallyport, testdata } from "./testing.ts";

const run = promisify(execFile);
const tsx = new URL("../../node_modules/.bin/tsx", import.meta.url).pathname;
const main = new URL("main.ts", import.meta.url).pathname;

describe("sallyport", () => {
  test("the process itself writes results to stdout, failures to stderr, and its exit code", async () => {
    const { stdout } = await run(tsx, [main, "validate", "manifests"], { cwd: testdata });
    expect(stdout).toContain("0 errors");
    const failed = await run(tsx, [main, "validate", "nowhere"], { cwd: testdata }).catch(
      (error: unknown) => error,
    );
    expect(failed).toMatchObject({
      code: 2,
      stdout: "",
      stderr: expect.stringContaining("cannot read nowhere"),
    });
  });

  test("without arguments it lists every command", async () => {
    const { code, out } = await sallyport([]);
    expect(code).toBe(0);
    for (const { name, summary } of commands)
      expect(out).toMatch(new RegExp(`^ {2}${name}.* ${summary}$`, "m"));
  });

  test("every command has help with an example or says it all", async () => {
    for (const { name } of commands) {
      const { code, out } = await sallyport([name, "--help"]);
      expect(code, name).toBe(0);
      expect(out, name).toContain(`Usage: sallyport ${name}`);
    }
  });

  test("what it does not know is a usage error that points to help", async () => {
    for (const argv of [
      ["validat"],
      ["validate", "--outptu", "json", "x"],
      ["verify"],
      ["sessions", "x", "-o", "yaml"],
    ]) {
      const { code, out, err } = await sallyport(argv);
      expect({ code, out }).toEqual({ code: 2, out: "" });
      expect(err).toMatch(/^sallyport: [\s\S]*See `sallyport /);
    }
  });

  test("version says which build this is", async () => {
    expect((await sallyport(["version"])).out).toMatch(/^sallyport \d+\.\d+\.\d+ \(Node \d+/);
    expect(JSON.parse((await sallyport(["version", "-o", "json"])).out)).toHaveProperty("version");
  });
});

test("the reference names every command and every option", async () => {
  const reference = await readFile(new URL("../../docs/reference/cli.md", import.meta.url), "utf8");
  const section = (path: string) => reference.split(/^## /m).find((one) => one.startsWith(`${path}\n`)) ?? "";
  const paths = [
    ...commands.map(({ name }) => name).filter((name) => name !== "policy" && name !== "audit"),
    "audit rbac",
    "policy test",
    "policy explain",
  ];
  for (const path of paths) {
    const { out } = await sallyport([...path.split(" "), "--help"]);
    const flags = [...out.matchAll(/^ {2,}(?:-\w, )?(--[a-z-]+)/gm)].map(([, flag]) => flag);
    for (const flag of flags) {
      if (flag !== "--help" && flag !== "--output") expect(section(path), path).toContain(flag);
    }
    expect(section(path), path).toContain(`sallyport ${path}`);
  }
});

describe("completion", () => {
  test("the bash script parses, and completes commands, options and choices", async () => {
    const { out } = await sallyport(["completion", "bash"]);
    const folder = await mkdtemp(join(tmpdir(), "sallyport-completion-"));
    try {
      await writeFile(join(folder, "completion.bash"), out);
      await run("bash", ["-n", join(folder, "completion.bash")]);
      const complete = async (...words: readonly string[]) => {
        const script = `source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _sallyport; echo "\${COMPREPLY[*]}"`;
        const argv = ["-c", script, join(folder, "completion.bash"), "sallyport", ...words];
        return (await run("bash", argv)).stdout.trim();
      };
      expect(await complete("val")).toBe("validate");
      expect(await complete("policy", "")).toContain("explain");
      expect(await complete("policy", "explain", "--man")).toBe("--manifests");
      expect(await complete("verify", "x", "--output", "")).toBe("text json");
      expect(await complete("token", "--kind", "W")).toBe("Workload");
      expect(await complete("gateway", "--lis")).toBe("--listen --listen-unix --listen-port");
      expect(await complete("completion", "f")).toBe("fish");
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test("zsh and fish scripts name every command", async () => {
    for (const shell of ["zsh", "fish"]) {
      const { out } = await sallyport(["completion", shell]);
      for (const { name } of commands) expect(out, shell).toContain(name);
    }
  });
});

describe("tables", () => {
  test("columns align, and on a terminal lines are cut", () => {
    expect(
      table(
        ["A", "B"],
        [
          ["longer", "x"],
          ["y", "z\n"],
        ],
      ),
    ).toBe("A       B\nlonger  x\ny       z\\n\n");
    expect(table(["A"], [["0123456789"]], 5)).toBe("A\n0123…\n");
  });

  test("no control, bidirectional or invisible character passes", () => {
    for (let code = 0; code <= 0xffff; code++) {
      const shown = printable(String.fromCharCode(code));
      if (/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u.test(shown)) throw new Error(`U+${code.toString(16)} passes`);
    }
    expect(printable("a\u{e0041}\u001b")).toBe("a\\udb40\\udc41\\u001b");
  });
});
