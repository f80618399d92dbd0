import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");

test("each guarantee of the reference has a test that carries its number, and each number stands there", () => {
  const page = readFileSync(join(root, "docs/reference/operator-guarantees.md"), "utf8");
  const promised = [...page.matchAll(/^\| (O\d+) \|/gm)].map(([, number]) => number);
  const files = globSync(["operator/src/**/*.test.ts", "e2e/kubernetes/*.test.ts"], { cwd: root });
  const carried = files.flatMap((file) =>
    [...readFileSync(join(root, file), "utf8").matchAll(/["`](O\d+) /g)].map(([, number]) => number),
  );
  expect(promised.length).toBeGreaterThan(0);
  expect(new Set(promised)).toEqual(new Set(carried));
});
