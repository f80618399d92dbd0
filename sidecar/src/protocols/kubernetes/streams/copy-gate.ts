/**
 * Where rules name files, an archive is judged as it passes: a head goes on only once every file that it could be read
 * as is allowed, with whatever stands before it (long names, extended heads). What cannot be read goes no further.
 */
import type { CopyDirection, Copying } from "../copying.ts";
import { blockBytes, isEmptyBlock, readHead, readRecords, type TarHead, untilZero } from "./tar.ts";

/** One file as rules see it. */
export interface CopiedFile {
  readonly direction: CopyDirection;
  /** In the container, from its root. */
  readonly path: string;
  readonly size: number;
}

/** Says why a file, or what cannot be read as one, may not pass; it records that, and rejects. Undefined: it may. */
export type JudgeCopied = (found: CopiedFile | { readonly unreadable: string }) => Refuse | undefined;

/** Records a refusal, and rejects with it. */
export type Refuse = () => Promise<never>;

/** What may go on, and what ends the stream behind it. */
export interface Sifted {
  readonly passed: Buffer;
  readonly refuse: Refuse | undefined;
}

const extrasBytesMax = 64 * 1024;
const heldBytesMax = 256 * 1024;
const pathCharsMax = 4_096;
/** Regular files; a contiguous one (7) is read as such. */
const fileTypes = new Set(["0", "7"]);
/** Links and devices. */
const otherTypes = new Set(["1", "2", "3", "4", "6"]);
const nothing = Buffer.alloc(0);

class Unreadable extends Error {}

/** Lets an archive pass entry by entry. */
export class CopyGate {
  readonly direction: CopyDirection;
  readonly #place: string | undefined;
  readonly #judge: JudgeCopied;
  /** The rest of a file's data, with what fills its last block, and every name that the file may have. */
  #left = 0;
  #passing: readonly CopiedFile[] = [];
  /** What waits for the judgement of the entry that it belongs to. */
  #held: Buffer[] = [];
  #heldBytes = 0;
  /** What is being gathered: a head, or the data of one that speaks of the next. */
  #part: Buffer = Buffer.alloc(blockBytes);
  #filled = 0;
  #extra: TarHead | undefined;
  #paxNames: Buffer[] = [];
  #longNames: Buffer[] = [];
  #paxSizes: string[] = [];
  /** Whether something was said of the next entry. */
  #hasExtras = false;
  #isEnding = false;
  #state: "reading" | "open" | "shut" = "reading";

  constructor(copying: Copying, judge: JudgeCopied) {
    this.direction = copying.direction;
    this.#place = copying.isKubectls && !copying.isTail ? copying.place : undefined;
    this.#judge = judge;
  }

  /** True once it passes what it could not read. */
  get isOpen(): boolean {
    return this.#state === "open";
  }

  /** The file whose data is on its way, as every name that it may have. */
  get passing(): readonly CopiedFile[] {
    return this.#left > 0 ? this.#passing : [];
  }

