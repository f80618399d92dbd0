/**
 * Reads short texts of which most are like the one before, as command tags and names of statements are: comparing bytes
 * is cheaper than making a string, and a string that is known already needs no new hash in a Map.
 */
export class RepeatedText {
  private bytes = new Uint8Array(0);
  private text = "";

  /** The text between `from` and `end`, as UTF-8. */
  read(chunk: Buffer, from: number, end: number): string {
    if (this.isSame(chunk, from, end)) return this.text;
    const text = chunk.toString("utf8", from, end);
    if (end - from > bytesKept) return text;
    // Not a Buffer: that would keep a whole block of their pool in memory.
    this.bytes = Uint8Array.prototype.slice.call(chunk, from, end);
    this.text = text;
    return text;
  }

  private isSame(chunk: Buffer, from: number, end: number): boolean {
    const { bytes } = this;
    if (bytes.length !== end - from) return false;
    for (let at = 0; at < bytes.length; at += 1) if (bytes[at] !== chunk[from + at]) return false;
    return true;
  }
}

/** No tag of PostgreSQL is longer, and no name (NAMEDATALEN). */
const bytesKept = 64;
