/** CREATE FUNCTION and CREATE PROCEDURE, whose bodies are judged as what they will do. */
import { walkAtomicBody, walkBody } from "./bodies.ts";
import { defineWhatIsRead } from "./bound-code.ts";
import { newName } from "./defined-objects.ts";
import { changeOf, functionSetting } from "./settings.ts";
import { listOf, namesOf, nodeOf, qualifiedOf, stringOf, stringsOf, type TreeNode, textOf } from "./tree.ts";
import type { Walk } from "./walk.ts";

/** CREATE FUNCTION and PROCEDURE: a definition of the function and of all that its body would touch. */
export function createFunction(walk: Walk, node: TreeNode, text: string): string {
  const word = node.is_procedure === true ? "CREATE PROCEDURE" : "CREATE FUNCTION";
  const { schema, name } = qualifiedOf(namesOf(node, "funcname"));
  const options = functionOptions(walk, node);
  walk.add("define", word, [walk.object("function", newName(walk, schema, name))]);
  if (options.securityDefiner)
    walk.add("define", "SECURITY DEFINER", [walk.object("function", newName(walk, schema, name))]);
  const language = options.language ?? "sql";
  const isReadable = language === "sql" || language === "plpgsql";
  if (!isReadable) walk.add("privilege", word, [walk.object("function", newName(walk, schema, name))]);
  else {
    defineWhatIsRead(walk, word, (inner) => {
      inner.within({ isBody: true }, () => {
        if (node.sql_body === undefined) walkBody(inner, language, options.body, word);
        else walkAtomicBody(inner, node.sql_body);
      });
    });
  }
  // What is under way may call it, by its name or in the place of what had it.
  if (walk.names.runsLater && isReadable) {
    walk.within({ isBody: true }, () => {
      if (node.sql_body === undefined) walkBody(walk, language, options.body, word);
      else walkAtomicBody(walk, node.sql_body);
    });
  }
  // Whose path is that of the session at this moment is known by the catalog alone.
  const body = options.isPathTaken ? undefined : (options.body ?? atomicText(text));
  walk.effects.push(
    {
      kind: "createFunction",
      ...(schema === undefined ? {} : { schema }),
      name,
      language,
      ...(body === undefined ? {} : { body }),
      securityDefiner: options.securityDefiner,
      ...(options.path === undefined ? {} : { settings: [`search_path=${options.path}`] }),
    },
    { kind: "catalogChanged" },
  );
  return word;
}

function functionOptions(
  walk: Walk,
  node: TreeNode,
): {
  readonly language: string | undefined;
  readonly body: string | undefined;
  readonly securityDefiner: boolean;
  /** Its own search_path, as the catalog keeps it. */
  readonly path: string | undefined;
  /** True for `SET search_path FROM CURRENT`. */
  readonly isPathTaken: boolean;
} {
  let path: string | undefined;
  let isPathTaken = false;
  let language: string | undefined;
  let body: string | undefined;
  let securityDefiner = false;
  for (const item of listOf(node, "options")) {
    const option = nodeOf(item, "DefElem");
    const argument = nodeOf(option, "arg");
    switch (textOf(option, "defname")) {
      case "language":
        language = stringOf(argument)?.toLowerCase();
        break;
      case "as":
        body = stringsOf(listOf(nodeOf(argument, "List"), "items"))[0] ?? stringOf(argument);
        break;
      case "security":
        securityDefiner = nodeOf(argument, "Boolean")?.boolval === true;
        break;
      case "set":
        functionSetting(walk, nodeOf(argument, "VariableSetStmt"));
        ({ path, isPathTaken } = functionPath(nodeOf(argument, "VariableSetStmt"), { path, isPathTaken }));
        break;
    }
  }
  return { language, body, securityDefiner, path, isPathTaken };
}

interface FunctionPath {
  readonly path: string | undefined;
  readonly isPathTaken: boolean;
}

/** What one more SET clause makes of a function's path. */
function functionPath(clause: TreeNode | undefined, before: FunctionPath): FunctionPath {
  if (clause === undefined) return before;
  const { name, kind, values } = changeOf(clause);
  if (name !== "search_path") return before;
  if (kind === "VAR_SET_CURRENT") return { path: undefined, isPathTaken: true };
  const path = values?.map((schema) => `"${schema.replaceAll('"', '""')}"`).join(", ");
  return { path, isPathTaken: false };
}

/** The text of a BEGIN ATOMIC or RETURN body, from its keyword on; only the first outside quotes counts. */
function atomicText(text: string): string | undefined {
  const at = text.search(/\bBEGIN\s+ATOMIC\b|\bRETURN\b/i);
  return at < 0 ? undefined : text.slice(at);
}
