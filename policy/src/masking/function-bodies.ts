/**
 * Bodies of functions: what a call shows of masked columns, where its body can be followed. A body is taken for the
 * asker's own text, since the asker chooses the arguments: a condition in it counts as one of the statement's.
 */
import { compilePlpgsql, pathOf } from "../sql/bodies.ts";
import type { FunctionInfo } from "../sql/names.ts";
import { NameOverlay } from "../sql/overlay.ts";
import { parseStatements, scanTokens } from "../sql/parser.ts";
import { isNode, listOf, nodeOf, type TreeNode, tagOf, textOf } from "../sql/tree.ts";
import { flowOf } from "./expressions.ts";
import { clean, derivedFrom, type Flow, type FlowColumn, isTainted, nullTelling } from "./flow.ts";
import type { TracedRows } from "./model.ts";
import { allOf, traceQuery } from "./queries.ts";
import { itemOf, type Level, levelBelow, type RangeEntry, type Trace } from "./trace.ts";

/** The rows that a call of this function gives; undefined where nobody can follow its body. */
export function followedBody(trace: Trace, info: FunctionInfo): TracedRows | undefined {
  const { body } = info;
  if (body === undefined || info.parameters === undefined || !trace.onlyReads(info)) return undefined;
  // Casts, domains and defaults of parameters run code around the body.
  if ((info.runs ?? []).length > 0) return undefined;
  const path = info.settings.find((setting) => /^search_path\s*=/i.test(setting));
  if (info.settings.length > (path === undefined ? 0 : 1)) return undefined;
  if (info.language !== "sql" && info.language !== "plpgsql") return undefined;
  const follow = () =>
    info.language === "sql" ? sqlRows(trace, info, body) : plpgsqlRows(trace, info, body);
  if (path === undefined) return follow();
  const names = new NameOverlay(trace.names);
  names.setSearchPath(pathOf(path.slice(path.indexOf("=") + 1).trim()));
  return trace.withNames(names, follow);
}

/** What a body sees around it: its parameters, by their names and by `function.name`. */
function parameterLevel(info: FunctionInfo, columns: readonly FlowColumn[] = []): Level {
  const level = levelBelow(undefined);
  const parameters = (info.parameters ?? []).map(({ name }) => ({ name, flow: clean }));
  level.items.push(itemOf({ alias: info.name, columns: [...columns, ...parameters] }));
  return level;
}

function sqlRows(trace: Trace, info: FunctionInfo, body: string): TracedRows | undefined {
  const statements = sqlStatements(body);
  let rows: TracedRows | undefined;
  for (const statement of statements) {
    const tag = tagOf(statement) ?? "";
    const node = nodeOf(statement, tag);
    if (node === undefined) return undefined;
    const level = parameterLevel(info);
    if (tag === "ReturnStmt") {
      rows = { columns: [{ name: "", flow: flowOf(trace, node.returnval, level) }] };
    } else if (tag === "SelectStmt") rows = traceQuery(trace, tag, node, level);
    else return undefined;
  }
  return rows;
}

/** The statements of a body, which may be a text of its own or what BEGIN ATOMIC and RETURN hold. */
function sqlStatements(body: string): readonly TreeNode[] {
  if (!/^\s*(BEGIN\s+ATOMIC|RETURN)\b/i.test(body)) return parseStatements(body).map(({ node }) => node);
  const [statement] = parseStatements(`CREATE FUNCTION f() RETURNS void LANGUAGE sql ${body}`);
  return listed(nodeOf(statement?.node, "CreateFunctionStmt")?.sql_body);
}

function listed(value: unknown): readonly TreeNode[] {
  if (Array.isArray(value)) return value.flatMap(listed);
  if (!isNode(value)) return [];
  const list = nodeOf(value, "List");
  return list === undefined ? [value] : listed(list.items);
}

