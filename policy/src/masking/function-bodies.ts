/**
 * Bodies of functions: what a call shows of masked columns, where its body can be followed. A body is taken for the
 * asker's own text, since the asker chooses the arguments: a condition in it counts as one of the statement's.
 */
import { compilePlpgsql, identifierOf, statementsOf } from "../sql/bodies.ts";
import { type FunctionInfo, relationNamed, type TypeInfo } from "../sql/names.ts";
import { parseStatements, scanTokens } from "../sql/parser.ts";
import { Rejected } from "../sql/rejection.ts";
import { parseSearchPath } from "../sql/search-path-value.ts";
import { isNode, listOf, namesOf, nodeOf, qualifiedOf, type TreeNode, tagOf, textOf } from "../sql/tree.ts";
import { flowOf } from "./expressions.ts";
import { clean, derivedFrom, type Flow, type FlowColumn, isTainted, nullTelling } from "./flow.ts";
import type { TracedRows } from "./model.ts";
import { traceQuery } from "./queries.ts";
import { textTypes } from "./safe-functions.ts";
import { allOf, itemOf, type Level, levelBelow, type RangeEntry, type Trace } from "./trace.ts";

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
  const schemas = parseSearchPath(path.slice(path.indexOf("=") + 1));
  return schemas === undefined ? undefined : trace.withNames(trace.namesAlong(schemas), follow);
}

/** What a body sees around it: its parameters, by their names and by `function.name`. */
function parameterLevel(info: FunctionInfo, columns: readonly FlowColumn[] = []): Level {
  const level = levelBelow(undefined);
  const parameters = (info.parameters ?? []).map(({ name }) => ({ name, flow: clean }));
  level.items.push(itemOf({ alias: info.name, columns: [...columns, ...parameters] }));
  return level;
}

function sqlRows(trace: Trace, info: FunctionInfo, body: string): TracedRows | undefined {
  const statements = statementsOf(body);
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
  if (rows !== undefined) becomesResult(trace, info, rows);
  return rows;
}

/**
 * Types whose values the server makes of other types' without an error that tells of one, wherever it does so unasked.
 * Narrower ones, domains and names of objects fail for some values.
 */
const wide = new Set(
  `text varchar bpchar name char json bool bytea uuid date time timetz timestamp timestamptz interval numeric float8
  record void`.split(/\s+/),
);

/** What a body gives is made of the types that the function says: whether that fails must not tell of a value. */
function becomesResult(trace: Trace, info: FunctionInfo, rows: TracedRows): void {
  const row = info.returnsRow;
  const names = row === undefined ? [] : (relationNamed(trace.names, row)?.columns ?? []);
  const sure = (column: FlowColumn, index: number): boolean =>
    row === undefined
      ? wide.has(info.returns?.[index] ?? "")
      : column.flow.isExact && column.flow.sources.has(`${row}.${names[index] ?? ""}`);
  const unsure = rows.columns.filter((column, index) => !sure(column, index)).map(({ flow }) => flow);
  trace.infer(derivedFrom([...unsure, rows.open ?? clean]), `function ${info.name}`);
}

/**
 * Statements of PL/pgSQL whose outcome is that of their expressions. None that catches errors, whose words would be
 * values like any other, opens cursors, or takes arrays and rows apart.
 */
const plain = new Set(
  `PLpgSQL_function PLpgSQL_var PLpgSQL_rec PLpgSQL_row PLpgSQL_recfield PLpgSQL_type PLpgSQL_expr
  PLpgSQL_stmt_block PLpgSQL_stmt_assign PLpgSQL_stmt_if PLpgSQL_if_elsif PLpgSQL_stmt_return
  PLpgSQL_stmt_return_next PLpgSQL_stmt_return_query PLpgSQL_stmt_execsql PLpgSQL_stmt_fors PLpgSQL_stmt_perform
  PLpgSQL_stmt_case PLpgSQL_case_when PLpgSQL_stmt_loop PLpgSQL_stmt_while PLpgSQL_stmt_fori PLpgSQL_stmt_exit
  PLpgSQL_stmt_raise PLpgSQL_raise_option`.split(/\s+/),
);

