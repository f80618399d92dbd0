/**
 * Other encodings than UTF-8 toward clients, where a resource allows them (`options.clientEncodings`).
 *
 * In every one of them each byte below 0x80 is that ASCII character, wherever it stands, so a text of ASCII alone is the
 * same statement to the server as to the parser, whatever the encoding is at that moment. From the first change on the
 * session's texts must be of ASCII alone; parameters, COPY data and results, which nobody here reads, are in any encoding.
 * Encodings whose later bytes may be ASCII (SJIS, SHIFT_JIS_2004, BIG5, GBK, GB18030, UHC, and JOHAB) hide quotes: never here.
 */
import { isAscii } from "node:buffer";
import { frontend, zeroAt } from "./frames.ts";
import { isUtf8Name } from "./startup.ts";

/** The encodings that a resource may allow, under the names that PostgreSQL reports. */
export const offeredEncodings: readonly string[] = [
  ...["SQL_ASCII", "EUC_JP", "EUC_CN", "EUC_KR", "EUC_TW", "EUC_JIS_2004"],
  ...["LATIN1", "LATIN2", "LATIN3", "LATIN4", "LATIN5", "LATIN6", "LATIN7", "LATIN8", "LATIN9", "LATIN10"],
  ...["ISO_8859_5", "ISO_8859_6", "ISO_8859_7", "ISO_8859_8", "KOI8R", "KOI8U", "WIN866", "WIN874"],
  ...["WIN1250", "WIN1251", "WIN1252", "WIN1253", "WIN1254", "WIN1255", "WIN1256", "WIN1257", "WIN1258"],
];

/** Other names that PostgreSQL takes for them; spaces, signs and case do not count. */
const aliases: Readonly<Record<string, string>> = {
  iso88591: "LATIN1",
  iso88592: "LATIN2",
  iso88593: "LATIN3",
  iso88594: "LATIN4",
  iso88599: "LATIN5",
  iso885910: "LATIN6",
  iso885913: "LATIN7",
  iso885914: "LATIN8",
  iso885915: "LATIN9",
  iso885916: "LATIN10",
  koi8: "KOI8R",
};

const byFoldedName: ReadonlyMap<string, string> = new Map([
  ...offeredEncodings.map((name) => [folded(name), name] as const),
  ...Object.entries(aliases),
]);

function folded(name: string): string {
  return name.toLowerCase().replaceAll(/[^a-z0-9]/g, "");
}

/** The encodings that a resource's options allow beside UTF8; undefined where there are none. */
export function allowedEncodings(option: unknown): ReadonlySet<string> | undefined {
  if (!Array.isArray(option)) return undefined;
  const allowed = new Set<string>();
  for (const name of option) {
    const found = typeof name === "string" ? byFoldedName.get(folded(name)) : undefined;
    if (found !== undefined) allowed.add(found);
  }
  return allowed.size === 0 ? undefined : allowed;
}

/** PostgreSQL's name of an encoding that is in the set; undefined for every other name. */
export function encodingNamed(name: string, allowed: ReadonlySet<string> | undefined): string | undefined {
  const found = allowed === undefined ? undefined : byFoldedName.get(folded(name));
  return found !== undefined && allowed?.has(found) ? found : undefined;
}

const space = "[ \\t\\n\\r\\f\\v]";
const plainSet = new RegExp(
  `^${space}*set${space}+(?:(?:(?:session|local)${space}+)?client_encoding(?:${space}*=${space}*|${space}+to${space}+)|names${space}+)` +
    `(?:'([a-z0-9_-]+)'|([a-z_][a-z0-9_]*))${space}*;?${space}*$`,
  "i",
);

/** The encoding that a text sets, where it is one plain SET of client_encoding and nothing else. */
export function encodingSetBy(text: string): string | undefined {
  if (text.length > setCharactersMax) return undefined;
  const [, quoted, bare] = plainSet.exec(text) ?? [];
  const name = quoted ?? bare;
  return name === undefined || isUtf8Name(name) ? undefined : name;
}

const setCharactersMax = 120;

/** True where nothing but ASCII stands in what the gateway reads of a message of the client. */
export function isReadAsAscii(type: number, chunk: Buffer, at: number, end: number): boolean {
  const from = at + 5;
  switch (type) {
    case frontend.query:
    case frontend.describe:
    case frontend.close:
      return isAscii(chunk.subarray(from, end));
    // A name, and another text of which the same is true: what follows are numbers.
    case frontend.parse:
    case frontend.bind:
      return isAscii(chunk.subarray(from, textEnd(chunk, textEnd(chunk, from, end), end)));
    case frontend.execute:
      return isAscii(chunk.subarray(from, textEnd(chunk, from, end)));
    default:
      return true;
  }
}

/** The place behind the text that begins there. */
function textEnd(chunk: Buffer, from: number, end: number): number {
  const found = zeroAt(chunk, from);
  return found < 0 ? end : Math.min(found + 1, end);
}

/** The answer to a text or a name with other characters than ASCII. */
export const notAscii = {
  sqlstate: "0A000",
  message: "statements must be ASCII in a session whose client_encoding was not always UTF8",
  hint: "Send other characters as parameters, or use client_encoding UTF8 from the start.",
  isFoundFirst: true,
} as const;

/** The answer to every statement of such a session where something is masked. */
export const masksNeedUtf8 = {
  kind: "rejected",
  sqlstate: "0A000",
  message: "client_encoding must be UTF8, as something is masked for you",
  hint: "Connect with client_encoding UTF8.",
} as const;

/** A text of the gateway's own as it is the same in every encoding. */
export function inAscii(text: string): string {
  return text.replaceAll(/[^\0-\x7f]/gu, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);
}

/** An error's or notice's fields with every text in ASCII. */
export function fieldsInAscii<Fields extends { message: string; detail?: string; hint?: string }>(
  fields: Fields,
): Fields {
  return {
    ...fields,
    message: inAscii(fields.message),
    ...(fields.detail === undefined ? {} : { detail: inAscii(fields.detail) }),
    ...(fields.hint === undefined ? {} : { hint: inAscii(fields.hint) }),
  };
}
