/** SET, RESET, set_config and the clauses that store settings: what they change, and what nobody may change here. */
import { Rejected, settingPinned } from "./rejection.ts";
import { parseSearchPath } from "./search-path-value.ts";
import { listOf, nodeOf, stringConstantOf, type TreeNode, textOf } from "./tree.ts";
import type { Walk } from "./walk.ts";

/** How the gateway itself reads SQL rests on these; the values are those that change nothing. */
const pinned: Readonly<Record<string, readonly string[]>> = {
  standard_conforming_strings: ["on", "true", "yes", "1", "tru", "tr", "t", "ye", "y"],
  backslash_quote: ["safe_encoding", "off", "false", "no", "0"],
  client_encoding: ["utf8", "utf-8", "unicode", "utf_8"],
  // With it on, `NOT (id = NULL)` is a condition that is true of every row.
  transform_null_equals: ["off", "of", "false", "fals", "fal", "fa", "f", "no", "n", "0"],
};

/** Settings whose change is a change of who one is. */
const roleSettings = new Set(["role", "session_authorization"]);

/** One VariableSetStmt: what it says, in lower case, once. */
export interface SettingChange {
  readonly name: string;
  readonly kind: string;
  /** Literal values; undefined where the value is DEFAULT, RESET or FROM CURRENT. */
  readonly values: readonly string[] | undefined;
  readonly local: boolean;
}

/** Reads a VariableSetStmt. */
export function changeOf(node: TreeNode): SettingChange {
  const kind = textOf(node, "kind");
  const values = listOf(node, "args").map((arg) => stringConstantOf(arg) ?? constantText(arg));
  return {
    name: textOf(node, "name").toLowerCase(),
    kind,
    values: kind === "VAR_SET_VALUE" ? values : undefined,
    local: node.is_local === true,
  };
}

function constantText(node: TreeNode): string {
  const constant = nodeOf(node, "A_Const");
  const integer = nodeOf(constant, "ival");
  if (integer !== undefined) return String(integer.ival ?? 0);
  const boolean = nodeOf(constant, "boolval");
  if (boolean !== undefined) return boolean.boolval === true ? "true" : "false";
  return textOf(nodeOf(constant, "fval"), "fval");
}

/** The SET and RESET statements themselves; the answer is the tag. */
export function variableSet(walk: Walk, node: TreeNode): string {
  const change = changeOf(node);
  const isReset = change.kind === "VAR_RESET" || change.kind === "VAR_RESET_ALL";
  const word = isReset ? "RESET" : "SET";
  if (change.kind === "VAR_RESET_ALL") {
    walk.add("session", "RESET", [walk.object("setting", "all")]);
    walk.effects.push({ kind: "setSearchPath", local: false, isReset: true });
    return word;
  }
  if (change.kind === "VAR_SET_MULTI") {
    multiSet(walk, node, change.name);
    return word;
  }
  refusePinned(change.name, change.values);
  if (roleSettings.has(change.name)) {
    if (!leadsBack(walk, change)) roleMove(walk, change, word);
    return word;
  }
  walk.add("session", word, [walk.object("setting", change.name)]);
  if (change.name === "search_path") {
    const isReset = change.kind === "VAR_RESET" || change.kind === "VAR_SET_DEFAULT";
    const path = change.values === undefined ? {} : { path: change.values };
    const reset = isReset ? ({ isReset } as const) : {};
    walk.effects.push({ kind: "setSearchPath", ...path, ...reset, local: change.local });
  }
  return word;
}

function multiSet(walk: Walk, node: TreeNode, name: string): void {
  if (name === "transaction snapshot") {
    walk.add("session", "SET TRANSACTION", [walk.object("setting", "transaction_snapshot")]);
    return;
  }
  const word = name === "session characteristics" ? "SET SESSION CHARACTERISTICS" : "SET TRANSACTION";
  const prefix = name === "session characteristics" ? "default_" : "";
  const settings = listOf(node, "args").map((arg) => textOf(nodeOf(arg, "DefElem"), "defname"));
  walk.add(
    "session",
    word,
    settings.map((setting) => walk.object("setting", prefix + setting)),
  );
}

/** Adds what leads to the role that the session began as: pools say it as they hand a connection on. */
function leadsBack(walk: Walk, { name, kind, values }: SettingChange): boolean {
  const isReset = kind === "VAR_RESET" || kind === "VAR_SET_DEFAULT";
  const role = name === "role" ? values?.[0] : undefined;
  if (!(isReset || role !== undefined) || !walk.names.leadsBack(role)) return false;
  // Under the words of what it amounts to, as those for SET are refused to whom a credential gives a role.
  walk.add("session", name === "role" ? "RESET ROLE" : "RESET SESSION AUTHORIZATION", []);
  return true;
}

