/** What is generated from the CRD files, and which of it is not what they say. */
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { schemasModule } from "./bundle.ts";
import { readCrdFiles } from "./crd-file.ts";
import { referenceIndex, referencePage, type WrittenPage } from "./reference.ts";
import { structuralFaults } from "./structural.ts";
import { typesModule } from "./types.ts";

/** The state of the generated files under one root. */
export interface Outputs {
  /** What an API server, or we, would not accept in the CRD files; nothing is generated then. */
  readonly faults: readonly string[];
  /** Files whose text is missing or different, with the text that they should have. */
  readonly stale: ReadonlyMap<string, string>;
  /** Generated pages of kinds that are gone. */
  readonly stray: readonly string[];
}

/** Compares the generated files under `root` with its CRD files. */
export function compareOutputs(root: string): Outputs {
  const crds = readCrdFiles(join(root, "crds"));
  const faults = crds.flatMap(({ file, schema }) =>
    structuralFaults(schema).map((fault) => `${file}: ${fault}`),
  );
  if (faults.length > 0) return { faults, stale: new Map(), stray: [] };
  const reference = join(root, "docs/reference");
  const wanted = new Map<string, string>([
    [join(root, "crds/src/types.generated.ts"), typesModule(crds)],
    [join(root, "crds/src/schemas.generated.ts"), schemasModule(crds)],
    [join(reference, "README.md"), referenceIndex(crds, writtenPages(reference))],
    ...crds.map((crd): [string, string] => [
      join(reference, `${crd.kind.toLowerCase()}.md`),
      referencePage(crd, exampleOf(crd.kind, root)),
    ]),
    ...crds.map(({ file }): [string, string] => [
      join(root, "charts/sallyport/templates/crds", basename(file)),
      chartTemplate(readFileSync(join(root, "crds", basename(file)), "utf8")),
    ]),
    ...crds.map(({ file }): [string, string] => [
      join(root, "charts/kustomize/crds", basename(file)),
      readFileSync(join(root, "crds", basename(file)), "utf8"),
    ]),
  ]);
  const stale = new Map([...wanted].filter(([file, text]) => currentText(file) !== text));
  // Pages of other sources carry no generated header and are left alone.
  const stray = namesIn(reference)
    .map((name) => join(reference, name))
    .filter((file) => !wanted.has(file) && isGenerated(currentText(file) ?? ""));
  return { faults, stale, stray };
}

const isGenerated = (text: string): boolean => text.startsWith("<!-- Generated from crds/");

function writtenPages(folder: string): readonly WrittenPage[] {
  const pages = namesIn(folder).filter((name) => name.endsWith(".md") && name !== "README.md");
  return pages.sort().flatMap((file) => {
    const text = currentText(join(folder, file)) ?? "";
    const title = /^# (.+)$/m.exec(text)?.[1];
    return title === undefined || isGenerated(text) ? [] : [{ file, title }];
  });
}

/** The chart's copy of a CRD: installed where wanted, and kept when the chart goes. */
function chartTemplate(text: string): string {
  if (text.includes("{{")) throw new Error("a CRD holds what Helm would take for a template");
  const kept =
    "  annotations:\n    {{- if .Values.crds.keep }}\n    helm.sh/resource-policy: keep\n    {{- end }}\n";
  const annotated = text.replace(/^metadata:\n {2}name: .*\n/m, (head) => `${head}${kept}`);
  return `{{- if .Values.crds.enabled }}\n${annotated.trimEnd()}\n{{- end }}\n`;
}

/** The first document of the kind in the accepted examples, as it is written there. */
function exampleOf(kind: string, root: string): string {
  const folder = join(root, "crds/examples/good");
  const documents = ["shop.yaml", ...namesIn(folder)].flatMap((name) =>
    (currentText(join(folder, name)) ?? "").split(/^---$/m),
  );
  const found = documents.find((text) => text.includes(`\nkind: ${kind}\n`));
  if (found === undefined) throw new Error(`crds/examples/good has no ${kind}`);
  return found.replace(/^#.*\n/gm, "");
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    // There is no reference yet.
    return [];
  }
}

function currentText(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    // A file that is not there, or cannot be read, is out of date: writing it says why it cannot be.
    return undefined;
  }
}