/** Statements of PL/pgSQL whose outcome is that of their expressions; none that catches errors, opens or raises. */
const plain = new Set(
  `PLpgSQL_function PLpgSQL_var PLpgSQL_rec PLpgSQL_row PLpgSQL_recfield PLpgSQL_type PLpgSQL_expr
  PLpgSQL_stmt_block PLpgSQL_stmt_assign PLpgSQL_stmt_if PLpgSQL_if_elsif PLpgSQL_stmt_return
  PLpgSQL_stmt_return_next PLpgSQL_stmt_return_query PLpgSQL_stmt_execsql PLpgSQL_stmt_fors`.split(/\s+/),
);

/** Types that a value can be made one of without an error that tells of it. */
const lossless = /^(pg_catalog\.)?"?(text|varchar|bpchar|name|record)"?$/i;

/**
 * All variables of a PL/pgSQL body are taken for one: what any of them holds, each may. Assigning to a number may fail
 * because of the value, and so may returning one.
 */
function plpgsqlRows(trace: Trace, info: FunctionInfo, body: string): TracedRows | undefined {
  const tree = compilePlpgsql(body);
  if (tree === undefined) return undefined;
  const facts: BodyFacts = {
    expressions: [],
    conditions: [],
    variables: new Map(),
    records: new Set(),
    targets: new Set(),
    isPlain: true,
  };
  gather(tree, facts);
  if (!facts.isPlain || mayHaveDefaults(body, facts)) return undefined;
  // What is put into a parameter or into FOUND is made a value of a type that is not known here.
  if ([...facts.targets].some((name) => !facts.variables.has(name))) return undefined;
  let held: Flow = clean;
  // The second round sees in every variable what the first one found.
  for (let round = 0; round < 2; round += 1) {
    const level = variableLevel(info, facts, held);
    const flows: Flow[] = [held];
    for (const text of facts.expressions) {
      const flow = expressionFlow(trace, text, level);
      if (flow === undefined) return undefined;
      flows.push(flow);
    }
    held = nullTelling(derivedFrom(flows));
  }
  if (!isTainted(held)) return { columns: [{ name: info.name, flow: clean }] };
  const level = variableLevel(info, facts, held);
  const where = `function ${info.name}`;
  for (const text of facts.conditions) trace.infer(expressionFlow(trace, text, level) ?? held, where);
  const types = [...facts.variables.values(), info.returns ?? "?"];
  if (!types.every((type) => lossless.test(type))) trace.infer(held, where);
  return { columns: [], open: held };
}

/**
 * True where a record may have a default, which the compiler's tree leaves out, or where names may mean variables
 * before columns.
 */
