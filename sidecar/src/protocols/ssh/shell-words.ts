/**
 * Reads a command line into words the way any POSIX shell would, where that is certain: quotes and backslashes, but no
 * expansion, no redirection, no second command. Anything else is undefined: what it runs only the shell knows.
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
      if (end < 0) return undefined;
      word = (word ?? "") + line.slice(at + 1, end);
      at = end + 1;
    } else if (character === '"') {
      const end = line.indexOf('"', at + 1);
      const inside = end < 0 ? "$" : line.slice(at + 1, end);
      if (/[$`\\!]/.test(inside)) return undefined;
      word = (word ?? "") + inside;
      at = end + 1;
    } else if (character === "\\") {
      const next = line.charAt(at + 1);
      if (next === "" || next === "\n") return undefined;
      word = (word ?? "") + next;
      at += 2;
    } else if (certain.test(character) && !(character === "~" && /(?:^|[=:])$/.test(word ?? ""))) {
      word = (word ?? "") + character;
      at += 1;
    } else return undefined;
  }
  if (word !== undefined) words.push(word);
  // `NAME=value command` sets a variable and runs the command; a keyword begins what is no simple command.
  const [first = ""] = words;
  return words.length === 0 || first === "" || first.includes("=") || keywords.has(first) ? undefined : words;
}

/**
 * Characters that mean themselves to a shell outside of quotes; letters of other scripts are among them. `~` does not at
 * the start of a word, nor, for bash, behind `=` and `:` (`dd if=~/x`).
 */
const certain = /[\p{L}\p{N}_@%+=:,./~-]/u;

const keywords: ReadonlySet<string> = new Set(
  "if then else elif fi for while until do done case esac function select time coproc in { } ! [[ ]]".split(
    " ",
  ),
);
