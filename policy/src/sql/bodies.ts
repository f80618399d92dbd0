/** Function bodies and DO blocks: SQL and PL/pgSQL are read, everything else is opaque. Fails closed. */
import type { SessionEffect } from "./analysis.ts";
import { KeptTexts } from "./kept-texts.ts";
import type { FunctionInfo } from "./names.ts";
import { NameOverlay } from "./overlay.ts";
import { parseDefinition, parsePlpgsql, scanDefinition, type Token } from "./parser.ts";
import { perhapsAs } from "./perhaps.ts";
import { Rejected } from "./rejection.ts";
import { functionObject } from "./relations.ts";
import { parseSearchPath } from "./search-path-value.ts";
import { refusePinned } from "./settings.ts";
import { isNode, listOf, nodeOf, stringConstantOf, type TreeNode, tagOf, textOf } from "./tree.ts";
import { scopeBelow, type Walk } from "./walk.ts";

/** Judges a function outside pg_catalog by what its body does, also by one that this transaction has put in its place. */
export function walkFunction(walk: Walk, info: FunctionInfo, word: string): void {
  const made = walk.names.madeFunctions(info.schema, info.name);
  walkOneFunction(walk, info, word);
  if (!made.includes(info)) for (const each of made) walkOneFunction(walk, each, word);
}

function walkOneFunction(walk: Walk, info: FunctionInfo, word: string): void {
  const object = { ...functionObject(info), direct: walk.isDirect };
  if (info.schema === "pg_catalog" || info.isReviewed === true) return;
  walk.reached.add(info);
  walk.functionsRun += 1;
  const before = walk.parts.additions;
  const definer = info.securityDefiner ? "SECURITY DEFINER" : word;
  walk.below(`function ${object.name} ${info.body ?? ""}`, object, word, () => {
    const words = withWord(walk.frame.words, definer);
    walk.within({ isBody: true, isPlanOnly: false, isKept: true, words }, () => {
      const run = () => inFunctionPath(walk, info, () => walkBody(walk, info.language, info.body, word));
      // What it opens is fetched later; a refcursor may be a parameter.
      if (/cursor|\bopen\b/i.test(info.body ?? "")) walk.late(run);
      else run();
      for (const run of info.runs ?? []) walkFunction(walk, run, word);
    });
  });
  // A body that does nothing is still a function that the statement names.
  if (walk.parts.additions === before && walk.isDirect) walk.add("read", word, [object]);
}

/** Judges a body: what is not understood adds an opaque part. */
export function walkBody(walk: Walk, language: string, body: string | undefined, word: string): void {
  if (body === undefined) {
    walk.addOpaque(word, []);
    return;
  }
  try {
    walk.withOverlay(new NameOverlay(walk.names), () => {
      if (language === "sql") walkSqlBody(walk, body);
      else if (language === "plpgsql") walkPlpgsqlBody(walk, body, word);
      else walk.addOpaque(word, []);
    });
  } catch (error) {
    if (!(error instanceof Rejected) || !isUnknown(error)) throw error;
    walk.addOpaque(word, []);
  }
}

/** Names that appear only at run time, and syntax that the server would reject there, make a body opaque. */
function isUnknown(error: Rejected): boolean {
  return error.isName || error.rejection.sqlstate === "42601";
}

function withWord(words: readonly string[], word: string): readonly string[] {
  return words.includes(word) ? words : [...words, word];
}

/** A function's own SET search_path rules its body's names; its other settings must not change how SQL reads. */
function inFunctionPath(walk: Walk, info: FunctionInfo, inside: () => void): void {
  let path: { readonly schemas: readonly string[] | undefined } | undefined;
  for (const setting of info.settings) {
    const equals = setting.indexOf("=");
    const name = setting.slice(0, equals).trim().toLowerCase();
    const value = setting.slice(equals + 1).trim();
    if (name === "search_path") path = { schemas: parseSearchPath(value) };
    else refusePinned(name, [value]);
  }
  if (path === undefined) inside();
  else walk.withNames(new NameOverlay(walk.names), path.schemas, inside);
}

function walkSqlBody(walk: Walk, body: string): void {
  if (isAtomic(body)) walkAtomicBody(walk, atomicBodyOf(body));
  else for (const statement of parseDefinition(body)) walkStatement(walk, statement.node, statement.text);
}

/** True for a body of BEGIN ATOMIC or RETURN, which is part of its CREATE FUNCTION and no text of its own. */
function isAtomic(body: string): boolean {
  return /^\s*(BEGIN\s+ATOMIC|RETURN)\b/i.test(body);
}

function atomicBodyOf(body: string): unknown {
  const [statement] = parseDefinition(`CREATE FUNCTION f() RETURNS void LANGUAGE sql ${body}`);
  return nodeOf(statement?.node, "CreateFunctionStmt")?.sql_body;
}

