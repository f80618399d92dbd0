/** `make image`: docker, podman or buildah where one works; otherwise the archive that our own packer writes. */
import { stat } from "node:fs/promises";
import { join, relative } from "node:path";
import { run } from "../cluster/kubectl.ts";
import { isOnPath } from "../cluster/programs.ts";
import { gatewayImage, gatewayImageName } from "./gateway.ts";
import { packImage } from "./pack.ts";

const root = join(import.meta.dirname, "../..");
const builder = process.argv.includes("--archive") ? undefined : await workingBuilder();

if (builder === undefined) {
  const archive = await packImage(await gatewayImage(), join(root, "dist/sallyport-image.tar"));
  const megabytes = ((await stat(archive)).size / 1e6).toFixed(0);
  console.log(`${relative(process.cwd(), archive)}: ${gatewayImageName}, ${megabytes} MB`);
} else {
  const argv = [builder === "buildah" ? "bud" : "build", "-t", gatewayImageName, root];
  const { code, stdout, stderr } = await run(builder, argv);
  process.stdout.write(stdout);
  process.stderr.write(stderr);
  if (code === 0) console.log(`${gatewayImageName} built with ${builder}`);
  process.exitCode = code;
}

async function workingBuilder(): Promise<string | undefined> {
  for (const program of ["docker", "podman", "buildah"]) {
    if (isOnPath(program) && (await run(program, ["info"])).code === 0) return program;
  }
  return undefined;
}
