/** `npm run generate`: types, the compiled bundle and the reference from crds/*.yaml; `--check` only compares. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { schemasModule } from "./bundle.ts";
import { readCrdFiles } from "./crd-file.ts";
import { referenceIndex, referencePage } from "./reference.ts";
import { structuralFaults } from "./structural.ts";
import { typesModule } from "./types.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../../..");
const reference = join(root, "docs/reference");

const crds = readCrdFiles(join(root, "crds"));
const faults = crds.flatMap(({ file, schema }) =>
  structuralFaults(schema).map((fault) => `${file}: ${fault}`),
);
if (faults.length > 0) {
  console.error(faults.join("\n"));
  process.exit(1);
}

const wanted = new Map<string, string>([
  [join(root, "crds/src/types.generated.ts"), typesModule(crds)],
  [join(root, "crds/src/schemas.generated.ts"), schemasModule(crds)],
  [join(reference, "README.md"), referenceIndex(crds)],
  ...crds.map((crd): [string, string] => [
    join(reference, `${crd.kind.toLowerCase()}.md`),
    referencePage(crd),
  ]),
]);

const stale = [...wanted].filter(([file, text]) => currentText(file) !== text).map(([file]) => file);
const left = strayPages();
if (process.argv.includes("--check")) {
  for (const file of [...stale, ...left]) console.error(`${relative(root, file)} is not what crds/ says`);
  if (stale.length + left.length > 0) {
    console.error("run `make generate` and commit the result");
    process.exit(1);
  }
} else {
  mkdirSync(reference, { recursive: true });
  for (const file of stale) writeFileSync(file, wanted.get(file) ?? "");
  for (const file of left) rmSync(file);
}

function currentText(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    // A file that is not there, or cannot be read, is out of date: writing it says why it cannot be.
    return undefined;
  }
}

/** Pages of kinds that are gone; pages of other sources carry no generated header and are left alone. */
function strayPages(): readonly string[] {
  let names: string[] = [];
  try {
    names = readdirSync(reference);
  } catch {
    // There is no reference yet.
  }
  return names
    .map((name) => join(reference, name))
    .filter(
      (file) => !wanted.has(file) && currentText(file)?.startsWith("<!-- Generated from crds/") === true,
    );
}