  /** Takes bytes of the archive. */
  push(bytes: Buffer): Sifted {
    const passed: Buffer[] = [];
    let refuse: Refuse | undefined;
    let rest = bytes;
    while (rest.length > 0 && this.#state === "reading" && refuse === undefined) {
      const taken =
        this.#left > 0
          ? Math.min(rest.length, this.#left)
          : Math.min(rest.length, this.#part.length - this.#filled);
      const part = rest.subarray(0, taken);
      rest = rest.subarray(taken);
      if (this.#left > 0) {
        this.#left -= taken;
        passed.push(part);
        continue;
      }
      part.copy(this.#part, this.#filled);
      this.#filled += taken;
      if (this.#filled < this.#part.length) continue;
      refuse = this.#whole(passed);
    }
    if (this.#state === "open") passed.push(...this.#release(), rest);
    const only = passed.length === 1 ? passed[0] : undefined;
    return { passed: only ?? Buffer.concat(passed), refuse };
  }

  /** No more comes: what was begun and is not whole is no archive. */
  end(): Sifted {
    if (this.#state !== "reading" || (this.#filled === 0 && this.#held.length === 0))
      return { passed: nothing, refuse: undefined };
    const refuse = this.#refused("it ends in the middle of a head");
    return { passed: refuse === undefined ? Buffer.concat(this.#release()) : nothing, refuse };
  }

  #whole(passed: Buffer[]): Refuse | undefined {
    const part = this.#part;
    this.#filled = 0;
    this.#part = Buffer.alloc(blockBytes);
    this.#held.push(part);
    this.#heldBytes += part.length;
    try {
      if (this.#heldBytes > heldBytesMax) throw new Unreadable("its heads have no end");
      const refuse = this.#extra === undefined ? this.#head(part) : this.#extraRead(this.#extra, part);
      if (refuse !== undefined) this.#state = "shut";
      if (refuse !== undefined || this.#isWaiting) return refuse;
      passed.push(...this.#release());
      return undefined;
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      return this.#refused(error.message);
    }
  }

  /** Judges what cannot be read; where nobody minds, all that comes passes. */
  #refused(unreadable: string): Refuse | undefined {
    const refuse = this.#judge({ unreadable });
    this.#state = refuse === undefined ? "open" : "shut";
    return refuse;
  }

  #release(): readonly Buffer[] {
    const begun = this.#filled === 0 ? [] : [this.#part.subarray(0, this.#filled)];
    const released = [...this.#held, ...begun];
    this.#held = [];
    this.#heldBytes = 0;
    this.#filled = 0;
    return released;
  }

  /** True while the entry that heads speak of has not come. */
  get #isWaiting(): boolean {
    return this.#extra !== undefined || this.#hasExtras;
  }

  #head(block: Buffer): Refuse | undefined {
    if (isEmptyBlock(block)) {
      if (this.#hasExtras) throw new Unreadable("an entry is announced that does not come");
      this.#isEnding = true;
      return undefined;
    }
    // Readers differ in how many empty blocks end an archive.
    if (this.#isEnding) throw new Unreadable("something comes behind its end");
    const head = readHead(block);
    if (head === undefined) throw new Unreadable("it is no tar archive that has one reading");
    if (!"LKxg".includes(head.type)) return this.#entry(head);
    if (head.size === 0 || head.size > extrasBytesMax) throw new Unreadable("a head has no fitting size");
    if (head.type !== "g") this.#hasExtras = true;
    this.#extra = head;
    this.#part = Buffer.alloc(head.size + padding(head.size));
    return undefined;
  }

  /** The data of a head that speaks of the next entry, or of all that follow. */
  #extraRead({ type, size }: TarHead, data: Buffer): undefined {
    this.#extra = undefined;
    const content = data.subarray(0, size);
    if (type === "L") this.#longNames.push(untilZero(content));
    if (type === "x" || type === "g") this.#records(content, type === "g");
  }

  #records(content: Buffer, isForAll: boolean): void {
    const records = readRecords(content);
    if (records === undefined) throw new Unreadable("an extended head cannot be read");
    for (const [key, value] of records) {
      if (key.startsWith("GNU.sparse.") || key === "SCHILY.realsize")
        throw new Unreadable("files with holes have more than one reading");
      if (key !== "path" && key !== "size" && key !== "linkpath") continue;
      if (isForAll) throw new Unreadable("a name or a size is given for all files");
      if (key === "path") this.#paxNames.push(value);
      if (key === "size") this.#paxSizes.push(value.toString("latin1"));
    }
  }

  #entry(head: TarHead): Refuse | undefined {
    const { type, size } = head;
    const [paxNames, longNames, paxSizes] = [this.#paxNames, this.#longNames, this.#paxSizes];
    [this.#paxNames, this.#longNames, this.#paxSizes, this.#hasExtras] = [[], [], [], false];
    const isFile = fileTypes.has(type);
    if (!isFile && type !== "5" && !otherTypes.has(type))
      throw new Unreadable(`entries of type ${JSON.stringify(type)} have more than one reading`);
    // Some readers take data behind these for data, some for heads.
    if (!isFile && size !== 0) throw new Unreadable("what is no file has a size");
    if (paxSizes.some((one) => one !== String(size))) throw new Unreadable("it gives two sizes for a file");
    if (this.direction === "in" && otherTypes.has(type))
      throw new Unreadable("links and devices lead elsewhere");
    // Small readers know no extended heads; none overlooks a long name.
    const [effective, ...others] = [
      ...paxNames.toReversed(),
      ...longNames.toReversed(),
      ...(longNames.length > 0 ? [] : head.names),
    ];
    const names = this.direction === "out" ? [effective ?? nothing] : [effective ?? nothing, ...others];
    const { direction } = this;
    const paths = new Set(names.map((name) => this.#pathOf(name, size)));
    this.#passing = [...paths].map((path) => ({ direction, path, size }));
    for (const file of this.#passing) {
      const refuse = this.#judge(file);
      if (refuse !== undefined) return refuse;
    }
    this.#left = size + padding(size);
    return undefined;
  }

  /** Where in the container a name leads. */
  #pathOf(bytes: Buffer, size: number): string {
    if (this.#place === undefined)
      throw new Unreadable("it is not kubectl's own way to copy by a path from the root, without ..");
    const name = decoded(bytes);
    if (name.length > pathCharsMax) throw new Unreadable("a name is too long");
    if (name === "" || name.includes("\0")) throw new Unreadable("an entry has no name");
    if (name.endsWith("/") && size !== 0) throw new Unreadable("what is no file has a size");
    const isAbsolute = name.startsWith("/");
    const pieces = name.split("/").filter((piece) => piece !== "" && piece !== ".");
    if (pieces.includes("..") || (isAbsolute && this.direction === "in"))
      throw new Unreadable(`the name ${shown(name)} leaves its folder`);
    const place = this.#place === "/" ? "" : this.#place;
    if (this.direction === "in") return [place, ...pieces].join("/") || "/";
    const path = `/${pieces.join("/")}`;
    if (path !== place && !path.startsWith(`${place}/`))
      throw new Unreadable(`the name ${shown(name)} is not below what was asked for`);
    return path;
  }
}

function padding(size: number): number {
  return (blockBytes - (size % blockBytes)) % blockBytes;
}

function decoded(bytes: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    // Rules are written in UTF-8: what is not has no name that they could know.
    throw new Unreadable("a name is no UTF-8");
  }
}

function shown(name: string): string {
  return JSON.stringify(name.slice(0, 200));
}
