/** What one lineage analysis carries: names, what is masked, the range table of each level, and what it found. */

import type { CommandPart } from "../model.ts";
import { isReadBuiltin } from "../sql/builtin-functions.ts";
import { functionParts } from "../sql/function-parts.ts";
import { ancestorsOf, type FunctionInfo, type NameResolver, type RelationInfo } from "../sql/names.ts";
import { NameOverlay } from "../sql/overlay.ts";
import { tooComplex } from "../sql/parser.ts";
import type { TreeNode } from "../sql/tree.ts";
import { relationName } from "../sql/walk.ts";
import type { DefinitionKind } from "./definitions.ts";
import {
  clean,
  derivedFrom,
  exactly,
  type Flow,
  type FlowColumn,
  isTainted,
  nullTelling,
  objectId,
} from "./flow.ts";
import type { LineageFinding, TracedRows } from "./model.ts";
import { isNullWithArgument, isSafeAggregate, makesRows, mayTakeMasked } from "./safe-functions.ts";

/** Says which columns are masked for the one who asks. */
export interface MaskedColumns {
  /** True where nothing at all is masked. */
  readonly isEmpty: boolean;
  /** The masked columns of a relation by column name, each with its name as `schema.table.column`; undefined: none. */
  of(relation: RelationInfo, names: NameResolver): ReadonlyMap<string, string> | undefined;
  /** What the catalog keeps of masked columns that may be a value of theirs. */
  definitions(names: NameResolver): ReadonlySet<DefinitionKind>;
  /** The masked columns that say in which partition a row of the table of that name is. */
  placedBy(name: string, names: NameResolver): readonly string[];
}

/** One thing in FROM: what its alias stands for. */
export interface RangeEntry {
  readonly alias: string;
  readonly columns: readonly FlowColumn[];
  /** Set where there may be columns that are not listed: what those depend on. */
  readonly open?: Flow;
  /** What the partition tells that a row is in: its `tableoid`. */
  readonly place?: Flow;
}

/** One item of FROM: the names that it makes visible, and what `*` makes of it. */
export interface FromItem {
  readonly entries: readonly RangeEntry[];
  readonly star: readonly FlowColumn[];
  /** Columns that have a name of their own and no alias: those merged by USING. */
  readonly merged: readonly FlowColumn[];
  /** True where `*` gives columns that nobody can count. */
  readonly isStarOpen: boolean;
}

/** One level of a query. */
export interface Level {
  readonly parent: Level | undefined;
  readonly ctes: Map<string, readonly FlowColumn[]>;
  readonly items: FromItem[];
}

/** How deep views, functions and subqueries may lead into one another. */
const depthMax = 64;

/** The state of one analysis; `query`, `reach` and `body` are handed in, since files must not import in circles. */
export class Trace {
  names: NameResolver;
  readonly masked: MaskedColumns;
  readonly query: (trace: Trace, tag: string, node: TreeNode, parent: Level | undefined) => TracedRows;
  readonly reach: (trace: Trace, schema: string | undefined, name: string) => Flow;
  readonly body: (trace: Trace, info: FunctionInfo) => TracedRows | undefined;
  /** Functions whose bodies have been followed, as `schema.name`. */
  readonly followedFunctions = new Set<string>();
  readonly findings: LineageFinding[] = [];
  /** The masked values that the asker's own text names, taken together. */
  seen: Flow = clean;
  /** Relations whose masked columns have been followed, as `schema.name`. */
  readonly followed = new Set<string>();
  /** Relations of which it is not sure what columns they have, as `schema.name`. */
  readonly unsure = new Set<string>();
  /** What the defaults tell that the statement fills in: where it is only explained, its plan prints them. */
  filled: Flow = clean;
  /** True where a parameter may be an object id. */
  takesObjectIds = false;
  /** How many parts of an expression may bring a collation. */
  readonly collations = new WeakMap<object, number>();
  /** How often `*` stands for the columns of a relation. */
  stars = 0;
  /** Views being expanded. */
  readonly active = new Set<string>();
  /** Above zero inside what somebody else wrote: a view's own conditions are its author's. */
  #authored = 0;
  #depth = 0;
  /** What has been found out about functions, which depends on what names mean. */
  readonly #known = new WeakMap<NameResolver, KnownFunctions>();
  readonly #columns = new Map<RelationInfo, readonly FlowColumn[]>();
  #nodesLeft = 1_000_000;

  constructor(parts: {
    readonly names: NameResolver;
    readonly masked: MaskedColumns;
    readonly query: Trace["query"];
    readonly reach: Trace["reach"];
    readonly body: Trace["body"];
  }) {
    this.names = parts.names;
    this.masked = parts.masked;
    this.query = parts.query;
    this.reach = parts.reach;
    this.body = parts.body;
  }

  /** Another analysis of the same names: what it finds is its own. */
  apart(): Trace {
    const { names, masked, query, reach, body } = this;
    return new Trace({ names, masked, query, reach, body });
  }

