/** The gateway as users run it: the bundle that `make build` writes. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

const root = join(import.meta.dirname, "../..");
const file = process.env.SALLYPORT_BUNDLE ?? join(root, "dist/sallyport.mjs");

/** Node's arguments in front of the gateway's own. */
export const bundle = { file, program: [file] as readonly string[] };

/** Builds the bundle, so that what is measured is what stands in the sources. */
export async function buildBundle(): Promise<void> {
  if (process.env.SALLYPORT_BUNDLE === undefined) {
    await promisify(execFile)("npm", ["run", "--silent", "build"], { cwd: root });
  }
  if (!existsSync(file)) throw new Error(`${file} is missing after \`npm run build\``);
}