/** What becomes of the value of an expression, by the field of the statement that it stands in. */
const uses: Readonly<Record<string, Readonly<Record<string, BodyExpression["use"]>>>> = {
  PLpgSQL_stmt_assign: { expr: "kept" },
  PLpgSQL_var: { default_val: "kept" },
  PLpgSQL_stmt_execsql: { sqlstmt: "kept" },
  PLpgSQL_stmt_fors: { query: "kept" },
  PLpgSQL_stmt_return: { expr: "kept" },
  PLpgSQL_stmt_return_next: { expr: "kept" },
  PLpgSQL_stmt_return_query: { query: "kept" },
  PLpgSQL_stmt_perform: { expr: "dropped" },
  PLpgSQL_stmt_if: { cond: "decides" },
  PLpgSQL_if_elsif: { cond: "decides" },
  PLpgSQL_stmt_case: { t_expr: "decides" },
  PLpgSQL_case_when: { expr: "decides" },
  PLpgSQL_stmt_while: { cond: "decides" },
  PLpgSQL_stmt_fori: { lower: "decides", upper: "decides", step: "decides" },
  PLpgSQL_stmt_exit: { cond: "decides" },
  PLpgSQL_stmt_raise: { params: "raised", options: "raised" },
  PLpgSQL_raise_option: { expr: "raised" },
};

/** Stands for what a body returns, among its variables. */
const result = "(result)";

/** How often a body is gone through before what it returns is taken to be everything in it. */
const roundsMax = 4;

/** What each variable of a PL/pgSQL body may hold. Assigning to a number may fail because of the value, and so may returning one. */
function plpgsqlRows(trace: Trace, info: FunctionInfo, body: string): TracedRows | undefined {
  const known = bodies.get(info);
  const facts = known === undefined ? (factsOf(body) ?? null) : known;
  bodies.set(info, facts);
  if (facts === null) return undefined;
  const held = heldBy(trace, info, facts);
  const level = variableLevel(info, facts, held);
  const where = `function ${info.name}`;
  for (const { queries, use } of facts.expressions) {
    if (use === "decides") trace.infer(queriesFlow(trace, queries, level), where);
    // What is raised is shown to whoever asked.
    if (use === "raised") trace.find("opaque", queriesFlow(trace, queries, level), where);
  }
  for (const { name, type, refusesNull } of facts.variables) {
    const flow = held.get(name) ?? clean;
    if (!isTainted(flow)) continue;
    const own = type === undefined ? undefined : typeOf(trace, type);
    if (type === undefined || own === undefined) return undefined;
    trace.runs(own.functions, flow, where);
    if (refusesNull || !isLossless(type, own)) trace.infer(flow, where);
  }
  const given = held.get(result) ?? clean;
  if (!isTainted(given)) return { columns: [{ name: info.name, flow: clean }] };
  const returns = info.returns ?? ["?"];
  if (!returns.every((name) => name === "record" || textTypes.has(name))) trace.infer(given, where);
  return { columns: [], open: given };
}

/** What each name may hold, followed until nothing changes. */
function heldBy(trace: Trace, info: FunctionInfo, facts: BodyFacts): ReadonlyMap<string, Flow> {
  let held: ReadonlyMap<string, Flow> = new Map();
  for (let round = 0; round < roundsMax; round += 1) {
    const next = new Map<string, Flow>();
    const level = variableLevel(info, facts, held);
    let decided: Flow = clean;
    for (const { queries, use, into } of facts.expressions) {
      const flow = nullTelling(queriesFlow(trace, queries, level));
      for (const name of into) next.set(name, joined(next.get(name), flow));
      if (use === "decides") decided = joined(decided, flow);
    }
    for (const name of facts.returned) next.set(result, joined(next.get(result), held.get(name)));
    // What runs because of a value tells of it wherever it puts something.
    if (isTainted(decided))
      for (const name of [...facts.names, result]) next.set(name, joined(next.get(name), decided));
    const isStable = [...next].every(
      ([name, flow]) => flow.sources.size === (held.get(name)?.sources.size ?? 0),
    );
    held = next;
    if (isStable) return held;
  }
  const all = nullTelling(derivedFrom(held.values()));
  return new Map([...facts.names, result].map((name) => [name, all]));
}

