/**
 * Reads command lines into words the way any login shell would (POSIX, csh and fish), where that is certain: quotes and
 * backslashes, but no expansion and no redirection. What is not certain is undefined: what it runs only the shell knows.
 */

/** The words of a line that is one simple command; undefined for any other. */
export function plainWords(line: string): readonly string[] | undefined {
  const tokens = tokensOf(line);
  const words = tokens?.flatMap((token) => ("word" in token ? [token.word] : []));
  return words !== undefined && words.length === tokens?.length && isSimple(words) ? words : undefined;
}

/** The words of each command of a list (`a && b; c | d`, also over several lines); undefined for any other line. */
export function plainCommands(line: string): readonly (readonly string[])[] | undefined {
  const tokens = tokensOf(line);
  if (tokens === undefined) return undefined;
  const commands: string[][] = [];
  let words: string[] = [];
  // Whether another command has to follow: behind `|`, `&&` and `||`.
  let isOpen = false;
  for (const token of tokens) {
    if ("word" in token) words.push(token.word);
    else if (words.length > 0) {
      commands.push(words);
      words = [];
      isOpen = token.between !== ";" && token.between !== "\n";
    } else if (token.between !== "\n") return undefined;
  }
  if (words.length > 0) commands.push(words);
  else if (isOpen) return undefined;
  return commands.length > 0 && commands.every(isSimple) ? commands : undefined;
}

/** A word without its quotes, or what stands between two commands. */
type Token = { readonly word: string } | { readonly between: string };

function tokensOf(line: string): readonly Token[] | undefined {
  const tokens: Token[] = [];
  let word: string | undefined;
  let at = 0;
  const end = () => {
    if (word !== undefined) tokens.push({ word });
    word = undefined;
  };
  while (at < line.length) {
    const character = line.charAt(at);
    if (character === " " || character === "\t") {
      end();
      at += 1;
    } else if (character === "'") {
      const close = line.indexOf("'", at + 1);
      const inside = close < 0 ? "!" : line.slice(at + 1, close);
      // fish takes a backslash before a quote or another one for an escape; csh `!` for its history, a newline for an end.
      if (/[!\n]|\\\\|\\$/.test(inside)) return undefined;
      word = (word ?? "") + inside;
      at = close + 1;
    } else if (character === '"') {
      const close = line.indexOf('"', at + 1);
      const inside = close < 0 ? "$" : line.slice(at + 1, close);
      if (/[$`\\!\n]/.test(inside)) return undefined;
      word = (word ?? "") + inside;
      at = close + 1;
    } else if (character === "\\") {
      const next = line.charAt(at + 1);
      // Before a letter or a digit it is an escape of fish's: `\x2f` is a slash.
      if (/^$|[\n!\p{L}\p{N}]/u.test(next)) return undefined;
      // To a shell in a locale of GBK, Big5 or Shift JIS it may be the second byte of the letter before it.
      if (at > 0 && line.charCodeAt(at - 1) > 0x7f) return undefined;
      word = (word ?? "") + next;
      at += 2;
    } else if (certain.test(character) && !expands(character, word ?? "")) {
      word = (word ?? "") + character;
      at += 1;
    } else {
      separator.lastIndex = at;
      const between = separator.exec(line)?.[0];
      if (between === undefined) return undefined;
      end();
      tokens.push({ between });
      at += between.length;
    }
  }
  end();
  return tokens;
}

/** Characters that mean themselves to a shell outside of quotes; letters of other scripts are among them. */
const certain = /[\p{L}\p{N}_@%+=:,./~-]/u;
/** Between commands; `&`, `|&` and `;;` are none of these. */
const separator = /&&(?!&)|\|\|(?![|&])|\|(?![|&])|;(?![;&|])|\n/y;

/** `~` at the start of a word and, for bash, behind `=` and `:` (`dd if=~/x`); for zsh `=` at the start (`cat =ls`). */
function expands(character: string, word: string): boolean {
  return (character === "~" && /(?:^|[=:])$/.test(word)) || (character === "=" && word === "");
}

/** `NAME=value command` sets a variable and runs the command; a keyword begins what is no simple command. */
function isSimple([first = ""]: readonly string[]): boolean {
  return first !== "" && !first.includes("=") && !keywords.has(first);
}

const keywords: ReadonlySet<string> = new Set(
  "if then else elif fi for while until do done case esac function select time coproc in { } ! [[ ]]".split(
    " ",
  ),
);
