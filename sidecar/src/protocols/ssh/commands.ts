/**
 * What a client asks for, in the terms of policy. Words are `shell`, `exec`, `scp.get`, `scp.put`, `rsync.get`,
 * `rsync.put`, `git.fetch`, `git.push`, `git.archive`, `subsystem`, `sftp.…`, `forward.…`.
 */
import type { Command, CommandPart, ObjectRef, Operation } from "@sallyport/policy";
import { plainWords } from "../shell-words.ts";

/** A command of one part. */
export function command(
  text: string,
  operation: Operation,
  words: readonly string[],
  objects: readonly ObjectRef[],
  more: { readonly argv?: readonly string[]; readonly enforcement?: CommandPart["enforcement"] } = {},
): Command {
  return {
    protocol: "ssh",
    text,
    parts: [
      { operation, words, objects, unbounded: false, enforcement: more.enforcement ?? "authoritative" },
    ],
    ...(more.argv === undefined ? {} : { argv: more.argv }),
  };
}

/** An object that is a file. */
export const file = (name: string): ObjectRef => ({ name, kind: "file", direct: true });
/** An object that is none of the kinds that data has. */
export const thing = (name: string): ObjectRef => ({ name, kind: "other", direct: true });

/** A login shell: what is typed into it is seen, but nobody can say what it does. */
export const shellCommand = (): Command => command("(shell)", "execute", ["shell"], [thing("shell")]);

/**
 * What an exec request runs. Where its words are certain, `argv` holds them and the object is the program; a line that
 * only a shell can read is the object `(shell line)`, so that a rule which allows programs by name never covers it.
 */
export function execCommand(line: string): Command {
  const argv = plainWords(line);
  if (argv === undefined) {
    return command(line, "execute", ["exec"], [thing("(shell line)")], { enforcement: "heuristic" });
  }
  const transfer = transferOf(argv);
  if (transfer !== undefined) {
    const { operation, word, paths, aliases = [], isTree } = transfer;
    const named = paths.map((path) => (isTree ? { ...file(path), isTree } : file(path)));
    const objects = [...named, ...aliases.map((name) => ({ ...file(name), direct: false }))];
    // The paths are words of a command line: what they lead to is the host's to say.
    return command(line, operation, [word], objects, { argv, enforcement: "heuristic" });
  }
  return command(line, "execute", ["exec"], [thing(argv[0] ?? "")], { argv });
}

/** True where the command moves files and its streams are no text for people. */
export function isTransfer(asked: Command): boolean {
  return /^(?:scp|rsync|git|sftp)\./.test(asked.parts[0]?.words[0] ?? "");
}

interface Transfer {
  readonly operation: "read" | "write";
  readonly word: string;
  readonly paths: readonly string[];
  /** True where what is below the paths may be moved, too. */
  readonly isTree: boolean;
  /** Other names of what the paths name, for rules that deny. */
  readonly aliases?: readonly string[];
}

/** The programs that clients start to move files, in the form in which those clients start them; else undefined. */
function transferOf(argv: readonly string[]): Transfer | undefined {
  const [program = "", ...rest] = argv;
  switch (program) {
    case "scp":
      return scpTransfer(rest);
    case "rsync":
      return rsyncTransfer(rest);
    case "git-upload-pack":
      return gitTransfer("git.fetch", "read", rest);
    case "git-upload-archive":
      return gitTransfer("git.archive", "read", rest);
    case "git-receive-pack":
      return gitTransfer("git.push", "write", rest);
    case "git":
      return /^(?:upload-pack|upload-archive|receive-pack)$/.test(rest[0] ?? "")
        ? transferOf([`git-${rest[0]}`, ...rest.slice(1)])
        : undefined;
    default:
      return undefined;
  }
}

