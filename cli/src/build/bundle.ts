/** What images hold: every command and the gateway, runnable without node_modules. */
import { chmod, copyFile, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { build, type Plugin } from "esbuild";
import { playerFiles } from "../player-page.ts";

const root = join(import.meta.dirname, "../../..");

/** Writes `sallyport.mjs` into a folder, and beside it `parts` with all that it loads, for images to copy whole. */
export async function writeBundle(folder: string): Promise<string> {
  const parts = join(folder, "parts");
  // Parts are named after what is in them: those of an earlier build would stay.
  await rm(parts, { recursive: true, force: true });
  await mkdir(parts, { recursive: true });
  await build({
    entryPoints: {
      sallyport: join(root, "cli/src/main.ts"),
      // The gateway runs it as a program of its own.
      "parts/issue-certificate": join(root, "sidecar/src/server/issue-certificate.ts"),
    },
    outdir: folder,
    chunkNames: "parts/[name]-[hash]",
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    target: "node24",
    format: "esm",
    // What a process parses stays in its memory: the gateway should hold no other command, and no comments. A source
    // with characters beyond Latin-1 would be held at two bytes each; esbuild escapes them in code.
    splitting: true,
    minifyWhitespace: true,
    minifySyntax: true,
    // Short names would save nothing more, and stacks and profiles could not be read.
    minifyIdentifiers: false,
    charset: "ascii",
    sourcemap: "linked",
    legalComments: "linked",
    banner: { js: commonJsNames },
    // ssh2 asks for native helpers and does without them.
    external: ["cpu-features", "*.node"],
    plugins: [leanBuiltins],
    logLevel: "warning",
  });
  // libpg-query looks for it beside the file that it runs in.
  await copyFile(
    join(root, "node_modules/libpg-query/wasm/libpg-query.wasm"),
    join(parts, "libpg-query.wasm"),
  );
  for (const name of playerFiles) {
    await copyFile(join(root, "node_modules/asciinema-player/dist/bundle", name), join(parts, name));
  }
  const outfile = join(folder, "sallyport.mjs");
  await chmod(outfile, 0o755);
  return outfile;
}

/**
 * An `import` of node:http reads everything that the module exports, and some of that is loaded when it is read:
 * WebSocket brings in the whole of undici, which the gateway never uses.
 */
const leanBuiltins: Plugin = {
  name: "lean-builtins",
  setup(build) {
    build.onResolve({ filter: /^(node:)?https?$/ }, ({ path }) => ({ path, namespace: "builtin" }));
    // prom-client reads the current span for exemplars alone, which are off.
    build.onResolve({ filter: /^@opentelemetry\/api$/ }, ({ path }) => ({ path, namespace: "unused" }));
    build.onLoad({ filter: /./, namespace: "unused" }, () => ({ contents: "module.exports = {};" }));
    build.onLoad({ filter: /./, namespace: "builtin" }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)});`,
    }));
  },
};

/** CommonJS packages inside an ES module expect these names. */
const commonJsNames = `
import { createRequire as requireFor } from "node:module";
const require = requireFor(import.meta.url);
const __filename = import.meta.filename;
const __dirname = import.meta.dirname;`;
