/** `npm run build`: writes the bundle into dist/. */
import { join, relative } from "node:path";
import { writeBundle } from "./bundle.ts";

const outfile = await writeBundle(join(import.meta.dirname, "../../../dist"));
console.log(relative(process.cwd(), outfile));
