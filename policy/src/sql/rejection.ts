/** How analysis leaves from deep inside a tree with an error of the server's own kind. */
import type { SqlRejection } from "./analysis.ts";

/** Thrown inside analysis only; `analyseSql` turns it into its value. */
export class Rejected extends Error {
  readonly rejection: SqlRejection;
  /** True where only a name is missing: inside a function body that is no error, but an unknown. */
  readonly isName: boolean;
  constructor(rejection: Omit<SqlRejection, "kind">, isName = false) {
    super(rejection.message);
    this.rejection = { kind: "rejected", ...rejection };
    this.isName = isName;
  }

  /** The same error of a text that the client did not send just now. */
  withoutPosition(): Rejected {
    const { position: _, ...rejection } = this.rejection;
    return new Rejected(rejection, this.isName);
  }
}

/** The answer to a change of a setting that decides how the gateway itself reads SQL. */
export function settingPinned(name: string): Rejected {
  return new Rejected({
    sqlstate: "0A000",
    message: `the gateway does not let a session change "${name}"`,
    hint: "The gateway keeps standard_conforming_strings on and client_encoding at UTF8, as it reads SQL by them.",
  });
}

/** Turns a byte offset from 0 into a character position from 1, as in ErrorResponse field P. */
export function positionAt(sql: string, byteOffset: number): number {
  let bytes = 0;
  let characters = 0;
  for (const character of sql) {
    if (bytes >= byteOffset) break;
    bytes += utf8Length(character.codePointAt(0) ?? 0);
    characters += 1;
  }
  return characters + 1;
}

function utf8Length(code: number): number {
  if (code < 0x80) return 1;
  if (code < 0x800) return 2;
  return code < 0x10000 ? 3 : 4;
}
