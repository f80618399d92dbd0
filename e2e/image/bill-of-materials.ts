/** What the image holds of others, as a CycloneDX document (https://cyclonedx.org/docs/1.6/json/). */
import { readdir, readFile } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";

const root = join(import.meta.dirname, "../..");
/** Those of which files are copied beside the code. */
const copied = ["node_modules/asciinema-player", "node_modules/libpg-query"];

interface Locked {
  readonly version: string;
  readonly integrity?: string;
  readonly license?: string;
}

/** One thing of which the image holds something. */
export interface Component {
  readonly type: "library" | "platform";
  readonly name: string;
  readonly version: string;
  readonly purl: string;
  readonly licenses?: readonly { readonly expression: string }[];
  readonly hashes?: readonly { readonly alg: "SHA-512"; readonly content: string }[];
}

/**
 * Every package of which a line is in the bundles, as their source maps say, with the version, licence and hash of the
 * lock file; not what is only installed to build and test. `node` is the version of the Node that the image brings.
 */
export async function billOfMaterials(request: {
  readonly name: string;
  readonly programs: readonly string[];
  readonly dist: string;
  readonly node?: string;
}): Promise<{ readonly components: readonly Component[] }> {
  const { name, programs, dist, node } = request;
  const parts = (await readdir(join(dist, "parts"))).map((file) => `parts/${file}`);
  const maps = [
    ...programs.map((program) => `${program}.map`),
    ...parts.filter((file) => file.endsWith(".map")),
  ];
  const found = new Set(copied);
  for (const map of maps) for (const path of await packagesOf(join(dist, map))) found.add(path);
  const lock: Readonly<Record<string, Locked | undefined>> = JSON.parse(
    await readFile(join(root, "package-lock.json"), "utf8"),
  ).packages;
  const components: Component[] = [];
  for (const path of [...found].sort()) components.push(await componentOf(path, lock[path]));
  const platform: Component[] =
    node === undefined
      ? []
      : [{ type: "platform", name: "node", version: node, purl: `pkg:github/nodejs/node@v${node}` }];
  return {
    ...{ bomFormat: "CycloneDX", specVersion: "1.6", version: 1 },
    metadata: { component: { type: "container", name } },
    components: [...platform, ...distinct(components)],
  } as { readonly components: readonly Component[] };
}

/** The folders of packages, from the root on, of which a source map names a file. */
async function packagesOf(map: string): Promise<readonly string[]> {
  const { sources } = JSON.parse(await readFile(map, "utf8")) as { readonly sources: readonly string[] };
  return sources.flatMap((source) => {
    const path = relative(root, resolve(dirname(map), source));
    const [, folder] = /^((?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path) ?? [];
    return folder === undefined ? [] : [folder];
  });
}

async function componentOf(path: string, locked: Locked | undefined): Promise<Component> {
  if (locked === undefined) throw new Error(`${path} is in the bundle and not in package-lock.json`);
  const { version, integrity = "" } = locked;
  const license = locked.license ?? (await olderLicense(path));
  const name = path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length);
  const [, digest] = /^sha512-(\S+)$/.exec(integrity) ?? [];
  return {
    type: "library",
    name,
    version,
    purl: `pkg:npm/${name.replace("@", "%40")}@${version}`,
    ...(license !== undefined && { licenses: [{ expression: license }] }),
    ...(digest !== undefined && {
      hashes: [{ alg: "SHA-512", content: Buffer.from(digest, "base64").toString("hex") }],
    }),
  };
}

/** As packages wrote it before npm had one field for it. */
async function olderLicense(path: string): Promise<string | undefined> {
  const { licenses } = JSON.parse(await readFile(join(root, path, "package.json"), "utf8")) as {
    readonly licenses?: readonly { readonly type: string }[];
  };
  return licenses?.map(({ type }) => type).join(" OR ");
}

/** The same version in several folders is one thing. */
function distinct(components: readonly Component[]): readonly Component[] {
  return [...new Map(components.map((one) => [one.purl, one])).values()];
}
