/** Files that are there whole or not at all, for whoever reads at the same moment and after a loss of power. */
import { randomBytes } from "node:crypto";
import files from "node:fs/promises";
import { dirname } from "node:path";
import { diskStorage } from "./storage.ts";

/**
 * Makes a file that must not exist yet; false where another was first, whose file is whole by then.
 *
 * `link(2)` gives a written file its name. A file system without hard links (SMB, FAT) gets the file written in place,
 * where a reader can meet a part of it.
 */
export async function createWhole(path: string, text: string, mode: number): Promise<boolean> {
  if (await isThere(path)) return false;
  const draft = await writeDraft(path, text, mode);
  try {
    await files.link(draft, path).catch((error: NodeJS.ErrnoException) => {
      if (!withoutLinks.has(error.code)) throw error;
      return writeNew(path, text, mode);
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return false;
  } finally {
    await files.unlink(draft);
  }
  await diskStorage.syncFolder(dirname(path));
  return true;
}

/** Puts a file in the place of another, or of none. */
export async function replaceWhole(path: string, text: string, mode: number): Promise<void> {
  const draft = await writeDraft(path, text, mode);
  try {
    await files.rename(draft, path);
  } catch (error) {
    await files.unlink(draft);
    throw error;
  }
}

/** A file that is replaced again and again, and holds the text that came last: writes that overlap can end in any order. */
export class NewestWhole {
  readonly #path: string;
  readonly #mode: number;
  #last: Promise<unknown> = Promise.resolve();

  constructor(path: string, mode: number) {
    this.#path = path;
    this.#mode = mode;
  }

  /** Puts the text in place, behind all that came before. */
  replace(text: string): Promise<void> {
    const replaced = this.#last.then(() => replaceWhole(this.#path, text, this.#mode));
    // Told to whoever gave that text; the next one may fit.
    this.#last = replaced.catch(() => undefined);
    return replaced;
  }
}

/** What `link` says where there is no such thing: each file system says it otherwise. */
const withoutLinks: ReadonlySet<string | undefined> = new Set(["EPERM", "EOPNOTSUPP", "ENOTSUP", "ENOSYS"]);

function isThere(path: string): Promise<boolean> {
  return files.access(path).then(
    () => true,
    () => false,
  );
}

async function writeDraft(path: string, text: string, mode: number): Promise<string> {
  const draft = `${path}.${randomBytes(6).toString("hex")}`;
  try {
    await writeNew(draft, text, mode);
  } catch (error) {
    await files.unlink(draft).catch(() => undefined);
    throw error;
  }
  return draft;
}

async function writeNew(path: string, text: string, mode: number): Promise<void> {
  const file = await files.open(path, "wx", mode);
  try {
    // Not what the umask leaves of it.
    await file.chmod(mode);
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}