function joined(left: Flow | undefined, right: Flow | undefined): Flow {
  return nullTelling(derivedFrom([left ?? clean, right ?? clean]));
}

/** Names of types as the parser gives them; undefined for what is none that can be looked up (`cust.ssn%TYPE`). */
function typeOf(trace: Trace, type: TreeNode): TypeInfo | undefined {
  const { schema, name } = qualifiedOf(namesOf(type, "names"));
  return trace.names.type(schema, name);
}

/** True where a value can be made one of the type, by way of its text, without an error that tells of it. */
function isLossless(type: TreeNode, { schema, name }: TypeInfo): boolean {
  const isText = schema === "pg_catalog" && (textTypes.has(name) || name === "record") && name !== "char";
  return isText && type.arrayBounds === undefined && type.typmods === undefined;
}

/** What a text gives rows or values from, and what becomes of them. */
interface BodyExpression {
  readonly queries: readonly TreeNode[];
  readonly use: "kept" | "dropped" | "decides" | "raised";
  /** The names that it is put into. */
  readonly into: readonly string[];
}

interface Variable {
  readonly name: string;
  /** As the parser gives it; undefined where it is none that can be looked up. */
  readonly type: TreeNode | undefined;
  readonly refusesNull: boolean;
}

interface BodyFacts {
  readonly expressions: readonly BodyExpression[];
  /** A name may stand for several, in blocks of its own. */
  readonly variables: readonly Variable[];
  readonly names: ReadonlySet<string>;
  /** Those that are records or rows. */
  readonly records: ReadonlySet<string>;
  /** Variables that RETURN and RETURN NEXT name. */
  readonly returned: readonly string[];
}

/** What bodies consist of, read once; null where something in one cannot be followed. */
const bodies = new WeakMap<FunctionInfo, BodyFacts | null>();

/** What a body consists of, where all of that can be followed. */
function factsOf(body: string): BodyFacts | undefined {
  const tree = compilePlpgsql(body);
  if (tree === undefined) return undefined;
  const found = new Gathering();
  found.statement(tree);
  const { variables, records, texts, returned } = found;
  if (!found.isPlain || mayHaveDefaults(body, records)) return undefined;
  const names = new Set(variables.map(({ name }) => name));
  const expressions: BodyExpression[] = [];
  for (const { text, use, into } of texts) {
    const queries = queriesOf(text);
    // What is put into a parameter or into FOUND is made a value of a type that is not known here.
    if (queries === undefined || into.some((name) => name !== result && !names.has(name))) {
      return undefined;
    }
    expressions.push({ queries, use, into });
  }
  const back = returned.map((number) => found.datums[number]);
  if (back.includes(undefined)) return undefined;
  return { expressions, variables, names, records, returned: back.flatMap((name) => name ?? []) };
}

/**
 * True where a record may have a default, which the compiler's tree leaves out, or where names may mean variables
 * before columns.
 */