function roleMove(walk: Walk, change: SettingChange, word: string): void {
  const phrase = change.name === "role" ? "ROLE" : "SESSION AUTHORIZATION";
  const role = change.values?.[0];
  walk.add("privilege", `${word} ${phrase}`, [walk.object("role", role ?? "none")]);
  const isReset = word === "RESET" || change.kind === "VAR_SET_DEFAULT" || role === "none";
  if (!isReset) walk.effects.push({ kind: "setRole", ...(role === undefined ? {} : { role }) });
}

/** set_config(name, value, is_local): SET in an expression, which may run or not. */
export function setConfigCall(walk: Walk, node: TreeNode | undefined): void {
  walk.literalsMatter = true;
  const args = listOf(node, "args");
  const name = stringConstantOf(args[0])?.toLowerCase();
  if (name === undefined || args.some((arg) => nodeOf(arg, "NamedArgExpr") !== undefined)) {
    throw new Rejected({
      sqlstate: "0A000",
      message: "the gateway does not run set_config with a setting name that is not a literal",
      hint: "Write the setting's name as a literal, or use SET.",
    });
  }
  const value = stringConstantOf(args[1]);
  refusePinned(name, value === undefined ? undefined : [value]);
  if (roleSettings.has(name)) {
    const change = { name, kind: "", values: value === undefined ? undefined : [value], local: false };
    if (!leadsBack(walk, change)) roleMove(walk, change, "SET");
    return;
  }
  walk.add("session", "SET", [walk.object("setting", name)]);
  // Whether and when an expression runs is unknown, and so is the path after it; but for the one that stands alone.
  if (name !== "search_path") return;
  const path =
    node !== undefined && node === walk.loneCall && value !== undefined ? parseSearchPath(value) : undefined;
  const local = booleanOf(args[2]);
  const isKnown = path !== undefined && local !== undefined;
  walk.effects.push({ kind: "setSearchPath", ...(isKnown ? { path, local } : { local: false }) });
}

/** The call in `SELECT f(…)` with nothing around it. */
export function loneCallOf(statement: TreeNode): TreeNode | undefined {
  const select = nodeOf(statement, "SelectStmt");
  const targets = listOf(select, "targetList");
  const isPlain = Object.keys(select ?? {}).every((key) => plainFields.has(key));
  return isPlain && targets.length === 1
    ? nodeOf(nodeOf(nodeOf(targets[0], "ResTarget"), "val"), "FuncCall")
    : undefined;
}

const plainFields = new Set(["targetList", "limitOption", "op"]);

/** The value of TRUE or FALSE, as a literal. */
export function booleanOf(node: TreeNode | undefined): boolean | undefined {
  const constant = nodeOf(node, "A_Const");
  const value = nodeOf(constant, "boolval");
  if (constant === undefined || value === undefined) return undefined;
  return value.boolval === true;
}

/** SET clauses of functions: code that runs as another role is what becoming that role is. */
export function functionSetting(walk: Walk, node: TreeNode | undefined): void {
  storedSetting(node);
  if (node === undefined) return;
  const change = changeOf(node);
  if (roleSettings.has(change.name) && !change.kind.startsWith("VAR_RESET")) roleMove(walk, change, "SET");
}

/** SET clauses stored for later: of a role, a database, a function, the whole server. */
export function storedSetting(node: TreeNode | undefined): void {
  if (node === undefined) return;
  const change = changeOf(node);
  if (change.kind === "VAR_SET_CURRENT" || change.kind.startsWith("VAR_RESET")) return;
  refusePinned(change.name, change.values);
}

/** Throws where the setting is pinned and the value is not the one that it is pinned to. */
export function refusePinned(name: string, values: readonly string[] | undefined): void {
  const allowed = Object.hasOwn(pinned, name) ? pinned[name] : undefined;
  if (allowed === undefined) return;
  const value = values?.length === 1 ? values[0]?.trim().toLowerCase() : undefined;
  if (value === undefined || !allowed.includes(value)) throw settingPinned(name);
}

/** The setting that a VariableSetStmt names, in lower case. */
export function settingName(node: TreeNode | undefined): string {
  return textOf(node, "name").toLowerCase() || "all";
}
