import { randomBytes } from "node:crypto";
import { rename, writeFile } from "node:fs/promises";

/**
 * Puts a file in place that nobody else may read, whatever is there: another file's rights, or a link's end, would be
 * somebody else's choice. A reader meanwhile sees the one before or this one.
 */
export async function replacePrivately(file: string, text: string): Promise<void> {
  const temporary = `${file}.${randomBytes(6).toString("hex")}`;
  await writeFile(temporary, text, { mode: 0o600, flag: "wx" });
  await rename(temporary, file);
}