function mayHaveDefaults(body: string, facts: BodyFacts): boolean {
  const tokens = scanTokens(body)?.filter((token) => !token.name.endsWith("COMMENT"));
  if (tokens === undefined || /#|u&/i.test(body)) return true;
  return tokens.some(({ text }, index) => {
    const name = text.startsWith('"') ? text.slice(1, -1).replaceAll('""', '"') : text.toLowerCase();
    if (!facts.records.has(name)) return false;
    const rest = tokens.slice(index + 1);
    const end = rest.findIndex((token) => token.text === ";");
    return rest.slice(0, end < 0 ? rest.length : end).some((token) => /^(:=|=|default)$/i.test(token.text));
  });
}

interface BodyFacts {
  /** Texts that give rows or values. */
  readonly expressions: string[];
  /** Those of them that decide what runs next. */
  readonly conditions: string[];
  /** Variables and their types. */
  readonly variables: Map<string, string>;
  /** Those of them that are records or rows. */
  readonly records: Set<string>;
  /** Names that statements put values into. */
  readonly targets: Set<string>;
  isPlain: boolean;
}

function gather(value: unknown, facts: BodyFacts): void {
  if (Array.isArray(value)) {
    for (const item of value) gather(item, facts);
    return;
  }
  if (!isNode(value)) return;
  for (const key in value) {
    const inner = value[key];
    if (!key.startsWith("PLpgSQL_")) {
      gather(inner, facts);
      continue;
    }
    if (!plain.has(key) || !isNode(inner)) {
      facts.isPlain = false;
      return;
    }
    for (const target of targetsOf(key, inner)) facts.targets.add(target);
    if (key === "PLpgSQL_expr") facts.expressions.push(textOfExpression(inner));
    if (key === "PLpgSQL_stmt_if" || key === "PLpgSQL_if_elsif") {
      facts.conditions.push(textOfExpression(nodeOf(nodeOf(inner, "cond"), "PLpgSQL_expr")));
    }
    if (key === "PLpgSQL_stmt_return_query" && inner.dynquery !== undefined) facts.isPlain = false;
    // Those on no line are the compiler's own, such as FOUND, and parameters.
    if ((key === "PLpgSQL_var" || key === "PLpgSQL_rec") && inner.lineno !== undefined) {
      const type = textOf(nodeOf(nodeOf(inner, "datatype"), "PLpgSQL_type"), "typname");
      facts.variables.set(textOf(inner, "refname"), type);
      if (key === "PLpgSQL_rec") facts.records.add(textOf(inner, "refname"));
    }
    gather(inner, facts);
  }
}

/** The names that a node puts values into: of INTO and FOR, and left of an assignment. */
function targetsOf(key: string, node: TreeNode): readonly string[] {
  if (key === "PLpgSQL_row") return listOf(node, "fields").map((field) => textOf(field, "name"));
  if (key === "PLpgSQL_stmt_execsql" || key === "PLpgSQL_stmt_fors") {
    const record = nodeOf(nodeOf(node, "target") ?? nodeOf(node, "var"), "PLpgSQL_rec");
    return record === undefined ? [] : [textOf(record, "refname")];
  }
  if (key !== "PLpgSQL_stmt_assign") return [];
  const text = textOf(nodeOf(nodeOf(node, "expr"), "PLpgSQL_expr"), "query");
  // Anything but a plain name is no variable that is known, and ends following.
  return [/^\s*(\w+)\s*:?=/.exec(text)?.[1]?.toLowerCase() ?? "(other)"];
}

/** An expression as a statement: parseMode 0 is one already, 3 and above are assignments. */
function textOfExpression(expression: TreeNode | undefined): string {
  const query = textOf(expression, "query");
  const mode = Number(expression?.parseMode ?? 0);
  if (mode === 0) return query;
  // `name := value`: the value is what counts; of other targets (fields, subscripts) nothing is followed.
  const value = mode === 2 ? query : /^\s*"?\w+"?\s*:?=(.*)$/s.exec(query)?.[1];
  return value === undefined ? "" : `SELECT ${value}`;
}

function expressionFlow(trace: Trace, text: string, level: Level): Flow | undefined {
  const flows: Flow[] = [];
  for (const { node } of parseStatements(text)) {
    const query = nodeOf(node, "SelectStmt");
    if (query === undefined) return undefined;
    flows.push(allOf(traceQuery(trace, "SelectStmt", query, level)));
  }
  return flows.length === 0 ? undefined : derivedFrom(flows);
}

function variableLevel(info: FunctionInfo, facts: BodyFacts, held: Flow): Level {
  const names = [...facts.variables.keys()].filter((name) => !isParameter(info, name));
  const level = parameterLevel(info, [
    ...names.map((name) => ({ name, flow: held })),
    { name: "found", flow: clean },
  ]);
  // A record's fields are whatever was put into it.
  for (const name of facts.records) {
    const entry: RangeEntry = { alias: name, columns: [], open: held };
    if (!isParameter(info, name)) level.items.push(itemOf(entry));
  }
  return level;
}

function isParameter(info: FunctionInfo, name: string): boolean {
  return (info.parameters ?? []).some((parameter) => parameter.name === name && !parameter.isResult);
}
