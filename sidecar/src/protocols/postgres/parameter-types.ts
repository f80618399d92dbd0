/**
 * Types that a Parse names by number. Reading a value of a type may run code (a domain's checks, and those of what it is
 * made of), which the statement's text does not show: it is judged as if the text had named the type.
 */
import type { LiveNames } from "./statement-judge.ts";

/** The ids of users' types that stand in a Parse from `at` on: int16 count, int32 each. */
export function userTypesIn(chunk: Buffer, at: number): readonly number[] {
  let found: number[] | undefined;
  for (let left = chunk.readUInt16BE(at), next = at + 2; left > 0; left -= 1, next += 4) {
    const oid = chunk.readUInt32BE(next);
    if (oid < firstUserOid) continue;
    found ??= [];
    if (!found.includes(oid)) found.push(oid);
  }
  return found ?? none;
}

/** A text that reads a value of each of these types, by their names. */
export async function typesText(oids: readonly number[], names: LiveNames): Promise<string> {
  const found = (await names.typeNames?.(oids)) ?? none;
  if (found.length < oids.length) return unreadableTypes;
  return `SELECT ${found.map(([schema, name]) => `NULL::${quoted(schema)}.${quoted(name)}`).join(", ")}`;
}

/** A type that is not committed, or in no catalog at all, is code that nobody can read. */
export const unreadableTypes = "DO ''";

const firstUserOid = 16384;
const none: readonly never[] = [];

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
