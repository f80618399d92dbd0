/** `kubectl cp` is an exec of tar: what passes is listed by name, size and hash, without being changed. */
import { createHash, type Hash } from "node:crypto";
import type { CopyDirection } from "../copying.ts";

/** What is noted of one entry of an archive. */
export type CopiedFile = Readonly<Record<string, string | number | boolean>>;

const block = 512;
const longNameMax = 64 * 1024;
const entriesMax = 10_000;

/** Reads an archive as it passes, in slices of any size. An archive that it cannot read is said to be unreadable. */
export class CopyReader {
  readonly direction: CopyDirection;
  readonly #note: (fields: CopiedFile) => void;
  #head: Buffer = Buffer.alloc(0);
  #left = 0;
  #padding = 0;
  #entry:
    | { readonly name: string; readonly size: number; readonly type: string; readonly link: string }
    | undefined;
  #hash: Hash | undefined;
  #long: Buffer[] | undefined;
  #longName: string | undefined;
  #isOver = false;
  #entries = 0;

  constructor(direction: CopyDirection, note: (fields: CopiedFile) => void) {
    this.direction = direction;
    this.#note = note;
  }

  push(bytes: Buffer): void {
    let rest = bytes;
    while (rest.length > 0 && !this.#isOver) {
      if (this.#left > 0) {
        const part = rest.subarray(0, Math.min(rest.length, this.#left));
        rest = rest.subarray(part.length);
        this.#left -= part.length;
        this.#hash?.update(part);
        this.#long?.push(Buffer.from(part));
        if (this.#left === 0) this.#endEntry();
      } else if (this.#padding > 0) {
        const skipped = Math.min(rest.length, this.#padding);
        this.#padding -= skipped;
        rest = rest.subarray(skipped);
      } else {
        const part = rest.subarray(0, block - this.#head.length);
        this.#head = Buffer.concat([this.#head, part]);
        rest = rest.subarray(part.length);
        if (this.#head.length === block) {
          this.#begin(this.#head);
          this.#head = Buffer.alloc(0);
        }
      }
    }
  }

  #begin(head: Buffer): void {
    if (head.every((byte) => byte === 0)) return;
    const size = sizeOf(head);
    if (!hasCheckSum(head) || size === undefined || this.#entries >= entriesMax) {
      this.#isOver = true;
      this.#note({ direction: this.direction, unreadable: true });
      return;
    }
    const type = String.fromCharCode(head[156] ?? 0);
    this.#left = size;
    this.#padding = (block - (size % block)) % block;
    if (type === "L" || type === "x") {
      // The name of the next entry, which is longer than a head has room for.
      if (size > longNameMax) this.#isOver = true;
      this.#long = [];
      this.#entry = { name: "", size, type, link: "" };
    } else {
      const name =
        this.#longName ?? [text(head, 345, 155), text(head, 0, 100)].filter((part) => part !== "").join("/");
      this.#longName = undefined;
      this.#entry = { name, size, type: type === "\0" ? "0" : type, link: text(head, 157, 100) };
      this.#hash = createHash("sha256");
    }
    if (size === 0) this.#endEntry();
  }

  #endEntry(): void {
    const entry = this.#entry;
    this.#entry = undefined;
    if (this.#long !== undefined) {
      const content = Buffer.concat(this.#long).toString("utf8");
      this.#long = undefined;
      this.#longName =
        entry?.type === "x"
          ? (/(?:^|\n)\d+ path=([^\n]*)\n/.exec(content)?.[1] ?? this.#longName)
          : content.replace(/\0+$/, "");
      return;
    }
    if (entry === undefined || entry.type === "g") return;
    this.#entries += 1;
    const { name, size, type, link } = entry;
    this.#note({
      direction: this.direction,
      name: name.slice(0, 1_000),
      size,
      type: types[type] ?? type,
      ...(link === "" ? {} : { link: link.slice(0, 1_000) }),
      ...(type === "0" ? { sha256: this.#hash?.digest("hex") ?? "" } : {}),
      ...(name.split("/").includes("..") || name.startsWith("/") ? { leavesFolder: true } : {}),
    });
    this.#hash = undefined;
  }
}

const types: Readonly<Record<string, string>> = {
  "0": "file",
  "1": "hard link",
  "2": "symbolic link",
  "5": "folder",
};

function text(head: Buffer, at: number, length: number): string {
  const field = head.subarray(at, at + length);
  const end = field.indexOf(0);
  return field.toString("utf8", 0, end < 0 ? length : end);
}

function sizeOf(head: Buffer): number | undefined {
  // Sizes of 8 GiB and more are binary.
  if (((head[124] ?? 0) & 0x80) !== 0) {
    const size = Number(head.readBigUInt64BE(128));
    return Number.isSafeInteger(size) ? size : undefined;
  }
  const digits = text(head, 124, 12).trim();
  return /^[0-7]*$/.test(digits) ? Number.parseInt(digits || "0", 8) : undefined;
}

function hasCheckSum(head: Buffer): boolean {
  const said = Number.parseInt(text(head, 148, 8).trim(), 8);
  let sum = 0;
  for (let at = 0; at < block; at += 1) sum += at >= 148 && at < 156 ? 0x20 : (head[at] ?? 0);
  return said === sum;
}
