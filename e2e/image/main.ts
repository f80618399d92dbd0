/** `make image`: docker, podman or buildah where one works; otherwise the archive that our own packer writes. */
import { stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join, relative } from "node:path";
import { run } from "../cluster/kubectl.ts";
import { isOnPath } from "../cluster/programs.ts";
import { billOfMaterials } from "./bill-of-materials.ts";
import { bundles, gatewayImage, gatewayImageName } from "./gateway.ts";
import { packImage } from "./pack.ts";

const root = join(import.meta.dirname, "../..");
const builder = process.argv.includes("--archive") ? undefined : await workingBuilder();

if (builder === undefined) {
  const archive = await packImage(await gatewayImage(), join(root, "dist/sallyport-image.tar"));
  const megabytes = ((await stat(archive)).size / 1e6).toFixed(0);
  console.log(`${relative(process.cwd(), archive)}: ${gatewayImageName}, ${megabytes} MB`);
  // A builder's image has its base's own.
  await writeBill(
    (createRequire(import.meta.url)("node/package.json") as { readonly version: string }).version,
  );
} else {
  const argv = [builder === "buildah" ? "bud" : "build", "-t", gatewayImageName, root];
  const { code, stdout, stderr } = await run(builder, argv);
  process.stdout.write(stdout);
  process.stderr.write(stderr);
  if (code === 0) {
    console.log(`${gatewayImageName} built with ${builder}`);
    await writeBill();
  }
  process.exitCode = code;
}

async function writeBill(node?: string): Promise<void> {
  const file = join(root, "dist/sallyport.cdx.json");
  const bill = await billOfMaterials({
    ...{ name: gatewayImageName, programs: bundles, dist: join(root, "dist") },
    ...(node !== undefined && { node }),
  });
  await writeFile(file, `${JSON.stringify(bill, undefined, 2)}\n`);
  console.log(`${relative(process.cwd(), file)}: ${bill.components.length} components of others`);
}

async function workingBuilder(): Promise<string | undefined> {
  for (const program of ["docker", "podman", "buildah"]) {
    if (isOnPath(program) && (await run(program, ["info"])).code === 0) return program;
  }
  return undefined;
}
