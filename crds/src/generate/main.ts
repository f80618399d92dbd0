/** `npm run generate [-- --check] [-- --root FOLDER]`: types, bundle and reference from crds/*.yaml. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { compareOutputs } from "./outputs.ts";

const { values } = parseArgs({ options: { check: { type: "boolean" }, root: { type: "string" } } });
const root = values.root ?? join(dirname(fileURLToPath(import.meta.url)), "../../..");
const { faults, stale, stray } = compareOutputs(root);

if (faults.length > 0) {
  console.error(faults.join("\n"));
  process.exitCode = 1;
} else if (values.check === true) {
  for (const file of [...stale.keys(), ...stray]) {
    console.error(
      `${relative(root, file)} is not what crds/ says: run \`make generate\` and commit the result`,
    );
    process.exitCode = 1;
  }
} else {
  for (const [file, text] of stale) {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
  for (const file of stray) rmSync(file);
}
