import { type Command, isLoneUtility } from "@sallyport/policy";
import type { Refusal } from "../../guard/index.ts";
import { errorTable } from "../../wire/gateway-error.ts";
import type { Limits } from "../../wire/limits.ts";
import type { Judged } from "./statement-judge.ts";

/** A refusal in PostgreSQL's words: what the substituted statement's error is rewritten to. */
export interface SqlRefusal {
  readonly sqlstate: string;
  readonly message: string;
  readonly detail?: string;
  readonly hint?: string;
  readonly position?: number;
  /** True where the server would find this before it looks at the transaction's state (25P02). */
  readonly isFoundFirst?: boolean;
}

/** The guard's refusal of a judged text: what the server would have said, where it is the text that is wrong. */
export function sqlRefusal(refusal: Refusal, { rejection }: Judged): SqlRefusal {
  if (rejection !== undefined && refusal.code === "denied") return rejection;
  const { sqlstate } = errorTable[refusal.code];
  return { sqlstate, message: refusal.message, ...(refusal.hint ? { hint: refusal.hint } : {}) };
}

/** A Parse of one statement more than a session may have. */
export function tooManyPrepared({ preparedMax }: Limits): SqlRefusal {
  return {
    sqlstate: errorTable.tooLarge.sqlstate,
    message: `a session may have ${preparedMax} prepared statements here`,
    hint: "Close those that are not needed any more, or send DEALLOCATE ALL.",
  };
}

/** A text more than the statements and portals of a session may have together. */
export function tooMuchText({ preparedTextMax }: Limits): SqlRefusal {
  return {
    sqlstate: errorTable.tooLarge.sqlstate,
    message: `prepared statements and portals of a session may have ${preparedTextMax} characters together here`,
    hint: "Close those that are not needed any more, or pass long values as parameters.",
  };
}

/** A Bind of one portal more than a session may have. */
export function tooManyPortals({ preparedMax }: Limits): SqlRefusal {
  return {
    sqlstate: errorTable.tooLarge.sqlstate,
    message: `a session may have ${preparedMax} open portals here`,
    hint: "Close those that are not needed any more, or end the transaction.",
  };
}

/** A Bind that names a statement which does not exist. */
export function unknownStatement(name: string): SqlRefusal {
  const message =
    name === "" ? "unnamed prepared statement does not exist" : `prepared statement "${name}" does not exist`;
  return { sqlstate: "26000", message, isFoundFirst: true };
}

/**
 * What fails in place of a definition whose names are not there. The server looks at the transaction first (25006, with the
 * command's tag in its words) and at names afterwards, so it must be the same command on a name that nobody has, nor can
 * make: schemas that begin with `pg_` are the server's own.
 */
export function failingUtility(text: string, nonce: string): string | undefined {
  const schema = `"pg_${nonce}"`;
  const name = `${schema}.x`;
  const command = text.replace(leadingSpace, "");
  if (/^drop\s+schema\s/i.test(command)) return `DROP SCHEMA ${schema}`;
  for (const [begin, fail] of utilities) {
    const found = begin.exec(command);
    if (found !== null) return fail(name, found[1] ?? "");
  }
  return undefined;
}

/**
 * What is prepared in place of a utility statement that must fail when it runs, as the server lets them all be prepared;
 * undefined where the server would find the fault in Parse. A setting without a dot in its name is one that nobody can make,
 * also not who reads the text in pg_prepared_statements.
 */
export function failingWhenRun({ text, rejection }: Judged, nonce: string): string | undefined {
  if (rejection?.sqlstate === "42601" || !isLoneUtility(text)) return undefined;
  const utility = rejection === undefined ? undefined : failingUtility(text, nonce);
  return utility ?? `SET "${nonce}" = 1`;
}

const leadingSpace = /^(?:\s|--[^\n]*\n|\/\*[^*]*\*\/)+/;
const utilities: readonly (readonly [RegExp, (name: string, kind: string) => string])[] = [
  [
    /^(drop\s+(?:table|view|materialized\s+view|index|sequence|type|domain|foreign\s+table))\s/i,
    (name, drop) => `${drop} ${name}`,
  ],
  [/^(drop\s+(?:function|procedure|routine))\s/i, (name, drop) => `${drop} ${name}()`],
  [
    /^(alter\s+(?:table|view|materialized\s+view|index|sequence|foreign\s+table))\s/i,
    (name, alter) => `${alter} ${name} RENAME TO renamed`,
  ],
  [/^truncate\s/i, (name) => `TRUNCATE ${name}`],
  [/^create\s+(?:unique\s+)?index\s/i, (name) => `CREATE INDEX ON ${name} (x)`],
  [/^create\s+(?:or\s+replace\s+)?view\s/i, (name) => `CREATE VIEW pg_temp.x AS TABLE ${name}`],
  [/^comment\s/i, (name) => `COMMENT ON TABLE ${name} IS NULL`],
  [/^refresh\s/i, (name) => `REFRESH MATERIALIZED VIEW ${name}`],
  [/^grant\s/i, (name) => `GRANT SELECT ON ${name} TO CURRENT_USER`],
  [/^revoke\s/i, (name) => `REVOKE SELECT ON ${name} FROM CURRENT_USER`],
];

/** FunctionCall names a function by its oid alone: nobody can tell what it does. */
export const functionCallRefusal: SqlRefusal = {
  sqlstate: "42501",
  message: "the FunctionCall message is not allowed",
  hint: "Call the function with SELECT.",
};

/** FunctionCall, as policy and recordings see it. */
export const functionCallCommand: Command = {
  protocol: "postgres",
  text: "FunctionCall",
  parts: [
    {
      operation: "execute",
      words: ["FUNCTION CALL"],
      objects: [],
      unbounded: false,
      enforcement: "heuristic",
    },
  ],
};

/** An Execute of a portal that SQL made, as policy and recordings see it. */
export function fetchCommand(portal: string): Command {
  const objects: Command["parts"][number]["objects"] = [];
  const part = {
    operation: "read",
    words: ["FETCH"],
    objects,
    unbounded: false,
    enforcement: "authoritative",
  } as const;
  return { protocol: "postgres", text: `FETCH FROM "${portal.replaceAll('"', '""')}"`, parts: [part] };
}
