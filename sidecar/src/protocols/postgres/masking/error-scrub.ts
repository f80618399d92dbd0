/**
 * Errors and notices of statements that masked values take part in: SQLSTATE, names and position stay, words that may
 * quote a value go. https://www.postgresql.org/docs/18/protocol-error-fields.html
 */
import { frame, readErrorFields } from "../frames.ts";

/** Classes whose words tell of states alone, as long as no code of a function has raised them. */
const stateClasses: ReadonlySet<string> = new Set("00 03 08 25 40 53 54 57".split(" "));

/**
 * Classes whose words name objects: of the statement's text where its analysis has raised them, which the position tells.
 * While it runs, a value may be taken for a name: `ssn::regclass`.
 */
const nameClasses: ReadonlySet<string> = new Set("0A 42".split(" "));

/** Fields that say nothing of values: severity, SQLSTATE, position, names, and where in the server's source it was raised. */
const kept: readonly string[] = ["S", "V", "C", "P", "s", "t", "c", "d", "n", "F", "L", "R"];

/** Of those, the names: code of a function can raise them too, and put values there (RAISE … USING CONSTRAINT). */
const objects: ReadonlySet<string> = new Set(["s", "t", "c", "d", "n"]);

/**
 * The server's own sources that name objects while a statement runs (F). Another file's error inside of a function is what
 * the function's language makes of a raise.
 */
const nameSources: ReadonlySet<string> = new Set(
  `execMain.c execIndexing.c execExprInterp.c nbtinsert.c tuplesort.c tuplesortvariants.c ri_triggers.c domains.c
  tablecmds.c index.c check.c constraint.c`.split(/\s+/),
);

/** What is said instead, by SQLSTATE or its class. */
const words: ReadonlyMap<string, string> = new Map([
  ["22", "a value is not valid here"],
  ["22001", "a value is too long"],
  ["22003", "a number is out of range"],
  ["22012", "division by zero"],
  ["22P02", "a value is not valid for its type"],
  ["23", "a constraint is violated"],
  ["23502", "a null value violates a not-null constraint"],
  ["23503", "a foreign key constraint is violated"],
  ["23505", "a duplicate key value violates a unique constraint"],
  ["23514", "a check constraint is violated"],
  ["23P01", "an exclusion constraint is violated"],
  ["44", "the row violates the check option of a view"],
  ["P0", "a function has raised an error"],
]);

/** What a function may raise as it likes: five characters, which may be a value's (RAISE … USING ERRCODE). */
const raisable: ReadonlySet<string> = new Set(
  `00000 01000 02000 0A000 21000 22000 22001 22003 22004 22007 22008 22012 22023 22P02 23000 23001 23502 23503 23505 23514
  23P01 25006 25P02 28000 40001 40P01 42501 42601 42703 42704 42804 42883 42P01 44000 53100 53200 53300 54000 54001 55000
  55006 55P03 57014 57P01 P0000 P0001 P0002 P0003 P0004 XX000`.split(/\s+/),
);

/** The SQLSTATE as it may be told; of an error unless `isNotice`. */
export function toldState(fields: ReadonlyMap<string, string>, isNotice = false): string {
  const sqlstate = fields.get("C") ?? "XX000";
  if (!isRaisedByCode(fields) || raisable.has(sqlstate)) return sqlstate;
  return isNotice ? "00000" : "P0001";
}

function isRaisedByCode(fields: ReadonlyMap<string, string>): boolean {
  return fields.has("W") || fields.has("q");
}

/** The message, an ErrorResponse or NoticeResponse as a whole, without what may be a masked value. */
export function scrubbed(message: Buffer): Buffer {
  const fields = readErrorFields(message.subarray(5));
  const isNotice = message[0] === 0x4e;
  const isRaised = isRaisedByCode(fields);
  const sqlstate = toldState(fields, isNotice);
  const level = sqlstate.slice(0, 2);
  const isNamed = fields.has("P") && nameClasses.has(level);
  const isPlain = !isNotice && !isRaised && (isNamed || stateClasses.has(level) || sqlstate === "55P03");
  // Raised by code, the names are what the code says.
  const isOwn = !isRaised || nameSources.has(fields.get("F") ?? "");
  const name = isOwn ? fields.get("n") : undefined;
  const general =
    words.get(sqlstate) ?? words.get(level) ?? (isNotice ? "a notice" : "the statement has failed");
  const text = `${general}${name === undefined ? "" : ` "${name}"`} (details are hidden: masked columns take part)`;
  const parts = kept.flatMap((letter) => {
    const value = letter === "C" ? sqlstate : fields.get(letter);
    return value === undefined || (objects.has(letter) && !isOwn) ? [] : [`${letter}${value}`];
  });
  parts.push(`M${isPlain ? (fields.get("M") ?? "") : text}`);
  if (isPlain)
    for (const letter of ["D", "H"]) if (fields.has(letter)) parts.push(`${letter}${fields.get(letter)}`);
  return frame(message[0] ?? 0, Buffer.from(`${parts.map((part) => `${part}\0`).join("")}\0`));
}
