/**
 * application_name toward the server carries who is at the other end: `<user>/<session id> <what the client says>`.
 * Clients may set their part; the part in front of it is the gateway's.
 */
import { createHash } from "node:crypto";
import type { CommandPart, NameSetting, SqlRejection, StatementAnalysis } from "@sallyport/policy";

/** NAMEDATALEN - 1: the server cuts longer names. */
const nameBytesMax = 63;

/** The name for the server: the identity first, so that what is cut off is the client's part. */
export function applicationName(prefix: string, own: string | undefined): string {
  if (own === undefined || own === "") return cleaned(prefix);
  const whole = `${prefix} ${own}`;
  // Two names that begin alike stay two names: the server tells only what has changed, and which one a ROLLBACK brings back.
  const tag = `~${createHash("sha256").update(cleaned(own)).digest("hex").slice(0, 4)}`;
  const hasRoom = prefix.length + 1 + tag.length <= nameBytesMax;
  if (whole.length <= nameBytesMax || !hasRoom) return cleaned(whole);
  return cleaned(whole).slice(0, -tag.length) + tag;
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

  /** A text in which the gateway's part stands in front of the names that it sets. */
  textFor(text: string, settings: readonly NameSetting[]): string {
    let result = "";
    let at = 0;
    for (const setting of settings) {
      result += text.slice(at, setting.start) + statementOf(this.prefix, setting);
      at = setting.end;
      if (typeof setting.value === "string") this.remember(setting.value);
    }
    return result + text.slice(at);
  }

  private remember(own: string): void {
    this.own = [own, ...this.own.filter((each) => each !== own)].slice(0, ownMax);
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

/** True of a text whose one row is the name: it asks for that and nothing else, or sets it by set_config. */
export function showsApplicationName(text: string, [setting]: readonly NameSetting[] = []): boolean {
  if (setting?.call !== undefined && setting.end - setting.start === text.length) return true;
  return /^\s*show\s+(?:application_name|"application_name")\s*;?\s*$/i.test(text);
}

/** What a text does to application_name: nothing, sets it, or in a way that cannot be carried over. */
export type NameChange =
  | { readonly kind: "none" }
  | { readonly kind: "set"; readonly settings: readonly NameSetting[] }
  | { readonly kind: "refused"; readonly rejection: SqlRejection };

const none: NameChange = { kind: "none" };

/** Looks at the statements of a text for a change of application_name. RESET goes back to the gateway's own. */
export function nameChangeOf(statements: readonly StatementAnalysis[]): NameChange {
  const setting = statements.filter(({ parts }) => parts.some(setsName));
  const settings = setting.flatMap(({ applicationName: own }) => own ?? []);
  if (settings.length < setting.length) return { kind: "refused", rejection: refusal };
  const rewritten = settings.filter(({ value }) => value !== undefined);
  return rewritten.length === 0 ? none : { kind: "set", settings: rewritten };
}

function setsName({ words, objects }: CommandPart): boolean {
  return (
    words.includes("SET") &&
    objects.some(({ kind, name }) => kind === "setting" && name === "application_name")
  );
}

const refusal: SqlRejection = {
  kind: "rejected",
  sqlstate: "0A000",
  message: "application_name carries the identity of the session",
  hint: "Set it in a statement of its own: SET application_name = 'text'.",
};

/** The statement that sets the name with the gateway's part in front. */
function statementOf(prefix: string, { value, isLocal, call }: NameSetting): string {
  const whole =
    typeof value === "object"
      ? // NULL stays NULL: it goes back to the gateway's own.
        `pg_catalog.left(${literal(`${prefix} `)} OPERATOR(pg_catalog.||) $${value.parameter}::pg_catalog.text, ${nameBytesMax})`
      : literal(applicationName(prefix, value));
  if (call === undefined) return `SET ${isLocal === true ? "LOCAL " : ""}application_name = ${whole}`;
  const local = typeof isLocal === "object" ? `$${isLocal.parameter}` : String(isLocal);
  const column = call.column === undefined ? "" : ` AS "${call.column.replaceAll('"', '""')}"`;
  return `SELECT pg_catalog.set_config('application_name', ${whole}, ${local})${column}`;
}

function literal(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}