function mayHaveDefaults(body: string, records: ReadonlySet<string>): boolean {
  const tokens = scanTokens(body)?.filter((token) => !token.name.endsWith("COMMENT"));
  if (tokens === undefined || /#|u&/i.test(body)) return true;
  return tokens.some((token, index) => {
    if (!records.has(identifierOf(token))) return false;
    const rest = tokens.slice(index + 1);
    const end = rest.findIndex(({ text }) => text === ";");
    return rest.slice(0, end < 0 ? rest.length : end).some(({ text }) => /^(:=|=|default)$/i.test(text));
  });
}

/** Goes through a compiled body; `isPlain` turns false at the first thing that is not followed. */
class Gathering {
  readonly texts: {
    readonly text: string;
    readonly use: BodyExpression["use"];
    readonly into: readonly string[];
  }[] = [];
  readonly variables: Variable[] = [];
  readonly records = new Set<string>();
  /** The names of variables by their numbers. */
  readonly datums: (string | undefined)[] = [];
  /** Numbers of variables. */
  readonly returned: number[] = [];
  isPlain = true;

  /** Anything that is no expression. */
  statement(value: unknown): void {
    if (Array.isArray(value)) for (const item of value) this.statement(item);
    if (!isNode(value)) return;
    for (const key in value) {
      const inner = value[key];
      if (!key.startsWith("PLpgSQL_")) this.statement(inner);
      else if (isNode(inner) && plain.has(key)) this.#node(key, inner);
      else this.isPlain = false;
    }
  }

  #node(key: string, node: TreeNode): void {
    // An expression in a field that is not known here.
    if (key === "PLpgSQL_expr" || (key === "PLpgSQL_stmt_return_query" && node.dynquery !== undefined)) {
      this.isPlain = false;
      return;
    }
    if (key === "PLpgSQL_function") {
      for (const item of listOf(node, "datums")) this.#datum(item);
    }
    if (key === "PLpgSQL_var" || key === "PLpgSQL_rec") this.#variable(key, node);
    if (typeof node.retvarno === "number") this.returned.push(node.retvarno);
    const into = key === "PLpgSQL_stmt_case" ? this.#compared(node) : targetsOf(key, node);
    for (const field in node) {
      const use = uses[key]?.[field];
      if (use === undefined) this.statement(node[field]);
      else this.#expression(node[field], use, into);
    }
  }

  #datum(datum: TreeNode): void {
    const variable = nodeOf(datum, "PLpgSQL_var") ?? nodeOf(datum, "PLpgSQL_rec");
    // Some tell their number: where it is another than their place, nobody knows which is which.
    const number = variable?.dno;
    if (typeof number === "number" && number !== this.datums.length) this.isPlain = false;
    this.datums.push(variable === undefined ? undefined : textOf(variable, "refname"));
  }

  /** The variable in which CASE keeps what it compares. */
  #compared(node: TreeNode): readonly string[] {
    return typeof node.t_varno === "number" ? [this.datums[node.t_varno] ?? "(other)"] : [];
  }

  /** Those on no line are the compiler's own, such as FOUND, and parameters. */
  #variable(key: string, node: TreeNode): void {
    if (node.lineno === undefined) return;
    const name = textOf(node, "refname");
    const type = textOf(nodeOf(nodeOf(node, "datatype"), "PLpgSQL_type"), "typname");
    // The variable of a FOR over rows has no type of its own.
    const known = key === "PLpgSQL_rec" && type === "" ? "record" : type;
    this.variables.push({ name, type: typeNamed(known), refusesNull: node.notnull === true });
    if (key === "PLpgSQL_rec") this.records.add(name);
  }

  #expression(value: unknown, use: BodyExpression["use"], into: readonly string[]): void {
    if (Array.isArray(value)) for (const item of value) this.#expression(item, use, into);
    if (!isNode(value)) return;
    const expression = nodeOf(value, "PLpgSQL_expr");
    if (expression === undefined) this.statement(value);
    else this.texts.push({ text: textOfExpression(expression), use, into });
  }
}

