/** Part of `npm run build`: writes dist/operator.mjs, which runs without node_modules. */
import { chmod } from "node:fs/promises";
import { join, relative } from "node:path";
import { build } from "esbuild";

const root = join(import.meta.dirname, "../../..");
const outfile = join(root, "dist/operator.mjs");

await build({
  entryPoints: [join(root, "operator/src/main.ts")],
  outfile,
  bundle: true,
  platform: "node",
  target: "node24",
  format: "esm",
  minifyWhitespace: true,
  minifySyntax: true,
  // Stacks must stay readable.
  minifyIdentifiers: false,
  charset: "ascii",
  sourcemap: "linked",
  legalComments: "linked",
  // CommonJS packages inside an ES module expect these names.
  banner: {
    js: `import { createRequire } from "node:module";
const require = createRequire(import.meta.url);
const __filename = import.meta.filename;
const __dirname = import.meta.dirname;`,
  },
  logLevel: "warning",
});
await chmod(outfile, 0o755);
process.stdout.write(`${relative(process.cwd(), outfile)}\n`);
