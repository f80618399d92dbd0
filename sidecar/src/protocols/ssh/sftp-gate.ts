import { createHash, type Hash } from "node:crypto";
import type { Command, CommandPart, ObjectRef, Operation } from "@sallyport/policy";
import type { Permit, Refusal } from "../../guard/index.ts";
import { file, lexicalPath } from "./commands.ts";
import { type Field, MalformedMessage, Reader } from "./messages.ts";
import {
  attributeFlags,
  isFolder,
  openFlags,
  SftpSplitter,
  sftp,
  sftpPacket,
  sftpStatus,
} from "./sftp-packets.ts";

/** What the gate is given to do its work. */
export interface SftpGateOptions {
  /** `again`: the same request by where its paths lead now, for what had to wait. */
  readonly judge: (command: Command, again: () => Promise<Command>) => Promise<Permit | Refusal>;
  /** Whether policy would let it pass now, without a record. */
  readonly isStillAllowed: (command: Command) => boolean;
  /** Whether policy denies it now; what it would ask about it does not deny. */
  readonly isDenied: (command: Command) => boolean;
  /** `credit`: bytes of the sender that these stand for. */
  readonly toUpstream: (bytes: Buffer, credit: number) => void;
  readonly toClient: (bytes: Buffer, credit: number) => void;
  /** Bytes of the client that go nowhere. */
  readonly dropped: (bytes: number) => void;
  /** A file was closed: what went through it. */
  readonly transferred: (number: number, transfer: Transfer, ms: number) => void;
  readonly nowMs: () => number;
}

/** What went through one open file. */
export interface Transfer {
  readonly path: string;
  readonly readBytes: number;
  readonly writtenBytes: number;
  /** The host itself has copied other files' bytes into it, which are counted nowhere. */
  readonly isCopiedInto: boolean;
  /** Of all bytes in order; absent where they were not moved in order, from the start to the end. */
  readonly sha256?: string;
}

interface OpenFile {
  readonly path: string;
  readonly number: number;
  readonly command: Command;
  readonly openedMs: number;
  readonly hash: Hash;
  isInOrder: boolean;
  nextRead: number;
  nextWrite: number;
  readBytes: number;
  writtenBytes: number;
  isWithdrawn: boolean;
  /** The client has closed it: its handle may soon be another file's. */
  isClosing: boolean;
  /** The host itself has copied into it. */
  isCopiedInto: boolean;
}

/** A request that the host has not answered. */
type Owed =
  | { readonly kind: "plain" }
  | { readonly kind: "open"; readonly opening: OpenFile }
  | { readonly kind: "read"; readonly of: OpenFile; readonly offset: number }
  | { readonly kind: "close"; readonly handle: string };

const owedMax = 4096;
const filesMax = 1024;
const resolveMs = 10_000;

/**
 * Judges the operations of an SFTP session by the path that they reach: the host itself resolves it first, links and
 * `..` included, and is then given the path that was judged. Reads and writes go by the handle that an open gave.
 */
export class SftpGate {
  readonly #options: SftpGateOptions;
  readonly #client = new SftpSplitter();
  readonly #upstream = new SftpSplitter();
  readonly #owed = new Map<number, Owed>();
  readonly #files = new Map<string, OpenFile>();
  /** The gateway's own questions to the host. */
  readonly #asked = new Map<number, (found: Found | undefined) => void>();
  #nextAsked = 0xf000_0000;
  /** Where relative paths begin, once that was asked for. */
  #home: string | undefined;
  #isBegun = false;
  #isOver = false;

  constructor(options: SftpGateOptions) {
    this.#options = options;
  }

  /** Resolves when every whole packet has been judged; they are taken in order. */
  fromClient(chunk: Buffer): Promise<void> | undefined {
    const packets = this.#client.push(chunk);
    for (let index = 0; index < packets.length; index += 1) {
      const pending = this.#request(packets[index] as Buffer);
      if (pending !== undefined) return this.#rest(pending, packets.slice(index + 1));
    }
    return undefined;
  }

  async #rest(first: Promise<void>, packets: readonly Buffer[]): Promise<void> {
    await first;
    for (const packet of packets) {
      // The host would not be asked any more, and each question would wait for its time to be over.
      if (this.#isOver) return;
      await this.#request(packet);
    }
  }

