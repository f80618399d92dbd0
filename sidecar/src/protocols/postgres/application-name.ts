/**
 * application_name toward the server carries who is at the other end: `<user>/<session id> <what the client says>`.
 * Clients may set their part; the part in front of it is the gateway's.
 */
import type { CommandPart, SqlRejection } from "@sallyport/policy";

/** NAMEDATALEN - 1: the server cuts longer names. */
const nameBytesMax = 63;

/** The name for the server: the identity first, so that what is cut off is the client's part. */
export function applicationName(prefix: string, own: string | undefined): string {
  const whole = own === undefined || own === "" ? prefix : `${prefix} ${own}`;
  return cleaned(whole);
}

function cleaned(name: string): string {
  return name.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, nameBytesMax);
}

/** What the server is told as application_name, and what the client is told in its place: its own part. */
export class ApplicationName {
  private readonly prefix: string;
  /** What the client has called itself, the newest first. */
  private own: readonly string[];

  constructor(prefix: string, own: string | undefined) {
    this.prefix = prefix;
    this.own = [own ?? ""];
  }

  /** The statement that makes it the client's name; the gateway's part stands in front. */
  statementFor(own: string): string {
    this.own = [own, ...this.own.filter((each) => each !== own)].slice(0, ownMax);
    return setNameStatement(this.prefix, own);
  }

  /** What the client has called itself where the server has this name for it: a direct server would say so. */
  shown(name: string): string {
    // The server's names are shorter than the client's: the whole one is known here.
    const own = this.own.find((each) => applicationName(this.prefix, each) === name);
    if (own !== undefined) return cleaned(own);
    if (name === applicationName(this.prefix, undefined)) return "";
    return name.startsWith(`${this.prefix} `) ? name.slice(this.prefix.length + 1) : name;
  }
}

/** What the server says at login of a name that it cuts; the one that it gets here is never too long. */
export function tooLongNotice(own: string | undefined): string | undefined {
  const bytes = Buffer.from(own ?? "");
  if (bytes.length <= nameBytesMax) return undefined;
  let end = nameBytesMax;
  // Never within a character.
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return `identifier "${own}" will be truncated to "${bytes.toString("utf8", 0, end)}"`;
}

/** Names that a client has given itself and that the server may still go back to. */
const ownMax = 16;

/** True of a text that asks for the name and nothing else. */
export function showsApplicationName(text: string): boolean {
  return /^\s*show\s+(?:application_name|"application_name")\s*;?\s*$/i.test(text);
}

/** What a text does to application_name: nothing, sets it to a literal, or in a way that cannot be carried over. */
export type NameChange =
  | { readonly kind: "none" }
  | { readonly kind: "set"; readonly value: string }
  | { readonly kind: "refused"; readonly rejection: SqlRejection };

const none: NameChange = { kind: "none" };
const plainSet =
  /^\s*set\s+(?:session\s+)?application_name\s*(?:=|\s+to\s)\s*(?:'((?:[^'\\]|'')*)'|([a-z_][a-z0-9_]*))\s*;?\s*$/i;

/** Looks at the judged parts of a text for a change of application_name. RESET goes back to the gateway's own. */
export function nameChangeOf(text: string, parts: readonly CommandPart[]): NameChange {
  const isSet = parts.some(
    ({ words, objects }) =>
      words.includes("SET") &&
      objects.some(({ kind, name }) => kind === "setting" && name === "application_name"),
  );
  if (!isSet) return none;
  const [, quoted, bare] = plainSet.exec(text) ?? [];
  if (bare?.toLowerCase() === "default") return none;
  const value = quoted?.replaceAll("''", "'") ?? bare?.toLowerCase();
  if (value !== undefined) return { kind: "set", value };
  return {
    kind: "refused",
    rejection: {
      kind: "rejected",
      sqlstate: "0A000",
      message: "application_name carries the identity of the session",
      hint: "Set it in a statement of its own: SET application_name = 'text'.",
    },
  };
}

/** The statement that sets the name with the gateway's part in front. */
export function setNameStatement(prefix: string, value: string): string {
  return `SET application_name = '${applicationName(prefix, value).replaceAll("'", "''")}'`;
}