/** The statements of a body in SQL; of RETURN, the ReturnStmt. */
export function statementsOf(body: string): readonly TreeNode[] {
  return isAtomic(body) ? listed(atomicBodyOf(body)) : parseDefinition(body).map(({ node }) => node);
}

function listed(value: unknown): readonly TreeNode[] {
  if (Array.isArray(value)) return value.flatMap(listed);
  if (!isNode(value)) return [];
  const list = nodeOf(value, "List");
  return list === undefined ? [value] : listed(list.items);
}

/** BEGIN ATOMIC bodies and RETURN expressions, as the tree of CREATE FUNCTION holds them. */
export function walkAtomicBody(walk: Walk, value: unknown): void {
  if (Array.isArray(value)) {
    for (const item of value) walkAtomicBody(walk, item);
    return;
  }
  if (!isNode(value)) return;
  const tag = tagOf(value) ?? "";
  const inner = nodeOf(value, tag);
  if (inner === undefined) return;
  if (tag === "List") walkAtomicBody(walk, inner.items);
  else if (tag === "ReturnStmt") {
    walk.walkers.expression(walk, inner.returnval, scopeBelow(undefined, "SELECT"));
  } else walkStatement(walk, value, "");
}

/** Bodies change names as they run: what a statement makes, the next one sees. */
function walkStatement(walk: Walk, node: TreeNode, text: string): void {
  const before = walk.effects.length;
  walk.inBodies.push(node);
  walk.walkers.statement(walk, node, text);
  const made = walk.effects.splice(before).flatMap((effect) => asPerhaps(walk, effect));
  if (made.length === 0) return;
  for (const effect of made) applyInBody(walk, effect);
  walk.bodyEffects(made);
}

/**
 * Whether a statement of a body runs at all is unknown: a name that it makes may be used after it, and from here on means
 * that or what it meant before. Where the path puts it is known here alone.
 */
function asPerhaps(walk: Walk, effect: SessionEffect): SessionEffect | readonly SessionEffect[] {
  switch (effect.kind) {
    case "createSchema":
      return { kind: "perhaps", made: effect };
    case "createRelation":
      if (effect.temporary) return { kind: "perhaps", made: effect };
      return { kind: "perhaps", made: { schema: walk.names.creationSchema, ...effect } };
    case "createFunction":
      return { kind: "perhaps", made: { schema: walk.names.creationSchema, ...effect } };
    case "createType":
      return { kind: "perhaps", made: { schema: walk.names.creationSchema, ...effect } };
    case "renameRelation": {
      const found = walk.names.relation(effect.schema, effect.name);
      return found === undefined ? effect : [perhapsAs(found, { name: effect.to }), effect];
    }
    default:
      return effect;
  }
}

/** After a drop or a rename that a body may not have come to, names have no meaning that one can tell. */
function applyInBody(walk: Walk, effect: SessionEffect): void {
  switch (effect.kind) {
    case "transaction":
      return;
    case "catalogChanged":
    case "perhaps":
    case "alterColumns":
    case "runsLater":
      walk.names.apply(effect);
      return;
    default:
      walk.namesUnknownAfter = true;
      if (effect.kind === "prepare") walk.names.apply(effect);
      else walk.names.becomeUnknown();
  }
}

/** Kinds of PL/pgSQL statement and how their parts read; anything else makes the body opaque. */
const plpgsqlKnown = new Set(
  `PLpgSQL_function PLpgSQL_var PLpgSQL_rec PLpgSQL_row PLpgSQL_recfield PLpgSQL_type PLpgSQL_expr
  PLpgSQL_stmt_block PLpgSQL_stmt_assign PLpgSQL_stmt_if PLpgSQL_if_elsif PLpgSQL_stmt_case PLpgSQL_case_when
  PLpgSQL_stmt_loop PLpgSQL_stmt_while PLpgSQL_stmt_fori PLpgSQL_stmt_fors PLpgSQL_stmt_forc
  PLpgSQL_stmt_foreach_a PLpgSQL_stmt_exit PLpgSQL_stmt_return PLpgSQL_stmt_return_next
  PLpgSQL_stmt_return_query PLpgSQL_stmt_raise PLpgSQL_raise_option PLpgSQL_stmt_assert PLpgSQL_stmt_execsql
  PLpgSQL_stmt_dynexecute PLpgSQL_stmt_dynfors PLpgSQL_stmt_getdiag PLpgSQL_diag_item PLpgSQL_stmt_open
  PLpgSQL_stmt_fetch PLpgSQL_stmt_close PLpgSQL_stmt_perform PLpgSQL_stmt_call PLpgSQL_stmt_commit
  PLpgSQL_stmt_rollback PLpgSQL_exception_block PLpgSQL_exception PLpgSQL_condition PLpgSQL_alias
  PLpgSQL_stmt_set`.split(/\s+/),
);

