/** PostgreSQL 18's own parser: a text in, statements or the server's own error out. */
import createModule, { type PgQueryModule } from "libpg-query/wasm/libpg-query.js";
import { KeptTexts } from "./kept-texts.ts";
import { Rejected } from "./rejection.ts";
import { isNode, listOf, nodeOf, type TreeNode } from "./tree.ts";

/** One statement of a text. */
export interface ParsedStatement {
  readonly node: TreeNode;
  readonly text: string;
  /** Where it stands in the whole text, in characters, with the spaces and comments around it. */
  readonly start: number;
  readonly end: number;
}

/** One token of a text, as PostgreSQL's lexer cuts it; offsets count bytes. */
export interface Token {
  readonly text: string;
  readonly start: number;
  readonly end: number;
  readonly name: string;
  readonly isReserved: boolean;
}

/** Instances kept ready: the first is used, the next takes over at once when an instance aborts. */
const instancesKept = 2;
/** WebAssembly never gives memory back: an instance that one text has made grow this far is replaced. */
const instanceBytesMax = 128 * 1024 * 1024;
let instances: PgQueryModule[] = [];
let loading: Promise<void> | undefined;

/** Loads the parser; must have resolved before the first analysis. */
export async function loadSqlParser(): Promise<void> {
  await refill();
}

/** Resolves once every instance that broke has been replaced; what was answered `parserRestarting` can be asked again. */
export function sqlParserReady(): Promise<void> {
  return refill();
}

/** The code of an answer that holds only until the parser has been replaced. */
export const parserRestarting = "57P03";

/** A text so long that parsing it may take as long as the catalog stays fresh. */
const largeFrom = 100_000;
let lastLarge: { readonly sql: string; readonly statements: readonly ParsedStatement[] } | undefined;

/** Lets go of the last large text, which is kept so that asking again once names are fresh does not parse it again. */
export function forgetLargeText(): void {
  lastLarge = undefined;
}

/** Parses a text into its statements; throws `Rejected` for what PostgreSQL would not parse. */
export function parseStatements(sql: string): readonly ParsedStatement[] {
  if (sql.length < largeFrom) return parseAnew(sql);
  if (lastLarge?.sql === sql) return lastLarge.statements;
  lastLarge = undefined;
  const statements = parseAnew(sql);
  lastLarge = { sql, statements };
  return statements;
}

/** Definitions and bodies: enough for some hundred of them. */
const definitions = new KeptTexts<readonly ParsedStatement[]>(150_000);

/** Parses the text of a definition or a body, which other statements will read too; nobody may change the answer. */
export function parseDefinition(sql: string): readonly ParsedStatement[] {
  return definitions.get(sql, parseStatements);
}

const scans = new KeptTexts<readonly Token[] | null>(50_000);

/** The tokens of a definition's or body's text; undefined where the lexer fails on it. */
export function scanDefinition(sql: string): readonly Token[] | undefined {
  return scans.get(sql, (text) => scanTokens(text) ?? null) ?? undefined;
}

function parseAnew(sql: string): readonly ParsedStatement[] {
  if (sql.includes("\0")) {
    throw new Rejected({ sqlstate: "22021", message: 'invalid byte sequence for encoding "UTF8": 0x00' });
  }
  const tree = withInstance((instance) => parseWith(instance, sql));
  const statements: ParsedStatement[] = [];
  const raw = listOf(tree, "stmts");
  const cut = raw.length > 1 ? cutter(sql) : () => ({ text: sql, start: 0, end: sql.length });
  for (const item of raw) {
    const node = nodeOf(item, "stmt");
    if (node === undefined) throw tooComplex();
    statements.push({ node, ...cut(item) });
  }
  return statements;
}

/** Parses a PL/pgSQL function given as its CREATE FUNCTION or DO text; an Error holds the compiler's message. */
export function parsePlpgsql(statement: string): TreeNode | Error {
  const text = withInstance((instance) =>
    callForText(instance, statement, (query) => instance._wasm_parse_plpgsql(query)),
  );
  if (!text.startsWith("{")) return new Error(text);
  const parsed: unknown = JSON.parse(text);
  return isNode(parsed) ? parsed : new Error("no tree");
}

/** Cuts a text into tokens, or undefined where the lexer fails. */
export function scanTokens(sql: string): readonly Token[] | undefined {
  const text = withInstance((instance) => callForText(instance, sql, (query) => instance._wasm_scan(query)));
  if (!text.startsWith("{")) return undefined;
  const parsed: unknown = JSON.parse(text);
  if (!isNode(parsed)) return undefined;
  return listOf(parsed, "tokens").map((token) => ({
    text: String(token.text),
    start: Number(token.start),
    end: Number(token.end),
    name: String(token.tokenName),
    isReserved: token.keywordName === "RESERVED_KEYWORD",
  }));
}

/** The answer to a tree or text that is too deep to judge. */
export function tooComplex(): Rejected {
  return new Rejected({
    sqlstate: "54001",
    message: "statement is too complex",
    hint: "Split the statement, or nest it less deeply.",
  });
}

