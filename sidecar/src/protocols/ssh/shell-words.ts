/**
 * Reads a command line into words the way any login shell would (POSIX, csh and fish), where that is certain: quotes and
 * backslashes, but no expansion, no redirection, no second command. Anything else is undefined: what it runs only the
 * shell knows.
 */
export function plainWords(line: string): readonly string[] | undefined {
  const words: string[] = [];
  let word: string | undefined;
  let at = 0;
  while (at < line.length) {
    const character = line.charAt(at);
    if (character === " " || character === "\t") {
      if (word !== undefined) words.push(word);
      word = undefined;
      at += 1;
    } else if (character === "'") {
      const end = line.indexOf("'", at + 1);
      const inside = end < 0 ? "!" : line.slice(at + 1, end);
      // fish takes a backslash before a quote or another one for an escape; csh `!` for its history, a newline for an end.
      if (/[!\n]|\\\\|\\$/.test(inside)) return undefined;
      word = (word ?? "") + inside;
      at = end + 1;
    } else if (character === '"') {
      const end = line.indexOf('"', at + 1);
      const inside = end < 0 ? "$" : line.slice(at + 1, end);
      if (/[$`\\!\n]/.test(inside)) return undefined;
      word = (word ?? "") + inside;
      at = end + 1;
    } else if (character === "\\") {
      const next = line.charAt(at + 1);
      // Before a letter or a digit it is an escape of fish's: `\x2f` is a slash.
      if (/^$|[\n!\p{L}\p{N}]/u.test(next)) return undefined;
      word = (word ?? "") + next;
      at += 2;
    } else if (certain.test(character) && !expands(character, word ?? "")) {
      word = (word ?? "") + character;
      at += 1;
    } else return undefined;
  }
  if (word !== undefined) words.push(word);
  // `NAME=value command` sets a variable and runs the command; a keyword begins what is no simple command.
  const [first = ""] = words;
  return words.length === 0 || first === "" || first.includes("=") || keywords.has(first) ? undefined : words;
}

/** Characters that mean themselves to a shell outside of quotes; letters of other scripts are among them. */
const certain = /[\p{L}\p{N}_@%+=:,./~-]/u;

/** `~` at the start of a word and, for bash, behind `=` and `:` (`dd if=~/x`); for zsh `=` at the start (`cat =ls`). */
function expands(character: string, word: string): boolean {
  return (character === "~" && /(?:^|[=:])$/.test(word)) || (character === "=" && word === "");
}

const keywords: ReadonlySet<string> = new Set(
  "if then else elif fi for while until do done case esac function select time coproc in { } ! [[ ]]".split(
    " ",
  ),
);
