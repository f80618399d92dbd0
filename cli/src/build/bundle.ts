/** The one file that images hold: every command and the gateway, runnable without node_modules. */
import { chmod, copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { build } from "esbuild";

const root = join(import.meta.dirname, "../../..");

/** Writes `sallyport.mjs`, its source map, its licences and the SQL parser's WebAssembly into a folder. */
export async function writeBundle(folder: string): Promise<string> {
  const outfile = join(folder, "sallyport.mjs");
  await mkdir(folder, { recursive: true });
  await build({
    entryPoints: [join(root, "cli/src/main.ts")],
    outfile,
    bundle: true,
    platform: "node",
    target: "node24",
    format: "esm",
    sourcemap: "linked",
    legalComments: "linked",
    // A native addon that pg looks for and does without.
    external: ["pg-native"],
    banner: { js: commonJsNames },
    logLevel: "warning",
  });
  await keepOneByte(outfile);
  // libpg-query looks for it beside the file that it runs in.
  await copyFile(
    join(root, "node_modules/libpg-query/wasm/libpg-query.wasm"),
    join(folder, "libpg-query.wasm"),
  );
  await chmod(outfile, 0o755);
  return outfile;
}

/**
 * V8 keeps a source that is not Latin-1 at two bytes a character, which costs a gateway 3 MB. esbuild escapes such
 * characters in code; a few are left in comments, where one for one they do not move what the source map points to.
 */
async function keepOneByte(file: string): Promise<void> {
  const lines = (await readFile(file, "utf8")).split("\n");
  const isComment = /^\s*(\/\/|\/\*|\*)/;
  const kept = lines.map((line) => (isComment.test(line) ? line.replaceAll(/[\u0080-\uffff]/g, "?") : line));
  await writeFile(file, kept.join("\n"));
}

/** CommonJS packages inside an ES module expect these names. */
const commonJsNames = `
import { createRequire } from "node:module";
const require = createRequire(import.meta.url);
const __filename = import.meta.filename;
const __dirname = import.meta.dirname;`;