/** Where dynamic SQL hides: the field that holds an expression whose value is run. */
const dynamicFields: Readonly<Record<string, string>> = {
  PLpgSQL_stmt_dynexecute: "query",
  PLpgSQL_stmt_dynfors: "query",
  PLpgSQL_stmt_return_query: "dynquery",
  PLpgSQL_stmt_open: "dynquery",
};

function walkPlpgsqlBody(walk: Walk, body: string, word: string): void {
  const tree = compilePlpgsql(body);
  if (tree === undefined) {
    walk.addOpaque(word, []);
    return;
  }
  walkRecordDefaults(walk, tree, body, word);
  walkPlpgsql(walk, tree, word);
}

function walkPlpgsql(walk: Walk, value: unknown, word: string): void {
  if (Array.isArray(value)) {
    for (const item of value) walkPlpgsql(walk, item, word);
    return;
  }
  if (!isNode(value)) return;
  walk.spend();
  for (const key in value) {
    const inner = value[key];
    if (!key.startsWith("PLpgSQL_")) {
      walkPlpgsql(walk, inner, word);
      continue;
    }
    if (!plpgsqlKnown.has(key) || !isNode(inner)) {
      walk.addOpaque(word, []);
      continue;
    }
    if (key === "PLpgSQL_expr") {
      plpgsqlExpression(walk, inner);
      continue;
    }
    if (key === "PLpgSQL_var" || key === "PLpgSQL_rec") declaredType(walk, inner, word);
    if (key === "PLpgSQL_stmt_commit" || key === "PLpgSQL_stmt_rollback") {
      walk.add("session", key.endsWith("commit") ? "COMMIT" : "ROLLBACK", []);
    }
    const dynamic = nodeOf(nodeOf(inner, dynamicFields[key] ?? ""), "PLpgSQL_expr");
    if (dynamic !== undefined) dynamicSql(walk, dynamic, word);
    walkPlpgsql(walk, inner, word);
  }
}

/**
 * Values that a variable gets pass the checks of the domain that it is declared with. Variables on no line are the
 * compiler's own and parameters, whose types the catalog tells; what `%TYPE` and `%ROWTYPE` stand for is not followed.
 */
function declaredType(walk: Walk, variable: TreeNode, word: string): void {
  const type = textOf(nodeOf(nodeOf(variable, "datatype"), "PLpgSQL_type"), "typname");
  if (variable.lineno === undefined || type === "" || /%(ROW)?TYPE$/i.test(type)) return;
  const [statement, ...others] = parseDefinition(`SELECT NULL::${type}`);
  const [target, ...more] = listOf(nodeOf(statement?.node, "SelectStmt"), "targetList");
  const value = nodeOf(nodeOf(target, "ResTarget"), "val");
  if (others.length > 0 || more.length > 0 || tagOf(value) !== "TypeCast") throw unreadable();
  walk.walkers.expression(walk, value, scopeBelow(undefined, word));
}

/** parseMode 0: a statement; 2: an expression; 3 to 5: an assignment to a target of 1 to 3 names. */
function plpgsqlExpression(walk: Walk, expression: TreeNode): void {
  const query = textOf(expression, "query");
  const mode = Number(expression.parseMode ?? 0);
  if (mode === 0) {
    for (const statement of parseDefinition(query)) walkStatement(walk, statement.node, statement.text);
    return;
  }
  if (mode === 2) {
    selectExpression(walk, query);
    return;
  }
  const tokens = scanDefinition(query);
  const at = tokens === undefined ? undefined : assignmentAt(tokens);
  if (at === undefined) throw unreadable();
  const bytes = Buffer.from(query, "utf8");
  selectExpression(walk, bytes.toString("utf8", at.end));
  const assigned = bytes.toString("utf8", 0, at.start);
  if (assigned.includes("[")) selectExpression(walk, assigned);
}

function selectExpression(walk: Walk, text: string): void {
  for (const statement of parseDefinition(`SELECT ${text}`)) {
    walkStatement(walk, statement.node, statement.text);
  }
}

function unreadable(): Rejected {
  return new Rejected({ sqlstate: "42601", message: "unreadable function body" }, true);
}

/** The first `:=` or `=` outside brackets. */
function assignmentAt(tokens: readonly Token[]): Token | undefined {
  let depth = 0;
  for (const token of tokens) {
    if (token.text === "[" || token.text === "(") depth += 1;
    else if (token.text === "]" || token.text === ")") depth -= 1;
    else if (depth === 0 && (token.text === ":=" || token.text === "=")) return token;
  }
  return undefined;
}

