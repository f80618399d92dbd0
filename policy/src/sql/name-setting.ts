/** Statements that set application_name and do nothing else: the gateway writes them anew, with its own part in front. */
import type { NameSetting } from "./analysis.ts";
import { booleanOf, changeOf, loneCallOf } from "./settings.ts";
import { listOf, nodeOf, stringConstantOf, stringsOf, type TreeNode, textOf } from "./tree.ts";

type Setting = Omit<NameSetting, "start" | "end">;

const applicationName = "application_name";

/** SET, or SELECT set_config with literals or parameters; undefined: anything else, whatever it does. */
export function nameSettingOf(statement: TreeNode): Setting | undefined {
  const set = nodeOf(statement, "VariableSetStmt");
  return set === undefined ? callSetting(statement) : setSetting(set);
}

function setSetting(node: TreeNode): Setting | undefined {
  const { name, kind, values, local: isLocal } = changeOf(node);
  if (name !== applicationName) return undefined;
  if (kind === "VAR_SET_DEFAULT" || kind === "VAR_RESET") return { isLocal };
  const [value, ...more] = values ?? [];
  return value === undefined || more.length > 0 ? undefined : { value, isLocal };
}

function callSetting(statement: TreeNode): Setting | undefined {
  const call = loneCallOf(statement);
  if (call === undefined || !Object.keys(call).every((key) => plainFields.has(key))) return undefined;
  if (!/^(pg_catalog\.)?set_config$/.test(stringsOf(listOf(call, "funcname")).join("."))) return undefined;
  const [name, given, local, ...more] = listOf(call, "args");
  if (stringConstantOf(name)?.toLowerCase() !== applicationName || more.length > 0) return undefined;
  const value = stringConstantOf(given) ?? parameterOf(given);
  const isLocal = booleanOf(local) ?? parameterOf(local);
  if (value === undefined || isLocal === undefined) return undefined;
  const target = nodeOf(listOf(nodeOf(statement, "SelectStmt"), "targetList")[0], "ResTarget");
  const column = textOf(target, "name");
  return { value, isLocal, call: column === "" ? {} : { column } };
}

const plainFields = new Set(["funcname", "args", "funcformat", "location"]);

function parameterOf(value: TreeNode | undefined): { readonly parameter: number } | undefined {
  const { number } = nodeOf(value, "ParamRef") ?? {};
  return typeof number === "number" ? { parameter: number } : undefined;
}
