import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";

test("thousands of statements in one command do not make V8 optimise the parser", () => {
  const here = JSON.stringify(join(import.meta.dirname, "sql-parser.ts"));
  const script = `
    const { readySqlParser } = await import(${here});
    await readySqlParser();
    const { analyseSql, staticNames } = await import("@sallyport/policy");
    const names = staticNames(["public.a(id, b, c, d)"]);
    for (let at = 0; at < 3_000; at += 1) {
      analyseSql("SELECT a.id, upper(b) FROM a WHERE id = " + at + " AND c IN ('x', 'y') ORDER BY d", names);
      if (at % 50 === 0) await new Promise(setImmediate);
    }
    const { readFileSync } = await import("node:fs");
    console.log(/^VmHWM:\\s+(\\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))[1]);`;
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    cwd: import.meta.dirname,
    timeout: 100_000,
  });
  expect(stderr).not.toContain("Error");
  // 120 MB; optimised, 460 MB.
  expect(Number(stdout)).toBeGreaterThan(30_000);
  expect(Number(stdout)).toBeLessThan(250_000);
});