function withInstance<Result>(use: (instance: PgQueryModule) => Result): Result {
  const instance = instances[0];
  if (instance === undefined) {
    throw new Rejected({
      sqlstate: parserRestarting,
      message: "the gateway's SQL parser is restarting",
      hint: "Try again.",
    });
  }
  try {
    const result = use(instance);
    if (instance.HEAPU8.length > instanceBytesMax) renew(instance);
    return result;
  } catch (error) {
    const hasGrown = instance.HEAPU8.length > instanceBytesMax;
    if (error instanceof Rejected) {
      if (hasGrown) renew(instance);
      throw error;
    }
    // RangeError: V8's or WebAssembly's stack ended; RuntimeError: a trap; Exited: its memory did not suffice. What the
    // instance holds may be half written, so it goes without another call into it.
    renew(instance);
    throw tooComplex();
  }
}

/** The parser wanted to end the process. */
class Exited extends Error {}

const silent = () => undefined;
/** Thrown before Emscripten sets the exit code of the whole process; its own report of memory goes nowhere. */
const containment = {
  onExit: () => {
    throw new Exited("the SQL parser gave up");
  },
  print: silent,
  printErr: silent,
};

function renew(broken: PgQueryModule): void {
  instances = instances.filter((instance) => instance !== broken);
  // With no instance left, analysis refuses; a load that fails leaves it so, which is the safe side.
  refill().catch(() => undefined);
}

async function refill(): Promise<void> {
  if (instances.length >= instancesKept) return;
  loading ??= (async () => {
    try {
      while (instances.length < instancesKept) instances.push(await createModule({ ...containment }));
    } finally {
      loading = undefined;
    }
  })();
  await loading;
}

function parseWith(instance: PgQueryModule, sql: string): TreeNode {
  const query = copyIn(instance, sql);
  const result = instance._wasm_parse_query_raw(query);
  if (result === 0) throw new Exited("the SQL parser gave nothing back");
  const error = instance.getValue(result + 8, "i32");
  const failure = error === 0 ? undefined : syntaxError(instance, error);
  const json = failure === undefined ? longText(instance, instance.getValue(result, "i32")) : "";
  // Only reached where nothing was thrown: an instance that has trapped is not called again.
  instance._free(query);
  instance._wasm_free_parse_result(result);
  if (failure !== undefined) throw failure;
  return treeFrom(json);
}

function treeFrom(json: string): TreeNode {
  try {
    const tree: unknown = JSON.parse(json);
    if (isNode(tree)) return tree;
  } catch {
    // JSON nested too deep for JSON.parse: nothing that we could walk either.
  }
  throw tooComplex();
}

/** Layout of PgQueryError in 32-bit WebAssembly: message, funcname, filename, lineno, cursorpos, context. */
function syntaxError(instance: PgQueryModule, error: number): Rejected {
  const message = instance.UTF8ToString(instance.getValue(error, "i32"));
  const cursor = instance.getValue(error + 16, "i32");
  if (message.startsWith("memory exhausted") || message.startsWith("stack depth")) return tooComplex();
  return new Rejected({
    sqlstate: "42601",
    message,
    // Counted in characters from 1 already, unlike the byte offsets in trees.
    ...(cursor > 0 ? { position: cursor } : {}),
  });
}

function callForText(instance: PgQueryModule, sql: string, call: (query: number) => number): string {
  const query = copyIn(instance, sql);
  const result = call(query);
  const text = longText(instance, result);
  instance._free(query);
  if (result !== 0) instance._wasm_free_string(result);
  return text;
}

/** The text at `pointer`; Emscripten's own way looks for its end byte by byte. */
function longText(instance: PgQueryModule, pointer: number): string {
  if (pointer === 0) return "";
  const heap = heapOf(instance);
  const end = heap.indexOf(0, pointer);
  return heap.toString("utf8", pointer, end < 0 ? heap.length : end);
}

/** Emscripten's own way goes by characters: slower, and V8 would optimise it at start, which takes 5 MB. */
function copyIn(instance: PgQueryModule, text: string): number {
  const bytes = Buffer.byteLength(text);
  const pointer = instance._malloc(bytes + 1);
  if (pointer === 0) throw new Exited("the SQL parser has no memory left");
  const heap = heapOf(instance);
  heap.write(text, pointer, bytes);
  heap[pointer + bytes] = 0;
  return pointer;
}

/** Looked up for each call: it is another one once the memory has grown. */
function heapOf(instance: PgQueryModule): Buffer {
  const { buffer, byteOffset } = instance.HEAPU8;
  return Buffer.from(buffer, byteOffset);
}

/** Cuts statements out of a text by the parser's byte offsets, which are indexes where the text is all ASCII. */
function cutter(sql: string): (item: TreeNode) => Omit<ParsedStatement, "node"> {
  const bytes = Buffer.from(sql, "utf8");
  const isAscii = bytes.length === sql.length;
  // Statements come in order: what stands before one is counted on from the last.
  let at = { byte: 0, character: 0 };
  return (item) => {
    const start = Number(item.stmt_location ?? 0);
    const length = Number(item.stmt_len ?? 0);
    const end = length === 0 ? bytes.length : start + length;
    if (isAscii) return { text: sql.slice(start, end).trim(), start, end };
    const text = bytes.toString("utf8", start, end);
    at = { byte: start, character: at.character + bytes.toString("utf8", at.byte, start).length };
    return { text: text.trim(), start: at.character, end: at.character + text.length };
  };
}