  /** True where no function of that name does more than read. */
  functionOnlyReads(schema: string | undefined, name: string): boolean {
    return this.names.functions(schema, name).every((info) => this.onlyReads(info));
  }

  /** What calling any function of that name may read of masked columns, by whatever overload. */
  functionReach(schema: string | undefined, name: string): Flow {
    return remembered(this.#functions().reach, `${schema ?? ""}.${name}`, () =>
      this.reach(this, schema, name),
    );
  }

  /** What calling this function would do. */
  partsOf(info: FunctionInfo): readonly CommandPart[] {
    return remembered(this.#functions().parts, info, () => functionParts(this.names, info));
  }

  /** True for a function that changes nothing, as far as its text tells for certain. */
  onlyReads(info: FunctionInfo): boolean {
    if (info.schema === "pg_catalog") return isReadBuiltin(info.name);
    if (info.isReviewed === true) return true;
    if (info.body === undefined) return false;
    return this.partsOf(info).every(
      (part) => part.operation === "read" && part.enforcement === "authoritative",
    );
  }

  /** A call of what that name may mean with these arguments: what it gives, and what it tells or keeps of them. */
  invoke(schema: string | undefined, name: string, args: readonly Flow[]): Flow {
    const rows = this.called(schema, name);
    const reach = rows === undefined ? this.#unfollowed(schema, name) : allOf(rows);
    const isBuiltin = this.names
      .functions(schema, name)
      .every((info) => info.schema === "pg_catalog" || isSafeAggregate(info));
    // What it does beyond its result may keep the value: a setting, a notification, a table.
    const keeps = !(isBuiltin
      ? isReadBuiltin(name) && name !== "setseed" && !makesRows(name)
      : this.functionOnlyReads(schema, name));
    for (const [index, flow] of args.entries()) {
      const isSafe = isBuiltin && mayTakeMasked(name, { index, count: args.length, flow });
      if (!isSafe) this.infer(flow, `function ${name}`);
      if (keeps) this.find("store", flow, `function ${name}`);
    }
    const flow = derivedFrom([reach, ...args]);
    const isNullByArgument =
      isBuiltin && args.every((arg, index) => !isTainted(arg) || isNullWithArgument(name, index));
    return isNullByArgument ? flow : nullTelling(flow);
  }

  #unfollowed(schema: string | undefined, name: string): Flow {
    const reach = this.functionReach(schema, name);
    this.find("opaque", reach, `function ${schema === undefined ? "" : `${schema}.`}${name}`);
    return reach;
  }

  /** The rows that calling any function of that name gives, where it reads masked values and can be followed. */
  called(schema: string | undefined, name: string): TracedRows | undefined {
    if (!isTainted(this.functionReach(schema, name))) return undefined;
    const memo = this.#functions().rows;
    const key = `${schema ?? ""}.${name}`;
    const known = memo.get(key);
    if (known !== undefined) return known ?? undefined;
    const rows = this.#calledAnew(schema, name);
    memo.set(key, rows ?? null);
    return rows;
  }

