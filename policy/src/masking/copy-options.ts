/** COPY TO STDOUT as its text asks for it: what a reader of the stream must know to find the fields. */
import { listOf, nodeOf, stringOf, type TreeNode, textOf } from "../sql/tree.ts";

/** How COPY writes rows, with the server's defaults. */
export interface CopyOutOptions {
  readonly kind: "text" | "csv" | "binary";
  readonly delimiter: string;
  readonly null: string;
  readonly quote: string;
  readonly escape: string;
  readonly header: boolean;
  /** True where some CSV columns are quoted whatever they hold. */
  readonly forcesQuotes: boolean;
  /** False for an encoding that is not surely UTF-8. */
  readonly isUtf8: boolean;
}

/** The options of a COPY to the client; undefined for every other statement. */
export function copyOutOptions(statement: TreeNode): CopyOutOptions | undefined {
  const node = nodeOf(statement, "CopyStmt");
  if (node === undefined || node.is_from === true || textOf(node, "filename") !== "") return undefined;
  const options = new Map<string, TreeNode>();
  for (const item of listOf(node, "options")) {
    const option = nodeOf(item, "DefElem") ?? {};
    options.set(textOf(option, "defname").toLowerCase(), option);
  }
  const text = (name: string, fallback: string): string => {
    const option = options.get(name);
    return option === undefined ? fallback : (stringOf(nodeOf(option, "arg")) ?? "");
  };
  const format = text("format", "text").toLowerCase();
  const kind = format === "csv" || format === "binary" ? format : "text";
  const quote = text("quote", '"');
  return {
    kind,
    delimiter: text("delimiter", kind === "csv" ? "," : "\t"),
    null: text("null", kind === "csv" ? "" : "\\N"),
    quote,
    escape: text("escape", quote),
    header: isOn(options.get("header")),
    forcesQuotes: options.has("force_quote"),
    isUtf8: /^utf-?8$|^unicode$/i.test(text("encoding", "utf8")),
  };
}

/** Whatever is not clearly off is on, as `HEADER` alone is. */
function isOn(option: TreeNode | undefined): boolean {
  if (option === undefined) return false;
  const arg = nodeOf(option, "arg");
  if (arg === undefined) return true;
  const integer = nodeOf(arg, "Integer");
  if (integer !== undefined) return integer.ival === 1;
  const boolean = nodeOf(arg, "Boolean");
  if (boolean !== undefined) return boolean.boolval === true;
  const word = (stringOf(arg) ?? "").toLowerCase();
  return word !== "false" && word !== "off";
}