/** A type's name as the parser gives it. */
function typeNamed(text: string): TreeNode | undefined {
  // `%TYPE`, and what else casts do not take.
  if (!/^[\w\s".,()[\]]{1,300}$/.test(text)) return undefined;
  const [statement, other] = parsedOrNone(`SELECT NULL::${text}`);
  const [target] = listOf(nodeOf(statement, "SelectStmt"), "targetList");
  return other === undefined
    ? nodeOf(nodeOf(nodeOf(nodeOf(target, "ResTarget"), "val"), "TypeCast"), "typeName")
    : undefined;
}

function parsedOrNone(text: string): readonly TreeNode[] {
  try {
    return parseStatements(text).map(({ node }) => node);
  } catch (error) {
    if (error instanceof Rejected) return [];
    throw error;
  }
}

/** The names that a node puts values into: of INTO and FOR, left of an assignment, a variable's own, or the result. */
function targetsOf(key: string, node: TreeNode): readonly string[] {
  switch (key) {
    case "PLpgSQL_stmt_execsql":
      return fieldsOf(nodeOf(node, "target"));
    case "PLpgSQL_stmt_fors":
    case "PLpgSQL_stmt_fori":
      return fieldsOf(nodeOf(node, "var"));
    case "PLpgSQL_var":
      return [textOf(node, "refname")];
    case "PLpgSQL_stmt_return":
    case "PLpgSQL_stmt_return_next":
    case "PLpgSQL_stmt_return_query":
      return [result];
    case "PLpgSQL_stmt_assign": {
      const text = textOf(nodeOf(nodeOf(node, "expr"), "PLpgSQL_expr"), "query");
      // Anything but a plain name is no variable that is known, and ends following.
      return [/^\s*(\w+)\s*:?=/.exec(text)?.[1]?.toLowerCase() ?? "(other)"];
    }
    default:
      return [];
  }
}

function fieldsOf(target: TreeNode | undefined): readonly string[] {
  const row = nodeOf(target, "PLpgSQL_row");
  if (row !== undefined) return listOf(row, "fields").map((field) => textOf(field, "name"));
  const variable = nodeOf(target, "PLpgSQL_rec") ?? nodeOf(target, "PLpgSQL_var");
  return variable === undefined ? [] : [textOf(variable, "refname")];
}

/** An expression as a statement: parseMode 0 is one already, 2 a value, 3 and above are assignments. */
function textOfExpression(expression: TreeNode): string {
  const query = textOf(expression, "query");
  const mode = Number(expression.parseMode ?? 0);
  if (mode === 0) return query;
  // `name := value`: the value is what counts; of other targets (fields, subscripts) nothing is followed.
  const value = mode === 2 ? query : /^\s*"?\w+"?\s*:?=(.*)$/s.exec(query)?.[1];
  return value === undefined ? "" : `SELECT ${value}`;
}

/** The queries of a text; undefined where it is none, or holds anything else. */
function queriesOf(text: string): readonly TreeNode[] | undefined {
  const queries: TreeNode[] = [];
  for (const { node } of parseStatements(text)) {
    const query = nodeOf(node, "SelectStmt");
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return queries.length === 0 ? undefined : queries;
}

function queriesFlow(trace: Trace, queries: readonly TreeNode[], level: Level): Flow {
  return derivedFrom(queries.map((query) => allOf(traceQuery(trace, "SelectStmt", query, level))));
}

function variableLevel(info: FunctionInfo, facts: BodyFacts, held: ReadonlyMap<string, Flow>): Level {
  const own = [...facts.names].filter((name) => !isParameter(info, name));
  const level = parameterLevel(info, [
    ...own.map((name) => ({ name, flow: held.get(name) ?? clean })),
    { name: "found", flow: clean },
  ]);
  // A record's fields are whatever was put into it.
  for (const name of facts.records) {
    const entry: RangeEntry = { alias: name, columns: [], open: held.get(name) ?? clean };
    if (!isParameter(info, name)) level.items.push(itemOf(entry));
  }
  return level;
}

function isParameter(info: FunctionInfo, name: string): boolean {
  return (info.parameters ?? []).some((parameter) => parameter.name === name && !parameter.isResult);
}
