/** `kubectl cp` is an exec of tar, and of `test -d` before it: what an argument vector copies, and where. */

/** Which way files go: out of the container, or into it. */
export type CopyDirection = "out" | "in";

/** What a command copies. */
export interface Copying {
  readonly direction: CopyDirection;
  /** True where it is just what kubectl runs; another tar may read and write what its archive does not name. */
  readonly isKubectls: boolean;
  /**
   * What is read, or the folder that is written into, as one whole path; undefined where the container's own working
   * directory, or a link, has a say in it.
   */
  readonly place: string | undefined;
  /** True where the archive is not sent from its beginning. */
  readonly isTail: boolean;
}

const writers = new Set(["xmf", "-xmf", "xf", "-xf"]);
const bare = /^tar cf - ([A-Za-z0-9_./@%+,=:][A-Za-z0-9_./@%+,=:-]*) \| tail -c\+(\d{1,15})$/;
const quoted = /^tar cf - '((?:[^']|'\\'')+)' \| tail -c\+(\d{1,15})$/;

/** Whether a command copies: as kubectl 1.20 to 1.36 writes it, or nearly so. */
export function copyOf(argv: readonly string[]): Copying | undefined {
  const [program = "", ...rest] = argv;
  if (program === "sh") return againOf(argv);
  if (program !== "tar" && !program.endsWith("/tar")) return undefined;
  const own = program === "tar" ? kubectlsOf(rest) : undefined;
  if (own !== undefined) return own;
  const [mode = ""] = rest;
  const isOut = /^-?[a-z]*c[a-z]*f$/.test(mode);
  if (rest[1] !== "-" || !(isOut || /^-?[a-z]*x[a-z]*f$/.test(mode))) return undefined;
  return { direction: isOut ? "out" : "in", isKubectls: false, place: undefined, isTail: false };
}

/** The path that kubectl asks about before it copies something there: whether it is a folder. */
export function copyTargetOf(argv: readonly string[]): string | undefined {
  const [program, flag, path] = argv;
  return argv.length === 3 && program === "test" && flag === "-d" ? path : undefined;
}

function kubectlsOf(rest: readonly string[]): Copying | undefined {
  const whole = { isKubectls: true, isTail: false };
  if (rest.length === 3 && rest[0] === "cf" && rest[1] === "-") {
    const [, , path = ""] = rest;
    // A word that begins with a dash is no path to tar.
    return path === "" || path.startsWith("-")
      ? undefined
      : { ...whole, direction: "out", place: wholePath(path) };
  }
  const preserves = rest[0] !== "--no-same-permissions" || rest[1] !== "--no-same-owner";
  const [mode = "", from, flag, folder = ""] = preserves ? rest : rest.slice(2);
  const length = preserves ? rest.length : rest.length - 2;
  if (!writers.has(mode) || from !== "-") return undefined;
  if (length === 2) return { ...whole, direction: "in", place: undefined };
  return length === 4 && flag === "-C" ? { ...whole, direction: "in", place: wholePath(folder) } : undefined;
}

/** With `--retries` kubectl asks a shell, for the rest of an archive whose beginning it has. */
function againOf(argv: readonly string[]): Copying | undefined {
  if (argv.length !== 3 || argv[1] !== "-c") return undefined;
  const text = argv[2] ?? "";
  const [, path = "", from = ""] = bare.exec(text) ?? quoted.exec(text) ?? [];
  const plain = path.replaceAll("'\\''", "'");
  if (plain === "" || plain.startsWith("-")) return undefined;
  return { direction: "out", isKubectls: true, place: wholePath(plain), isTail: Number(from) > 1 };
}

/** A path with one reading: from the root, without `..`, which a link on the way would turn elsewhere. */
export function wholePath(path: string): string | undefined {
  if (!path.startsWith("/") || path.includes("\0") || path.includes("\ufffd")) return undefined;
  const pieces = path.split("/").filter((piece) => piece !== "" && piece !== ".");
  return pieces.includes("..") ? undefined : `/${pieces.join("/")}`;
}
