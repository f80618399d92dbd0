import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");

test("each guarantee of the reference has a test that carries its number, and each number stands there", () => {
  const page = readFileSync(join(root, "docs/reference/operator-guarantees.md"), "utf8");
  const promised = [...page.matchAll(/^\| (O\d+) \|/gm)].map(([, number]) => number);
  const files = globSync(["operator/src/**/*.test.ts", "e2e/{kubernetes,scenarios}/*.test.ts"], {
    cwd: root,
  });
  const carried = files.flatMap((file) =>
    [...readFileSync(join(root, file), "utf8").matchAll(/["`]((?:O\d+ )+)/g)].flatMap(([, numbers = ""]) =>
      numbers.trim().split(" "),
    ),
  );
  expect(promised.length).toBeGreaterThan(0);
  expect(new Set(promised)).toEqual(new Set(carried));
});

test("each reason that a resource, policy, provider, grant or approval is told by is documented", () => {
  const page = readFileSync(join(root, "docs/reference/conditions.md"), "utf8");
  const files = globSync(["operator/src/resources/**/*.ts", "sidecar/src/server/*.ts"], { cwd: root });
  const told = files
    .filter((file) => !file.endsWith(".test.ts"))
    .flatMap((file) =>
      [...readFileSync(join(root, file), "utf8").matchAll(/(?:reason: |reason = |\bno\()"([A-Z]\w+)"/g)].map(
        ([, reason]) => reason,
      ),
    );
  expect(told.length).toBeGreaterThan(40);
  expect([...new Set(told)].filter((reason) => !page.includes(`\`${reason}\``))).toEqual([]);
});