/** `scp -t path` and `scp -f path…`: flags that take no argument, and none that starts a program. */
function scpTransfer(rest: readonly string[]): Transfer | undefined {
  let mode: "t" | "f" | undefined;
  let isRecursive = false;
  let at = 0;
  for (; at < rest.length; at += 1) {
    const flag = rest[at] ?? "";
    if (flag === "--") {
      at += 1;
      break;
    }
    if (!flag.startsWith("-") || flag === "-") break;
    if (!/^-[rpdvqtf]+$/.test(flag)) return undefined;
    isRecursive ||= flag.includes("r");
    for (const letter of flag.slice(1)) {
      if (letter !== "t" && letter !== "f") continue;
      if (mode !== undefined && mode !== letter) return undefined;
      mode = letter;
    }
  }
  const paths = rest.slice(at).map(lexicalPath);
  if (mode === undefined || paths.length === 0 || (mode === "t" && paths.length !== 1)) return undefined;
  // What is written to a folder gets a name there that the client says only later.
  return mode === "t"
    ? { operation: "write", word: "scp.put", paths, isTree: true }
    : { operation: "read", word: "scp.get", paths, isTree: isRecursive };
}

/** `rsync --server [--sender] -flags… . path…`: options that only say how bytes are moved. */
function rsyncTransfer(rest: readonly string[]): Transfer | undefined {
  if (rest[0] !== "--server") return undefined;
  const isSender = rest[1] === "--sender";
  let at = isSender ? 2 : 1;
  let isRecursive = false;
  for (; at < rest.length && rest[at] !== "."; at += 1) {
    const flag = rest[at] ?? "";
    // `-e.iLsfxCIvu` is the client's way to say what it can; `-e program` is not that. `s` hides the paths, and
    // `B`, `f`, `M` and `T` would take the next word, so that what looks like a path is none.
    const letters = flag.replace(capabilities, "");
    const isBundle = /^-(?!-)[a-dg-rt-zAC-LN-SU-Z]*$/.test(letters) && flag !== "-";
    if (!isBundle && !rsyncOptions.test(flag)) return undefined;
    // `-d` takes what is directly in a folder.
    isRecursive ||= isBundle ? /[rd]/.test(letters) : flag === "--recursive";
  }
  const paths = rest.slice(at + 1).map(lexicalPath);
  if (paths.length === 0 || paths.some((path) => path.startsWith("-"))) return undefined;
  return isSender
    ? { operation: "read", word: "rsync.get", paths, isTree: isRecursive }
    : { operation: "write", word: "rsync.put", paths, isTree: true };
}

const capabilities = /e\d*\.[a-zA-Z]*$/;

/** None that names a file, starts a program, or makes a sender remove what it has sent. */
const rsyncOptions =
  /^--(?:delete(?:-before|-during|-after|-delay|-excluded)?|partial|inplace|numeric-ids|timeout=\d+|append|size-only|ignore-existing|existing|checksum-choice=\w+|compress-choice=\w+|compress-level=\d+|new-compress|old-compress|no-r|no-implied-dirs|mkpath|stats|progress|fuzzy|safe-links|copy-unsafe-links|omit-dir-times|bwlimit=\d+|max-size=\w+|min-size=\w+|modify-window=\d+|log-format=[%\w]*|out-format=[%\w]*|recursive|force)$/;

function gitTransfer(
  word: string,
  operation: Transfer["operation"],
  rest: readonly string[],
): Transfer | undefined {
  const [path = "", ...more] = rest.filter((one) => one !== "--strict");
  if (path === "" || path.startsWith("-") || more.length > 0) return undefined;
  const named = lexicalPath(path);
  return {
    operation,
    word,
    paths: [named],
    isTree: false,
    aliases: repositoryNames(named).filter((name) => name !== named),
  };
}

/** The names by which one repository is found: of `x` git tries `x/.git`, `x`, `x.git/.git` and `x.git` (`enter_repo`). */
function repositoryNames(path: string): readonly string[] {
  const base = path.replace(/(?<=[^/])\/\.git$/, "").replace(/(?<=[^/])\.git$/, "");
  const folder = base === "/" ? "" : base;
  return [base, `${folder}/.git`, `${base}.git`, `${base}.git/.git`];
}

/** A path without `.`, `..` and doubled slashes; `..` that leaves a relative path's start stays, and covers nothing. */
export function lexicalPath(path: string): string {
  const isAbsolute = path.startsWith("/");
  const kept: string[] = [];
  for (const piece of path.split("/")) {
    if (piece === "" || piece === ".") continue;
    if (piece !== "..") kept.push(piece);
    else if (kept.length > 0 && kept.at(-1) !== "..") kept.pop();
    else if (!isAbsolute) kept.push("..");
  }
  return `${isAbsolute ? "/" : ""}${kept.join("/")}` || (isAbsolute ? "/" : ".");
}
