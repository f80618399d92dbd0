/** A pattern in which `*` stands for any run of characters and everything else for itself; never backtracks. */
export function globMatcher(pattern: string): (text: string) => boolean {
  const pieces = pattern.split("*");
  const first = pieces[0] ?? "";
  const last = pieces.at(-1) ?? "";
  if (pieces.length === 1) return (text) => text === pattern;
  return (text) => {
    if (text.length < first.length + last.length || !text.startsWith(first) || !text.endsWith(last))
      return false;
    let from = first.length;
    for (const piece of pieces.slice(1, -1)) {
      const at = text.indexOf(piece, from);
      if (at < 0 || at + piece.length > text.length - last.length) return false;
      from = at + piece.length;
    }
    return true;
  };
}
