/** The image of gateway, recorder and operator: Node, what it needs to run, and the bundles of `npm run build`. */

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileEntry, firstOf, folderEntries, libraryEntries } from "./files.ts";
import type { ImageSpec } from "./pack.ts";
import type { Entry } from "./tar.ts";

/** The programs that the image holds, as `npm run build` names them in dist/; the Dockerfile copies the same. */
export const bundles: readonly string[] = ["sallyport.mjs", "operator.mjs"];

/** How the gateway's image is called in tests and by `make image`. */
export const gatewayImageName = "localhost/sallyport:dev";

/**
 * What glibc keeps of memory that was given back: what loading took stays with the process otherwise, up to 32 MB of it
 * once something large was freed, and each thread keeps some more.
 */
export const allocator = { MALLOC_ARENA_MAX: "2", MALLOC_TRIM_THRESHOLD_: "131072" };

const root = join(import.meta.dirname, "../..");

/** What the image is made of; `npm run build` has written the bundles. */
export async function gatewayImage(dist = join(root, "dist")): Promise<ImageSpec> {
  return {
    name: gatewayImageName,
    layers: [await runtime(), await programs(dist)],
    entrypoint: ["/usr/local/bin/node", "/opt/sallyport/sallyport.mjs"],
    command: ["gateway"],
    environment: { NODE_ENV: "production", HOME: "/tmp", ...allocator },
    user: "65532:65532",
  };
}

/** Everything that is not ours: it changes with Node and Debian only. */
async function runtime(): Promise<Entry[]> {
  const node = nodeProgram();
  return [
    await fileEntry(node, "usr/local/bin/node"),
    ...(await libraryEntries([node])),
    await fileEntry(
      firstOf("a bundle of certificate authorities", [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
      ]),
      "etc/ssl/certs/ca-certificates.crt",
    ),
    ...accounts("sallyport:x:65532:65532:sallyport:/tmp:/nowhere", "sallyport:x:65532:"),
    { kind: "folder", path: "tmp", mode: 0o1777 },
  ];
}

async function programs(dist: string): Promise<Entry[]> {
  const present = bundles.filter((name) => existsSync(join(dist, name)));
  if (!present.includes("sallyport.mjs")) throw new Error(`${dist}/sallyport.mjs is missing: npm run build`);
  return [
    ...(await Promise.all(present.map((name) => fileEntry(join(dist, name), `opt/sallyport/${name}`)))),
    // Source maps are as large as the code, and what they are for is not done in a cluster.
    ...(await folderEntries(join(dist, "parts"), "opt/sallyport/parts", (name) => !name.endsWith(".map"))),
    await fileEntry(join(root, "LICENSE"), "opt/sallyport/LICENSE"),
  ];
}

/** The Node that the repository brings, not the one that happens to be on the machine. */
function nodeProgram(): string {
  const manifest = createRequire(import.meta.url).resolve("node/package.json");
  return firstOf("the repository's Node", [join(manifest, "../bin/node")]);
}

/** The files that give names to root and one more account. */
export function accounts(user: string, group: string): Entry[] {
  return [
    { kind: "file", path: "etc/passwd", content: `root:x:0:0:root:/root:/nowhere\n${user}\n` },
    { kind: "file", path: "etc/group", content: `root:x:0:\n${group}\n` },
    { kind: "file", path: "etc/nsswitch.conf", content: "hosts: files dns\n" },
  ];
}