  fromUpstream(chunk: Buffer): void {
    for (const packet of this.#upstream.push(chunk)) this.#reply(packet);
  }

  /** Policy has changed: files that it would no longer let open are closed to the client. */
  policyChanged(): void {
    for (const one of this.#allFiles()) one.isWithdrawn ||= !this.#options.isStillAllowed(one.command);
  }

  /** The hour has come from which on files are denied: those are closed, what was approved is not asked about anew. */
  timePassed(): void {
    for (const one of this.#allFiles()) one.isWithdrawn ||= this.#options.isDenied(one.command);
  }

  /** Those that the host still opens, too. */
  #allFiles(): readonly OpenFile[] {
    const opening = [...this.#owed.values()].flatMap((owed) => (owed.kind === "open" ? [owed.opening] : []));
    return [...this.#files.values(), ...opening];
  }

  /** An approval was taken back: what it let be open is closed to the client. True where it was here. */
  withdraw(number: number): boolean {
    const meant = this.#allFiles().filter((one) => one.number === number);
    for (const one of meant) one.isWithdrawn = true;
    return meant.length > 0;
  }

  /** The channel is over: what is still open is accounted for, and nothing that waits is judged. */
  end(): void {
    this.#isOver = true;
    for (const handle of [...this.#files.keys()]) this.#closed(handle);
    for (const answer of this.#asked.values()) answer(undefined);
    this.#asked.clear();
  }

  #request(packet: Buffer): Promise<void> | undefined {
    const reader = new Reader(packet, 4);
    const type = reader.byte();
    if (type === sftp.init) {
      // Whatever the client speaks beyond, three is what hosts and this gate speak.
      if (this.#isBegun) throw new Error("a second start of SFTP");
      this.#isBegun = true;
      this.#options.toUpstream(sftpPacket(sftp.init, 3), packet.length);
      return undefined;
    }
    const id = reader.uint32();
    if (!this.#isBegun || this.#owed.has(id) || this.#owed.size >= owedMax) {
      this.#refuse(packet, id, sftpStatus.failure, "too many requests, or one number twice");
      return undefined;
    }
    switch (type) {
      case sftp.read:
      case sftp.write:
      case sftp.readdir:
      case sftp.fstat:
      case sftp.close:
        this.#byHandle(type, id, reader, packet);
        return undefined;
      case sftp.fsetstat:
        return this.#whole(id, packet, () => this.#setAttributes(id, reader, packet));
      case sftp.realpath:
        return this.#whole(id, packet, () => this.#realpath(id, reader, packet));
      case sftp.extended:
        return this.#whole(id, packet, () => this.#extended(id, reader, packet));
      default:
        return this.#whole(id, packet, () => this.#byPath(type, id, reader, packet));
    }
  }

  /** A request whose fields cannot be read, or whose path is no UTF-8, is refused; the next one begins where it should. */
  async #whole(id: number, packet: Buffer, judge: () => Promise<void> | undefined): Promise<void> {
    try {
      await judge();
    } catch (error) {
      if (!(error instanceof MalformedMessage)) throw error;
      this.#refuse(packet, id, sftpStatus.failure, "the request cannot be read");
    }
  }

  #byHandle(type: number, id: number, reader: Reader, packet: Buffer): undefined {
    const handle = reader.string().toString("latin1");
    const open = this.#files.get(handle);
    if (open === undefined || open.isClosing)
      return this.#refuse(packet, id, sftpStatus.failure, "no such handle");
    if (open.isWithdrawn && type !== sftp.close) {
      return this.#refuse(packet, id, sftpStatus.permissionDenied, "the access policy has changed");
    }
    if (type === sftp.close) {
      open.isClosing = true;
      return this.#pass(id, packet, { kind: "close", handle });
    }
    if (type === sftp.read) {
      if (!isReading(open.command))
        return this.#refuse(packet, id, sftpStatus.permissionDenied, "the file is open for writing");
      return this.#pass(id, packet, { kind: "read", of: open, offset: Number(reader.uint64()) });
    }
    if (type === sftp.write) {
      if (!isWriting(open.command)) {
        return this.#refuse(packet, id, sftpStatus.permissionDenied, "the file is open for reading");
      }
      const offset = Number(reader.uint64());
      const data = reader.string();
      if (offset === open.nextWrite && open.readBytes === 0) open.hash.update(data);
      else open.isInOrder = false;
      open.nextWrite = offset + data.length;
      open.writtenBytes += data.length;
    }
    this.#pass(id, packet);
  }

  /** Whoever writes a file may cut it off; its owner, rights and times are attributes as those of its path are. */
  async #setAttributes(id: number, reader: Reader, packet: Buffer): Promise<void> {
    const handle = reader.string();
    const flags = reader.uint32();
    const open = this.#openFile(handle);
    if (open === undefined) return this.#refuse(packet, id, sftpStatus.failure, "no such handle");
    if (!isWriting(open.command)) {
      return this.#refuse(packet, id, sftpStatus.permissionDenied, "the file is open for reading");
    }
    const asked = sftpCommand("write", "sftp.setstat", [open.path]);
    if (flags !== attributeFlags.size && (await this.#judged(asked, packet, id, same(asked))) === undefined)
      return;
    if (open.isWithdrawn) {
      return this.#refuse(packet, id, sftpStatus.permissionDenied, "the access policy has changed");
    }
    this.#pass(id, packet);
  }

  async #byPath(type: number, id: number, reader: Reader, packet: Buffer): Promise<void> {
    const rule = byPath.get(type);
    if (rule === undefined) return this.#refuse(packet, id, sftpStatus.unsupported, "not supported");
    const path = reader.text();
    if (type === sftp.open) return this.#open(id, path, reader, packet);
    if (type === sftp.rename || type === sftp.symlink) {
      return this.#pair({ type, id, first: path, second: reader.text(), packet, ...rule });
    }
    const look = () => this.#look(path, rule);
    const { resolved, asked } = await look();
    if ((await this.#judged(asked, packet, id, look)) === undefined) return;
    if (resolved === undefined) return this.#missing(packet, id);
    const fields: readonly Field[] = [id, resolved, { raw: reader.rest }];
    const owed: Owed =
      type === sftp.opendir
        ? { kind: "open", opening: this.#opening(resolved, 0, asked) }
        : { kind: "plain" };
    this.#pass(id, sftpPacket(type, ...fields), owed, packet.length);
  }

  /** Where the client is may be asked by anybody; what another path leads to is a look at it. */
  async #realpath(id: number, reader: Reader, packet: Buffer): Promise<void> {
    const path = reader.text();
    if (path === "" || path === ".") return this.#pass(id, packet);
    const look = () => this.#look(path, looking);
    const { resolved, asked } = await look();
    if ((await this.#judged(asked, packet, id, look)) === undefined) return;
    if (resolved === undefined) return this.#missing(packet, id);
    this.#pass(id, sftpPacket(sftp.realpath, id, resolved), { kind: "plain" }, packet.length);
  }

  async #open(id: number, path: string, reader: Reader, packet: Buffer): Promise<void> {
    const flags = reader.uint32();
    if (this.#files.size >= filesMax)
      return this.#refuse(packet, id, sftpStatus.failure, "too many open files");
    const writes =
      (flags & (openFlags.write | openFlags.append | openFlags.create | openFlags.truncate)) !== 0;
    // Without the flag to write a host opens for reading, also where it creates.
    const reads = (flags & openFlags.read) !== 0 || (flags & openFlags.write) === 0;
    const look = async () => {
      const found = await this.#resolve(path, true);
      const resolved = found ?? (await this.#lexical(path));
      const asked: Command = {
        protocol: "ssh",
        text: `${reads ? "sftp.get" : ""}${reads && writes ? " " : ""}${writes ? "sftp.put" : ""} ${resolved}`,
        parts: [
          ...(reads ? [part("read", "sftp.get", [resolved])] : []),
          ...(writes ? [part("write", "sftp.put", [resolved])] : []),
        ],
      };
      return { found, resolved, asked };
    };
    const { found, resolved, asked } = await look();
    const permit = await this.#judged(asked, packet, id, look);
    if (permit === undefined) return;
    if (found === undefined) return this.#missing(packet, id);
    const opening = this.#opening(resolved, permit.number, asked);
    const rewritten = sftpPacket(sftp.open, id, resolved, flags, { raw: reader.rest });
    this.#pass(id, rewritten, { kind: "open", opening }, packet.length);
  }

  #opening(path: string, number: number, command: Command): OpenFile {
    return {
      path,
      number,
      command,
      openedMs: this.#options.nowMs(),
      hash: createHash("sha256"),
      isInOrder: true,
      nextRead: 0,
      nextWrite: 0,
      readBytes: 0,
      writtenBytes: 0,
      isWithdrawn: false,
      isClosing: false,
      isCopiedInto: false,
    };
  }

  /**
   * Renames and links touch two paths, and both must be allowed; a link also reaches what it points to, and a folder
   * takes along what is in it.
   */
  async #pair(asked: {
    readonly type: number;
    readonly id: number;
    readonly first: string;
    readonly second: string;
    readonly packet: Buffer;
    readonly operation: Operation;
    readonly word: string;
    /** Of an extension, before its fields. */
    readonly name?: string;
  }): Promise<void> {
    const { type, id, packet, operation, word } = asked;
    const isLink = type === sftp.symlink;
    const look = async () => {
      const foundSecond = await this.#resolve(asked.second, false);
      const second = foundSecond ?? (await this.#lexical(asked.second));
      // A link's text counts from where the link is.
      const from =
        isLink && !asked.first.startsWith("/") ? `${parentOf(second)}/${asked.first}` : asked.first;
      const foundFirst = await this.#resolve(from, isLink);
      const first = foundFirst ?? (await this.#lexical(from));
      // What the host does not say of it may be a folder.
      const isTree = word === "sftp.rename" && (await this.#ask(sftp.lstat, first))?.isFolder !== false;
      const pair = sftpCommand(operation, word, [first, second], isTree);
      return { foundFirst, foundSecond, first, second, isTree, asked: pair };
    };
    const { foundFirst, foundSecond, first, second, isTree, asked: pair } = await look();
    if ((await this.#judged(pair, packet, id, look)) === undefined) return;
    if (foundSecond === undefined || (foundFirst === undefined && !isLink)) return this.#missing(packet, id);
    // Writing there is not enough to have it under a name by which it may be read.
    if (!isLink && !this.#mayBeRead(first, isTree) && this.#mayReadSome(second, isTree)) {
      const what = isTree ? "it, or something in it," : "it";
      return this.#refuse(packet, id, sftpStatus.permissionDenied, `${what} may not be read where it is`);
    }
    const name = asked.name === undefined ? [] : [asked.name];
    const rewritten = sftpPacket(type, id, ...name, isLink ? asked.first : first, second);
    this.#pass(id, rewritten, { kind: "plain" }, packet.length);
  }

  #mayBeRead(path: string, isTree = false): boolean {
    const asked = sftpCommand("read", "sftp.get", [path], isTree);
    return this.#options.isStillAllowed(asked) && (!isTree || this.#mayBeRead(within(path)));
  }

  #mayReadSome(path: string, isTree: boolean): boolean {
    return this.#mayBeRead(path) || (isTree && this.#mayBeRead(within(path)));
  }

  #extended(id: number, reader: Reader, packet: Buffer): Promise<void> | undefined {
    const name = reader.text();
    switch (name) {
      case "posix-rename@openssh.com":
      case "hardlink@openssh.com": {
        const word = name.startsWith("hard") ? "sftp.link" : "sftp.rename";
        const pair = { first: reader.text(), second: reader.text() };
        return this.#pair({ type: sftp.extended, id, ...pair, packet, operation: "write", word, name });
      }
      case "lsetstat@openssh.com":
        return this.#extendedPath(id, name, reader, packet, "write", "sftp.setstat", false);
      case "statvfs@openssh.com":
        return this.#extendedPath(id, name, reader, packet, "read", "sftp.stat", true);
      case "fsync@openssh.com":
      case "fstatvfs@openssh.com":
        if (this.#opened(reader) === undefined)
          this.#refuse(packet, id, sftpStatus.failure, "no such handle");
        else this.#pass(id, packet);
        return undefined;
      case "copy-data":
        this.#copy(id, reader, packet);
        return undefined;
      case "expand-path@openssh.com":
        return this.#expand(id, reader, packet);
      case "limits@openssh.com":
      case "home-directory":
      case "users-groups-by-id@openssh.com":
        this.#pass(id, packet);
        return undefined;
      default:
        this.#refuse(packet, id, sftpStatus.unsupported, "not supported");
        return undefined;
    }
  }

  async #extendedPath(
    id: number,
    name: string,
    reader: Reader,
    packet: Buffer,
    operation: Operation,
    word: string,
    follows: boolean,
  ): Promise<void> {
    const path = reader.text();
    const look = () => this.#look(path, { operation, word, follows });
    const { resolved, asked } = await look();
    if ((await this.#judged(asked, packet, id, look)) === undefined) return;
    if (resolved === undefined) return this.#missing(packet, id);
    const rewritten = sftpPacket(sftp.extended, id, name, resolved, { raw: reader.rest });
    this.#pass(id, rewritten, { kind: "plain" }, packet.length);
  }

  /** `~` and `~ann/x`: what only the host can expand, and like `realpath` a look at where it leads. */
  async #expand(id: number, reader: Reader, packet: Buffer): Promise<void> {
    const path = reader.text();
    if (path === "~" || path === "~/") return this.#pass(id, packet);
    const look = async () => {
      const found =
        path.length > 4096 ? undefined : await this.#ask(sftp.extended, "expand-path@openssh.com", path);
      const resolved = found?.path.startsWith("/") === true ? found.path : undefined;
      const isOthers = /^~[^/]/.test(path);
      const shown = resolved ?? (isOthers ? path : await this.#lexical(path.replace(/^~\//, "./")));
      return { resolved, asked: sftpCommand("read", "sftp.stat", [shown]) };
    };
    const { resolved, asked } = await look();
    if ((await this.#judged(asked, packet, id, look)) === undefined) return;
    if (resolved === undefined) return this.#missing(packet, id);
    this.#pass(id, sftpPacket(sftp.realpath, id, resolved), { kind: "plain" }, packet.length);
  }

  /** Both files were judged when they were opened: one for reading, one for writing. */
  #copy(id: number, reader: Reader, packet: Buffer): undefined {
    const from = this.#opened(reader);
    reader.uint64();
    reader.uint64();
    const to = this.#opened(reader);
    if (
      from === undefined ||
      to === undefined ||
      !isReading(from.command) ||
      !isWriting(to.command) ||
      from.isWithdrawn ||
      to.isWithdrawn
    ) {
      return this.#refuse(packet, id, sftpStatus.permissionDenied, "not open for that");
    }
    to.isInOrder = false;
    to.isCopiedInto = true;
    this.#pass(id, packet);
  }

  #opened(reader: Reader): OpenFile | undefined {
    return this.#openFile(reader.string());
  }

  #openFile(handle: Buffer): OpenFile | undefined {
    const open = this.#files.get(handle.toString("latin1"));
    return open?.isClosing === true ? undefined : open;
  }

  #pass(id: number, packet: Buffer, owed: Owed = { kind: "plain" }, credit = packet.length): undefined {
    this.#owed.set(id, owed);
    this.#options.toUpstream(packet, credit);
  }

  async #judged(
    asked: Command,
    packet: Buffer,
    id: number,
    look: () => Promise<{ readonly asked: Command }>,
  ): Promise<Permit | undefined> {
    if (this.#isOver) return undefined;
    const answer = await this.#options.judge(asked, async () => (await look()).asked);
    if (answer.kind === "permit") return answer;
    this.#refuse(packet, id, sftpStatus.permissionDenied, answer.message);
    return undefined;
  }

  /** Where a path leads now, and what is then asked. */
  async #look(path: string, { operation, word, follows }: PathRule) {
    const resolved = await this.#resolve(path, follows);
    return { resolved, asked: sftpCommand(operation, word, [resolved ?? (await this.#lexical(path))]) };
  }

  #missing(packet: Buffer, id: number): undefined {
    this.#refuse(packet, id, sftpStatus.noSuchFile, "No such file");
  }

  #refuse(packet: Buffer, id: number, code: number, text: string): undefined {
    this.#options.dropped(packet.length);
    this.#options.toClient(sftpPacket(sftp.status, id, code, text, "en"), 0);
  }

  /** The path as the host sees it: links followed, the last one only where the operation follows it. */
  async #resolve(path: string, follows: boolean): Promise<string | undefined> {
    if (path.length > 4096) return undefined;
    const last = path.slice(path.lastIndexOf("/") + 1);
    const hasName = last !== "" && last !== "." && last !== "..";
    if (follows || !hasName) {
      const found = await this.#askFor(path === "" ? "." : path);
      if (found !== undefined || !hasName) return found;
    }
    const parent = await this.#askFor(parentOf(path));
    const there = parent === undefined ? undefined : `${parent === "/" ? "" : parent}/${last}`;
    // Something is there that the host cannot resolve, as a link that leads nowhere yet: nobody knows what it is.
    if (follows && there !== undefined && (await this.#ask(sftp.lstat, there)) !== undefined)
      return undefined;
    return there;
  }

  /** What is judged where a path leads nowhere, so that nobody learns what is missing where they may not look. */
  async #lexical(path: string): Promise<string> {
    if (path.startsWith("/")) return lexicalPath(path);
    this.#home ??= await this.#askFor(".");
    return lexicalPath(this.#home === undefined ? path : `${this.#home}/${path}`);
  }

  async #askFor(path: string): Promise<string | undefined> {
    const found = await this.#ask(sftp.realpath, path);
    // What is no absolute path says nothing about where the operation would go.
    return found?.path.startsWith("/") === true ? found.path : undefined;
  }

  /** A question of the gateway's own; undefined where the host answers with a failure, or not in time. */
  #ask(type: number, ...fields: readonly string[]): Promise<Found | undefined> {
    while (this.#owed.has(this.#nextAsked) || this.#asked.has(this.#nextAsked)) {
      this.#nextAsked = this.#nextAsked >= 0xffff_fffe ? 0xf000_0000 : this.#nextAsked + 1;
    }
    if (this.#isOver) return Promise.resolve(undefined);
    const id = this.#nextAsked;
    return new Promise((resolve) => {
      const timer = setTimeout(() => settle(undefined), resolveMs);
      const settle = (found: Found | undefined) => {
        clearTimeout(timer);
        this.#asked.delete(id);
        resolve(found);
      };
      this.#asked.set(id, settle);
      this.#options.toUpstream(sftpPacket(type, id, ...fields), 0);
    });
  }

  #reply(packet: Buffer): void {
    const reader = new Reader(packet, 4);
    const type = reader.byte();
    const id = reader.uint32();
    if (type === sftp.version) {
      this.#options.toClient(versionPacket(reader), packet.length);
      return;
    }
    const answer = this.#asked.get(id);
    if (answer !== undefined) {
      answer(foundIn(type, reader));
      this.#options.toClient(Buffer.alloc(0), packet.length);
      return;
    }
    const owed = this.#owed.get(id);
    if (owed === undefined) throw new Error("an answer to no request");
    this.#owed.delete(id);
    this.#settle(owed, type, reader);
    this.#options.toClient(packet, packet.length);
  }

  #settle(owed: Owed, type: number, reader: Reader): void {
    switch (owed.kind) {
      case "plain":
        return;
      case "open":
        if (type === sftp.handle) this.#files.set(reader.string().toString("latin1"), owed.opening);
        return;
      case "close":
        this.#closed(owed.handle);
        return;
      case "read": {
        if (type !== sftp.data) return;
        const { of, offset } = owed;
        const data = reader.string();
        if (offset === of.nextRead && of.writtenBytes === 0) of.hash.update(data);
        else of.isInOrder = false;
        of.nextRead = offset + data.length;
        of.readBytes += data.length;
      }
    }
  }

  #closed(handle: string): void {
    const open = this.#files.get(handle);
    this.#files.delete(handle);
    if (open === undefined || open.number === 0) return;
    const { path, readBytes, writtenBytes, isCopiedInto, number, openedMs } = open;
    const sha256 = open.isInOrder ? { sha256: open.hash.digest("hex") } : {};
    const ms = this.#options.nowMs() - openedMs;
    const counted = { path, readBytes, writtenBytes, isCopiedInto, ...sha256 };
    this.#options.transferred(number, counted, ms);
  }
}

/** What the host says to a question of the gateway's own. */
interface Found {
  /** Empty where attributes were asked for. */
  readonly path: string;
  /** True unless it is known that it is none. */
  readonly isFolder: boolean;
}

/** A name that is no UTF-8 is none that can be judged, and an answer that cannot be read is none. */
function foundIn(type: number, reader: Reader): Found | undefined {
  try {
    if (type === sftp.attrs) return { path: "", isFolder: isFolder(reader) ?? true };
    if (type === sftp.name && reader.uint32() > 0) return { path: reader.text(), isFolder: true };
  } catch {
    return undefined;
  }
  return undefined;
}

interface PathRule {
  readonly operation: Operation;
  readonly word: string;
  readonly follows: boolean;
}

const looking: PathRule = { operation: "read", word: "sftp.stat", follows: true };

const byPath: ReadonlyMap<number, PathRule> = new Map([
  [sftp.open, { operation: "read", word: "sftp.get", follows: true }],
  [sftp.lstat, { operation: "read", word: "sftp.stat", follows: false }],
  [sftp.stat, { operation: "read", word: "sftp.stat", follows: true }],
  [sftp.setstat, { operation: "write", word: "sftp.setstat", follows: true }],
  [sftp.opendir, { operation: "read", word: "sftp.list", follows: true }],
  [sftp.remove, { operation: "write", word: "sftp.remove", follows: false }],
  [sftp.mkdir, { operation: "write", word: "sftp.mkdir", follows: false }],
  [sftp.rmdir, { operation: "write", word: "sftp.rmdir", follows: false }],
  [sftp.rename, { operation: "write", word: "sftp.rename", follows: false }],
  [sftp.readlink, { operation: "read", word: "sftp.stat", follows: false }],
  [sftp.symlink, { operation: "write", word: "sftp.symlink", follows: false }],
]);

/** Extensions that the gate reads; a host's others are not told to clients. */
const knownExtensions: ReadonlySet<string> = new Set([
  "posix-rename@openssh.com",
  "statvfs@openssh.com",
  "fstatvfs@openssh.com",
  "hardlink@openssh.com",
  "fsync@openssh.com",
  "lsetstat@openssh.com",
  "limits@openssh.com",
  "expand-path@openssh.com",
  "copy-data",
  "home-directory",
  "users-groups-by-id@openssh.com",
]);

function versionPacket(reader: Reader): Buffer {
  const pairs: Buffer[] = [];
  while (!reader.isAtEnd) {
    const name = reader.text();
    const value = reader.string();
    if (knownExtensions.has(name)) pairs.push(Buffer.from(name), value);
  }
  return sftpPacket(sftp.version, 3, ...pairs);
}

/** What goes by a handle is about the same file, whatever its path leads to. */
const same = (asked: Command) => async () => ({ asked });

function part(operation: Operation, word: string, paths: readonly string[], isTree = false): CommandPart {
  const objects: readonly ObjectRef[] = paths.map((path) =>
    isTree ? { ...file(path), isTree } : file(path),
  );
  return { operation, words: [word], objects, unbounded: false, enforcement: "authoritative" };
}

/** `isTree`: each of the paths stands for what is below it, too. */
function sftpCommand(operation: Operation, word: string, paths: readonly string[], isTree = false): Command {
  return {
    protocol: "ssh",
    text: `${word} ${paths.join(" ")}`,
    parts: [part(operation, word, paths, isTree)],
  };
}

/** Stands for what is in a folder and no rule names: no file's name has a NUL. */
const within = (folder: string) => `${folder === "/" ? "" : folder}/\0`;

const isReading = (asked: Command) => asked.parts.some(({ operation }) => operation === "read");
const isWriting = (asked: Command) => asked.parts.some(({ operation }) => operation === "write");

function parentOf(path: string): string {
  const plain = path.replace(/\/+$/, "");
  const at = plain.lastIndexOf("/");
  if (at < 0) return ".";
  return at === 0 ? "/" : plain.slice(0, at);
}
