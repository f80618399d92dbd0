import type { Reader } from "./messages.ts";

/** A terminal as the client described it. */
export interface AsciiSize {
  readonly term: string;
  readonly width: number;
  readonly height: number;
}

/** `string TERM, uint32 width, uint32 height, uint32 pixels, uint32 pixels, string modes` (RFC 4254, 6.2). */
export function terminalOf(reader: Reader): AsciiSize | undefined {
  const term = reader.text();
  // What programs look their description up by: a path would name a file of the client's choice.
  if (!/^[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,63}$|^$/.test(term)) return undefined;
  const width = reader.uint32();
  const height = reader.uint32();
  return { term, width: Math.min(width, sizeMax), height: Math.min(height, sizeMax) };
}

const sizeMax = 10_000;

/**
 * Variables that a client may set; what loads code or changes what programs run is refused even where it is listed. So
 * are values of the usual ones that name a file: `LANGUAGE=../../srv/up/x` makes programs print by a catalogue of the
 * client's own, and `TZ=/path` has them read that file.
 */
export function mayBeSet(name: string, value: string, allowed: readonly string[]): boolean {
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name) || dangerous.test(name)) return false;
  if (!harmless.test(name)) return allowed.includes(name);
  return value.length <= valueLengthMax && (name === "TZ" ? zone : plain).test(value);
}

const valueLengthMax = 256;
const plain = /^[^/\p{C}]*$/u;
/** `Europe/Berlin`, `UTC`, `CET-1CEST,M3.5.0,M10.5.0/3`. */
const zone = /^(?!\.)[A-Za-z0-9_+,.-]+(?:\/[A-Za-z0-9_+,-]+)*$/;

const harmless = /^(?:LANG|LANGUAGE|LC_[A-Z]+|TERM|COLORTERM|NO_COLOR|TZ|GIT_PROTOCOL)$/;

/** Of loaders, shells, interpreters, editors and git. */
const dangerous =
  /^(?:LD_.*|DYLD_.*|BASH_.*|ENV|SHELLOPTS|BASHOPTS|PS4|IFS|PATH|CDPATH|GLOBIGNORE|PROMPT_COMMAND|SHELL|HOME|EDITOR|VISUAL|PAGER|LESS.*|MANPAGER|BROWSER|GIT_(?!PROTOCOL$).*|PYTHON.*|PERL.*|RUBY.*|NODE_.*|JAVA_.*|.*_OPTIONS|GCONV_PATH|LOCPATH|NLSPATH|TERMINFO.*|TERMCAP|HOSTALIASES|RES_OPTIONS|MALLOC_.*|SSH_.*|ZDOTDIR|FPATH|KUBECONFIG|TMPDIR|http_proxy|https_proxy|ALL_PROXY)$/i;
