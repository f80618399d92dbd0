/** Reads `sh -c` where it is plain: a list of simple commands with literal words. Everything else is opaque. */

/** What an argument vector runs. */
export interface ShellReading {
  /** `none`: no shell; `plain`: every program is listed; `opaque`: it may run anything. */
  readonly kind: "none" | "plain" | "opaque";
  /** The programs that it runs, by the words that name them. */
  readonly programs: readonly string[];
}

const shells = new Set(["sh", "bash", "ash", "dash", "ksh", "zsh", "busybox"]);
/** Programs that run what they are given, so that their name says nothing. */
const runners = new Set(
  (
    "env xargs nohup nice timeout sudo su doas chroot nsenter unshare setsid stdbuf watch find script exec eval source " +
    ". command builtin python python2 python3 perl ruby node lua awk gawk sed vi vim less more man ssh tar git make"
  ).split(" "),
);
const programsMax = 64;

/** Says what an argument vector runs. */
export function readArgv(argv: readonly string[]): ShellReading {
  const [first = ""] = argv;
  const program = baseName(first);
  if (!shells.has(program)) {
    return { kind: runners.has(program) ? "opaque" : "none", programs: first === "" ? [] : [first] };
  }
  // `busybox` may be anything, and an interactive shell is whatever is typed into it.
  const at = argv.indexOf("-c");
  if (program === "busybox" || at !== 1 || argv.length !== 3) return { kind: "opaque", programs: [first] };
  const commands = simpleCommands(argv[2] ?? "");
  if (commands === undefined) return { kind: "opaque", programs: [first] };
  const programs = commands.map((words) => words[0] ?? "");
  const isOpaque = programs.some((name) => shells.has(baseName(name)) || runners.has(baseName(name)));
  return { kind: isOpaque ? "opaque" : "plain", programs };
}

/** The words of each command of a text without expansions, substitutions or redirections; undefined for other texts. */
function simpleCommands(text: string): readonly (readonly string[])[] | undefined {
  const commands: string[][] = [];
  // Words and the separators between commands; nothing else may stand in a plain text.
  const token = /\s*(?:(&&|\|\||[;|\n])|'([^']*)'|"([^"$`\\!]*)"|([A-Za-z0-9_./:@%+,=-]+))/y;
  let words: string[] = [];
  let end = 0;
  while (token.lastIndex < text.length) {
    const match = token.exec(text);
    if (match === null) return text.slice(end).trim() === "" ? finish() : undefined;
    const [whole, separator, single, double, bare] = match;
    if (separator !== undefined) {
      if (words.length === 0) return undefined;
      commands.push(words);
      words = [];
    } else {
      const isJoined = end > 0 && !/^\s/.test(whole) && words.length > 0 && end === match.index;
      const word = single ?? double ?? bare ?? "";
      // `a'b'` is one word: what stands side by side belongs together.
      if (isJoined) words[words.length - 1] = `${words.at(-1)}${word}`;
      else words.push(word);
    }
    end = token.lastIndex;
    if (commands.length > programsMax) return undefined;
  }
  return finish();

  function finish(): readonly (readonly string[])[] | undefined {
    if (words.length > 0) commands.push(words);
    // An assignment before a command changes what the command means; keywords begin what is not simple.
    const isPlain = commands.every(
      ([name = ""]) => name !== "" && !name.includes("=") && !keywords.has(name),
    );
    return isPlain && commands.length > 0 ? commands : undefined;
  }
}

const keywords = new Set(
  "if then else elif fi for while until do done case esac in function time ! { }".split(" "),
);

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
