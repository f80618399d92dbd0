import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { lstat, mkdtemp, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { packImage } from "./pack.ts";
import { type Entry, tarball } from "./tar.ts";

const run = promisify(execFile);
let folder = "";
const cacheBefore = process.env.SALLYPORT_CACHE;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sallyport-pack-"));
  process.env.SALLYPORT_CACHE = join(folder, "cache");
});
afterAll(async () => {
  if (cacheBefore === undefined) delete process.env.SALLYPORT_CACHE;
  else process.env.SALLYPORT_CACHE = cacheBefore;
  await rm(folder, { recursive: true });
});

const long = `${"deep/".repeat(30)}file`;
const entries: readonly Entry[] = [
  { kind: "file", path: "bin/tool", content: "#!/bin/sh\n", mode: 0o755 },
  { kind: "file", path: long, content: "x".repeat(513) },
  { kind: "link", path: "bin/other", to: "tool" },
  { kind: "folder", path: "tmp", mode: 0o1777 },
  { kind: "file", path: "etc/empty", content: "" },
];

async function unpacked(name: string, list: readonly Entry[]): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of tarball(list)) chunks.push(chunk);
  const into = join(folder, name);
  await run("mkdir", ["-p", into]);
  await writeFile(`${into}.tar`, Buffer.concat(chunks));
  await run("tar", ["-xpf", `${into}.tar`, "-C", into, "--no-same-owner"]);
  return into;
}

test("tar unpacks what was packed: files, modes, links, folders, long paths", async () => {
  const root = await unpacked("plain", entries);
  expect(await readFile(join(root, "bin/tool"), "utf8")).toBe("#!/bin/sh\n");
  expect((await lstat(join(root, "bin/tool"))).mode & 0o7777).toBe(0o755);
  expect((await lstat(join(root, "tmp"))).mode & 0o7777).toBe(0o1777);
  expect(await readlink(join(root, "bin/other"))).toBe("tool");
  expect(await readFile(join(root, long), "utf8")).toBe("x".repeat(513));
  expect(await readFile(join(root, "etc/empty"), "utf8")).toBe("");
});

test("a path that the format cannot hold is refused instead of cut", async () => {
  await expect(unpacked("long", [{ kind: "file", path: "y".repeat(101), content: "" }])).rejects.toThrow(
    "too long",
  );
});

const image = (list: readonly Entry[]) => ({
  name: "localhost/test:1",
  layers: [list, [{ kind: "file" as const, path: "opt/more", content: "more" }]],
  entrypoint: ["/bin/tool"],
  user: "65532:65532",
});
const digest = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

test("the same content gives the same archive, whatever the order and the times", async () => {
  const [one, two] = [join(folder, "one.tar"), join(folder, "two.tar")];
  await packImage(image(entries), one);
  await rm(join(folder, "cache"), { recursive: true });
  await packImage(image([...entries].reverse()), two);
  expect(digest(await readFile(two))).toBe(digest(await readFile(one)));
  const other = join(folder, "other.tar");
  await packImage(image([...entries, { kind: "file", path: "etc/more", content: "" }]), other);
  expect(digest(await readFile(other))).not.toBe(digest(await readFile(one)));
});

test("every blob is named after its digest, and the configuration names the layers' contents", async () => {
  const archive = await packImage(image(entries));
  const root = join(folder, "layout");
  await run("mkdir", ["-p", root]);
  await run("tar", ["-xf", archive, "-C", root]);
  const blob = async (name: string) => {
    const bytes = await readFile(join(root, "blobs/sha256", name.slice("sha256:".length)));
    expect(`sha256:${digest(bytes)}`).toBe(name);
    return bytes;
  };
  const index = JSON.parse(await readFile(join(root, "index.json"), "utf8"));
  const manifest = JSON.parse(String(await blob(index.manifests[0].digest)));
  const config = JSON.parse(String(await blob(manifest.config.digest)));
  expect(index.manifests[0].annotations["io.containerd.image.name"]).toBe("localhost/test:1");
  expect(config.config).toMatchObject({ User: "65532:65532", Entrypoint: ["/bin/tool"] });
  expect(manifest.layers).toHaveLength(2);
  for (const [at, layer] of manifest.layers.entries()) {
    const bytes = await blob(layer.digest);
    expect(bytes.length).toBe(layer.size);
    expect(`sha256:${digest(gunzipSync(bytes))}`).toBe(config.rootfs.diff_ids[at]);
  }
});
