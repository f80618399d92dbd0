import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const module = JSON.stringify(import.meta.resolve("../targets/at-exit.ts"));

/** What a process prints that asks for these lines of work. */
async function printed(lines: string): Promise<{ stdout: string; stderr: string }> {
  const text = `import { atExit } from ${module};\nconst say = (word) => () => process.stdout.write(word + " ");\n${lines}`;
  const args = ["--input-type=module", "-e", text];
  return promisify(execFile)(process.execPath, args, { timeout: 60_000 });
}

test("what is asked for is done at the end, but for what was taken back, and nobody is warned of a leak", async () => {
  const { stdout, stderr } = await printed(`
    const takeBack = [...Array(30).keys()].map((n) => atExit(say(n)));
    for (const n of takeBack.keys()) if (n !== 3 && n !== 20) takeBack[n]();`);
  expect(stdout).toBe("3 20 ");
  expect(stderr).toBe("");
});

test("work that fails keeps nothing else from being done", async () => {
  const { stdout } = await printed(`
    atExit(() => { throw new Error("gone already"); });
    atExit(say("done"));`);
  expect(stdout).toBe("done ");
});