/** EXECUTE of a literal is as good as the statement itself; of anything else nobody can tell. */
function dynamicSql(walk: Walk, expression: TreeNode, word: string): void {
  const [statement] = parseDefinition(`SELECT ${textOf(expression, "query")}`);
  const targets = listOf(nodeOf(statement?.node, "SelectStmt"), "targetList");
  const text =
    targets.length === 1 ? stringConstantOf(nodeOf(nodeOf(targets[0], "ResTarget"), "val")) : undefined;
  if (text === undefined) {
    walk.addOpaque(word, []);
    return;
  }
  for (const inner of parseDefinition(text)) walkStatement(walk, inner.node, inner.text);
}

/**
 * The compiler wants to know parameters and what the function returns, which the catalog does not tell us here.
 * So it is asked with each kind of return, and names that it misses are declared as parameters.
 */
export function compilePlpgsql(body: string): TreeNode | undefined {
  return compiled.get(body, compiledAnew) ?? undefined;
}

const compiled = new KeptTexts<TreeNode | null>(150_000);

function compiledAnew(body: string): TreeNode | null {
  const quote = dollarQuote(body);
  for (const returns of ["void", "SETOF record", "trigger", "record", "event_trigger"]) {
    const parameters: string[] = [];
    for (let attempt = 0; attempt < 24; attempt += 1) {
      const list = returns.endsWith("trigger") ? "" : parameters.join(", ");
      const tree = parsePlpgsql(
        `CREATE FUNCTION f(${list}) RETURNS ${returns} LANGUAGE plpgsql AS ${quote}${body}${quote}`,
      );
      if (!(tree instanceof Error)) return tree;
      const missing = /^"([\w$.]+)" is not a known variable$/.exec(tree.message)?.[1]?.split(".")[0];
      const parameter = `"${missing}" record`;
      if (missing === undefined || parameters.includes(parameter)) break;
      parameters.push(parameter);
    }
  }
  return null;
}

/** A tag that does not occur in the body, so that the body cannot end its own quotes. */
export function dollarQuote(body: string): string {
  let tag = "sallyport";
  while (body.includes(`$${tag}`)) tag += "_";
  return `$${tag}$`;
}

/**
 * The compiler's tree leaves out defaults of record variables (`r record := f()`), so they are found by token:
 * the variable's name, a type, then an assignment up to the semicolon. Ordinary assignments match too, harmlessly.
 */
function walkRecordDefaults(walk: Walk, tree: TreeNode, body: string, word: string): void {
  const records = new Set<string>();
  collectRecords(tree, records);
  for (const name of ["new", "old"]) records.delete(name);
  if (records.size === 0) return;
  const tokens = scanDefinition(body)?.filter((token) => !token.name.endsWith("COMMENT"));
  if (tokens === undefined) {
    walk.addOpaque(word, []);
    return;
  }
  const bytes = Buffer.from(body, "utf8");
  for (const [index, token] of tokens.entries()) {
    const previous = tokens[index - 1]?.text.toLowerCase();
    if (previous !== ";" && previous !== "declare") continue;
    if (!records.has(identifierOf(token))) continue;
    const start = defaultStart(tokens, index + 1);
    if (start === undefined) continue;
    let end = start;
    while (end < tokens.length && tokens[end]?.text !== ";") end += 1;
    const from = tokens[start]?.start ?? 0;
    selectExpression(walk, bytes.toString("utf8", from, tokens[end]?.start ?? bytes.length));
  }
}

function collectRecords(value: unknown, records: Set<string>): void {
  if (Array.isArray(value)) {
    for (const item of value) collectRecords(item, records);
  } else if (isNode(value)) {
    const record = nodeOf(value, "PLpgSQL_rec");
    if (record !== undefined) records.add(textOf(record, "refname"));
    for (const key in value) collectRecords(value[key], records);
  }
}

/** The name that a token stands for: folded and cut as the server does, which folds ASCII alone. */
export function identifierOf(token: Token): string {
  if (token.text.startsWith('"')) return cutName(token.text.slice(1, -1).replaceAll('""', '"'));
  return cutName(token.text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase()));
}

const nameBytesMax = 63;

function cutName(name: string): string {
  if (Buffer.byteLength(name) <= nameBytesMax) return name;
  let kept = "";
  for (const character of name) {
    if (Buffer.byteLength(kept + character) > nameBytesMax) break;
    kept += character;
  }
  return kept;
}

/** The token after `:=`, `=` or DEFAULT where a type stands before it; undefined for anything else. */
function defaultStart(tokens: readonly Token[], from: number): number | undefined {
  let at = from;
  for (; at < tokens.length && at < from + 32; at += 1) {
    const text = tokens[at]?.text.toLowerCase() ?? ";";
    if (text === ":=" || text === "=" || text === "default") return at > from ? at + 1 : undefined;
    if (text === ";" || text === "begin") return undefined;
  }
  return undefined;
}
