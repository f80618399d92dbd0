/** Images without a daemon: packs files as an OCI archive that containerd, kind, docker and podman load. */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream, existsSync } from "node:fs";
import { mkdir, rename, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { type Entry, tarball } from "./tar.ts";

/** What an image holds and how it starts. */
export interface ImageSpec {
  readonly name: string;
  /** From what changes least to what changes most. */
  readonly layers: readonly (readonly Entry[])[];
  readonly entrypoint: readonly string[];
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly user: string;
  readonly workingFolder?: string;
}

/** Packs an image, and resolves to the path of its archive; the same content gives the same digest. */
export async function packImage(spec: ImageSpec, outfile?: string): Promise<string> {
  const cache = join(process.env.SALLYPORT_CACHE || join(homedir(), ".cache/sallyport"), "images");
  await mkdir(cache, { recursive: true });
  const layers: Layer[] = [];
  for (const entries of spec.layers) layers.push(await packLayer(cache, entries));
  const config = blob({
    architecture: process.arch === "x64" ? "amd64" : process.arch,
    os: "linux",
    config: {
      User: spec.user,
      Entrypoint: spec.entrypoint,
      ...(spec.command ? { Cmd: spec.command } : {}),
      Env: Object.entries({ PATH: "/usr/local/bin:/usr/bin:/bin", ...spec.environment }).map(
        ([name, value]) => `${name}=${value}`,
      ),
      WorkingDir: spec.workingFolder ?? "/",
    },
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => `sha256:${diffId}`) },
  });
  const manifest = blob({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: { mediaType: "application/vnd.oci.image.config.v1+json", ...config.descriptor },
    layers: layers.map(({ descriptor }) => ({
      mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
      ...descriptor,
    })),
  });
  const index = {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [
      {
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        ...manifest.descriptor,
        annotations: {
          "io.containerd.image.name": spec.name,
          "org.opencontainers.image.ref.name": spec.name.split(":").at(-1) ?? "latest",
        },
      },
    ],
  };
  const path = (digest: string) => `blobs/sha256/${digest.slice("sha256:".length)}`;
  const entries: Entry[] = [
    { kind: "file", path: "oci-layout", content: JSON.stringify({ imageLayoutVersion: "1.0.0" }) },
    { kind: "file", path: "index.json", content: JSON.stringify(index) },
    ...[config, manifest].map(
      ({ text, descriptor }): Entry => ({ kind: "file", path: path(descriptor.digest), content: text }),
    ),
    ...layers.map(
      ({ file, descriptor }): Entry => ({ kind: "file", path: path(descriptor.digest), from: file }),
    ),
  ];
  const archive = outfile ?? join(cache, `${manifest.descriptor.digest.slice("sha256:".length)}.tar`);
  if (outfile === undefined && existsSync(archive)) return archive;
  await settle(archive, (draft) => pipeline(Readable.from(tarball(entries)), createWriteStream(draft)));
  return archive;
}

interface Descriptor {
  readonly digest: string;
  readonly size: number;
}

interface Layer {
  /** Digest of what is in it, before it is compressed. */
  readonly diffId: string;
  readonly descriptor: Descriptor;
  readonly file: string;
}

/** Compressing takes seconds, reading does not: a layer is named after what is in it and compressed once. */
async function packLayer(cache: string, entries: readonly Entry[]): Promise<Layer> {
  const diffId = await digestOf(tarball(entries));
  // Another zlib may compress the same bytes otherwise.
  const file = join(cache, `${diffId}-${process.versions.zlib}.tar.gz`);
  if (!existsSync(file)) {
    await settle(file, (draft) =>
      pipeline(Readable.from(tarball(entries)), createGzip({ level: 6 }), createWriteStream(draft)),
    );
  }
  const digest = await digestOf(createReadStream(file));
  return { diffId, file, descriptor: { digest: `sha256:${digest}`, size: (await stat(file)).size } };
}

async function digestOf(chunks: AsyncIterable<Buffer>): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of chunks) hash.update(chunk);
  return hash.digest("hex");
}

function blob(content: object): { readonly text: string; readonly descriptor: Descriptor } {
  const text = JSON.stringify(content);
  const digest = `sha256:${createHash("sha256").update(text).digest("hex")}`;
  return { text, descriptor: { digest, size: Buffer.byteLength(text) } };
}

/** Two that pack the same at once never see half a file. */
async function settle(path: string, write: (draft: string) => Promise<void>): Promise<void> {
  const draft = `${path}.${process.pid}`;
  try {
    await write(draft);
    await rename(draft, path);
  } finally {
    await rm(draft, { force: true });
  }
}