  #calledAnew(schema: string | undefined, name: string): TracedRows | undefined {
    const all: TracedRows[] = [];
    for (const info of this.names.functions(schema, name)) {
      const rows = this.#followed(info);
      if (rows === undefined) return undefined;
      all.push(rows);
    }
    const [only] = all;
    return all.length === 1 && only !== undefined ? only : { columns: [], open: derivedFrom(all.map(allOf)) };
  }

  /** What is known of functions as names are now; bodies tell what they tell once. */
  #functions(): KnownFunctions {
    let known = this.#known.get(this.names);
    if (known === undefined) {
      known = {
        reach: new Map(),
        parts: new Map(),
        rows: new Map(),
        views: new Map(),
        byPath: new Map(),
      };
      this.#known.set(this.names, known);
    }
    return known;
  }

  /** The names as a function with a search_path of its own sees them. */
  namesAlong(path: readonly string[]): NameResolver {
    return remembered(this.#functions().byPath, path.join("\0"), () => {
      const names = new NameOverlay(this.names);
      names.setSearchPath(path);
      return names;
    });
  }

  #followed(info: FunctionInfo): TracedRows | undefined {
    const key = `${info.schema}.${info.name}`;
    const active = `function ${key}`;
    if (this.active.has(active)) return undefined;
    this.active.add(active);
    // A view is bound to what it reads, not to bodies: these may be the asker's, and newer than the view.
    const authored = this.#authored;
    this.#authored = 0;
    try {
      const rows = this.deeper(() => this.body(this, info));
      if (rows !== undefined) this.followedFunctions.add(key);
      return rows;
    } finally {
      this.active.delete(active);
      this.#authored = authored;
    }
  }

  /** Runs `inside` with names of its own. */
  withNames<T>(names: NameResolver, inside: () => T): T {
    const outer = this.names;
    this.names = names;
    try {
      return inside();
    } finally {
      this.names = outer;
    }
  }

  /** Code of users that a cast or an operator runs on a value, and that may read, or keep the value. */
  runs(infos: readonly FunctionInfo[], value: Flow, where: string): Flow {
    const flows = [value];
    for (const info of infos) {
      const reach = this.functionReach(info.schema, info.name);
      this.find("opaque", reach, where);
      if (isTainted(value) && !this.onlyReads(info)) this.find("store", value, where);
      flows.push(reach);
    }
    return derivedFrom(flows);
  }

  spend(): void {
    this.#nodesLeft -= 1;
    if (this.#nodesLeft < 0) throw tooComplex();
  }

  /** Notes a finding about a value, where it depends on a masked column at all. */
  find(kind: LineageFinding["kind"], flow: Flow, where: string): void {
    if (!isTainted(flow) || (this.#authored > 0 && kind !== "opaque")) return;
    this.findings.push({ kind, columns: [...flow.sources].sort(), where });
  }

  /** What the partition that a row of this relation is in tells, and of that what those above the relation tell. */
  placeOf(relation: RelationInfo): { readonly all: Flow; readonly above: Flow } {
    if (this.names.definitions === undefined || this.names.definitions.size === 0)
      return { all: clean, above: clean };
    const keysOf = (names: Iterable<string>) =>
      derivedFrom([...names].flatMap((name) => this.masked.placedBy(name, this.names).map(exactly)));
    const above = keysOf(ancestorsOf(this.names, relation));
    return { all: derivedFrom([above, keysOf([relationName(relation)])]), above };
  }

  /** Notes that a value is named; gives it back. */
  see(flow: Flow): Flow {
    if (isTainted(flow) && this.#authored === 0) this.seen = derivedFrom([this.seen, flow]);
    return flow;
  }

  /** A value whose outcome shows without being printed. */
  infer(flow: Flow, where: string): void {
    this.find("inference", flow, where);
  }

  /** Runs `inside` as the text of somebody else, whose conditions are not the asker's. */
  authored<T>(inside: () => T): T {
    this.#authored += 1;
    try {
      return this.deeper(inside);
    } finally {
      this.#authored -= 1;
    }
  }

  deeper<T>(inside: () => T): T {
    this.#depth += 1;
    try {
      if (this.#depth > depthMax) throw tooComplex();
      return inside();
    } finally {
      this.#depth -= 1;
    }
  }

  /** What a view shows: what is found on the way is noted the first time. */
  onceFor(view: RelationInfo, follow: () => TracedRows): TracedRows {
    return remembered(this.#functions().views, view, follow);
  }

  /** The columns of a stored relation, each with its flow. */
  relationColumns(relation: RelationInfo): readonly FlowColumn[] {
    return remembered(this.#columns, relation, () => this.#columnsOf(relation));
  }

  #columnsOf(relation: RelationInfo): readonly FlowColumn[] {
    const masked = this.masked.of(relation, this.names);
    this.followed.add(relationName(relation));
    // Reading a table reads its partitions, and its rows are those of what it is a part of; their columns are the same ones.
    for (const child of relation.children) this.followed.add(child);
    for (const name of ancestorsOf(this.names, relation)) this.followed.add(name);
    return relation.columns.map((name) => {
      const source = masked?.get(name);
      const unmasked = relation.schema === "pg_catalog" ? objectId : clean;
      return { name, flow: source === undefined ? unmasked : exactly(source) };
    });
  }
}

/** All that rows, or the entry of a relation, show, as one computed value. */
export function allOf({ columns, open = clean }: TracedRows): Flow {
  return derivedFrom([...columns.map((column) => column.flow), open]);
}

interface KnownFunctions {
  readonly reach: Map<string, Flow>;
  readonly parts: Map<FunctionInfo, readonly CommandPart[]>;
  /** Null where a body cannot be followed. */
  readonly rows: Map<string, TracedRows | null>;
  readonly views: Map<RelationInfo, TracedRows>;
  readonly byPath: Map<string, NameResolver>;
}

function remembered<Key, Value>(memo: Map<Key, Value>, key: Key, find: () => Value): Value {
  const known = memo.get(key);
  if (known !== undefined) return known;
  const value = find();
  memo.set(key, value);
  return value;
}

/** A level of its own below `parent`. */
export function levelBelow(parent: Level | undefined): Level {
  return { parent, ctes: new Map(), items: [] };
}

/** An item of one entry. */
export function itemOf(entry: RangeEntry): FromItem {
  return { entries: [entry], star: entry.columns, merged: [], isStarOpen: entry.open !== undefined };
}

/** Everything that can be seen from a level, as one value: what a name that nobody knows may mean. */
export function everythingIn(level: Level | undefined): Flow {
  const flows: Flow[] = [];
  for (let at = level; at !== undefined; at = at.parent) {
    for (const item of at.items) for (const entry of item.entries) flows.push(allOf(entry));
  }
  return derivedFrom(flows);
}
