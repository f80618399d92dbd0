import { open, stat } from "node:fs/promises";
import { dirname } from "node:path";

/** Something in an image's file system; paths have no leading slash. */
export type Entry =
  | { readonly kind: "file"; readonly path: string; readonly from: string; readonly mode?: number }
  | { readonly kind: "file"; readonly path: string; readonly content: string; readonly mode?: number }
  | { readonly kind: "folder"; readonly path: string; readonly mode?: number; readonly owner?: number }
  | { readonly kind: "link"; readonly path: string; readonly to: string };

const blockBytes = 512;

/**
 * An archive in the POSIX ustar format, as chunks. The same entries always give the same bytes: sorted, everything
 * owned by root unless told otherwise, and at the time 0. Folders above an entry are there without being asked for.
 */
export async function* tarball(entries: readonly Entry[]): AsyncGenerator<Buffer> {
  for (const entry of withParents(entries)) {
    if (entry.kind === "folder") {
      yield header(`${entry.path}/`, {
        type: "5",
        mode: entry.mode ?? 0o755,
        ...(entry.owner ? { owner: entry.owner } : {}),
      });
    } else if (entry.kind === "link") {
      yield header(entry.path, { type: "2", mode: 0o777, to: entry.to });
    } else if ("content" in entry) {
      const bytes = Buffer.from(entry.content);
      yield header(entry.path, { type: "0", mode: entry.mode ?? 0o644, size: bytes.length });
      yield padded(bytes);
    } else yield* fileFrom(entry);
  }
  yield Buffer.alloc(2 * blockBytes);
}

async function* fileFrom(entry: { path: string; from: string; mode?: number }): AsyncGenerator<Buffer> {
  const { size } = await stat(entry.from);
  yield header(entry.path, { type: "0", mode: entry.mode ?? 0o644, size });
  const file = await open(entry.from);
  try {
    let read = 0;
    for await (const chunk of file.createReadStream({ highWaterMark: 1 << 20 })) {
      read += chunk.length;
      yield chunk;
    }
    if (read !== size) throw new Error(`${entry.from} changed while it was read`);
  } finally {
    await file.close();
  }
  if (size % blockBytes !== 0) yield Buffer.alloc(blockBytes - (size % blockBytes));
}

function withParents(entries: readonly Entry[]): Entry[] {
  const byPath = new Map<string, Entry>();
  for (const { path } of entries) {
    for (let parent = dirname(path); parent !== "."; parent = dirname(parent)) {
      byPath.set(parent, { kind: "folder", path: parent });
    }
  }
  for (const entry of entries) byPath.set(entry.path, entry);
  // By code unit, not by the machine's language.
  return [...byPath.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

function padded(bytes: Buffer): Buffer {
  const rest = bytes.length % blockBytes;
  return rest === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(blockBytes - rest)]);
}

/**
 * ```
 *   0 name 100 | mode 8 | uid 8 | gid 8 | size 12 | mtime 12 | checksum 8 | type 1 | link 100
 * 257 "ustar\0" "00" | owner 32 | group 32 | device 16 | prefix 155
 * ```
 * https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html (ustar Interchange Format)
 */
function header(
  path: string,
  file: { type: string; mode: number; size?: number; to?: string; owner?: number },
): Buffer {
  const block = Buffer.alloc(blockBytes);
  const [prefix, name] = split(path);
  const octal = (value: number, width: number) => `${value.toString(8).padStart(width - 1, "0")}\0`;
  const owner = octal(file.owner ?? 0, 8);
  block.write(name, 0, 100);
  block.write(octal(file.mode, 8) + owner + owner + octal(file.size ?? 0, 12) + octal(0, 12), 100);
  block.write(`        ${file.type}`, 148);
  if ((file.to ?? "").length > 100) throw new Error(`the link ${path} is too long for an archive`);
  block.write(file.to ?? "", 157, 100);
  block.write("ustar\x0000", 257);
  block.write(prefix, 345, 155);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

function split(path: string): readonly [string, string] {
  if (Buffer.byteLength(path) <= 100) return ["", path];
  for (let at = path.indexOf("/"); at > 0 && at < path.length - 1; at = path.indexOf("/", at + 1)) {
    const [prefix, name] = [path.slice(0, at), path.slice(at + 1)];
    if (Buffer.byteLength(prefix) <= 155 && Buffer.byteLength(name) <= 100) return [prefix, name];
  }
  throw new Error(`the path ${path} is too long for an archive`);
}
