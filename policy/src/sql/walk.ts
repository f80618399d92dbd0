/** What one analysis carries down the tree: the names, the parts found so far, and where it stands. */
import type { ObjectRef, Operation } from "../model.ts";
import type { ReachedCode, SessionEffect } from "./analysis.ts";
import type { FunctionInfo, RelationInfo } from "./names.ts";
import type { NameOverlay } from "./overlay.ts";
import { tooComplex } from "./parser.ts";
import { PartBuilder, type PartFacts } from "./parts.ts";
import type { TreeNode } from "./tree.ts";

/** How deep functions, views and triggers may lead into one another before the statement is refused. */
const depthMax = 16;

/** Where the walk stands: in the statement itself, or in something that it reaches. */
export interface Frame {
  /** Words of the statements around: a function's DELETE inside a SELECT carries both words. */
  readonly words: readonly string[];
  /** Empty in the statement itself; below, what led here, the object that the statement names first. */
  readonly anchors: readonly ObjectRef[];
  /** EXPLAIN without ANALYZE: plans only, so that writes do not happen. */
  readonly isPlanOnly: boolean;
  /** Inside a body, whose names may mean something only when it runs. */
  readonly isBody: boolean;
  /** Inside what the server may have planned before, and keeps to as it was: a function's body, a prepared statement. */
  readonly isKept: boolean;
}

/** One level of a query: its WITH names and range table. */
export interface Scope {
  readonly parent: Scope | undefined;
  /** The word of the statement at this level. */
  readonly word: string;
  readonly ctes: Map<string, TreeNode | undefined>;
  readonly aliases: Map<string, RelationInfo | undefined>;
  /** Relations that a locking clause of this level would lock, by the alias it would name. */
  readonly locks: { readonly alias: string; readonly relation: RelationInfo }[];
}

/** The mutually recursive walkers; handed in, because a file for each concern must not import in circles. */
export interface Walkers {
  readonly expression: (walk: Walk, value: unknown, scope: Scope) => void;
  readonly query: (walk: Walk, tag: string, node: TreeNode, parent: Scope | undefined) => Scope;
  readonly statement: (walk: Walk, node: TreeNode, text: string) => string;
  readonly functionInfo: (walk: Walk, info: FunctionInfo, word: string) => void;
}

/** The state of one statement's analysis. */
export class Walk {
  names: NameOverlay;
  readonly walkers: Walkers;
  readonly parts = new PartBuilder();
  readonly effects: SessionEffect[] = [];
  /** The statements of bodies that it may run. */
  readonly inBodies: TreeNode[] = [];
  /** Functions and views that the statement reaches. */
  readonly reached = new Set<FunctionInfo | RelationInfo>();
  /** What stands further on in the search path under the name of a relation, by the relation's own. */
  readonly behind: Map<string, Map<string, RelationInfo>>;
  /** Views and functions being walked right now, against endless recursion. */
  readonly active: Set<string>;
  literalsMatter = false;
  /** How many functions of users it has come to. */
  functionsRun = 0;
  /** The function call that the statement consists of: it runs once, if the statement succeeds. */
  loneCall: TreeNode | undefined;
  /** Set by a statement after which the rest of its text cannot know what names mean. */
  namesUnknownAfter = false;
  frame: Frame = { words: [], anchors: [], isPlanOnly: false, isBody: false, isKept: false };
  #nodesLeft: number;

  constructor(
    names: NameOverlay,
    walkers: Walkers,
    nodesMax: number,
    behind = new Map<string, Map<string, RelationInfo>>(),
  ) {
    this.behind = behind;
    this.names = names;
    this.walkers = walkers;
    this.active = new Set();
    this.#nodesLeft = nodesMax;
  }

  /** Counts one node; refuses the statement once it is larger than we are ready to judge. */
  spend(): void {
    this.#nodesLeft -= 1;
    if (this.#nodesLeft < 0) throw tooComplex();
  }

  /** True in what the statement itself names. */
  get isDirect(): boolean {
    return this.frame.anchors.length === 0;
  }

  add(
    operation: Operation,
    word: string,
    objects: readonly ObjectRef[],
    more: Pick<PartFacts, "unbounded" | "looks" | "enforcement"> = {},
  ): void {
    const { words, anchors } = this.frame;
    this.parts.add({
      operation,
      words: words.length === 0 ? [word] : words.includes(word) ? words : [...words, word],
      objects: anchors.length === 0 ? objects : [...anchors, ...objects],
      ...more,
    });
  }

  /** Adds a part that nobody can read: dynamic SQL, an opaque language, a rewrite rule. */
  addOpaque(word: string, objects: readonly ObjectRef[]): void {
    this.add("execute", word, objects, { enforcement: "heuristic" });
  }

  /** An object as seen from here. */
  object(kind: ObjectRef["kind"], name: string): ObjectRef {
    return { name, kind, direct: this.isDirect };
  }

  relationObject(relation: RelationInfo): ObjectRef {
    return this.object("relation", relationName(relation));
  }

  /** Runs `inside` in another frame. */
  within(frame: Partial<Frame>, inside: () => void): void {
    const outer = this.frame;
    this.frame = { ...outer, ...frame };
    try {
      inside();
    } finally {
      this.frame = outer;
    }
  }

  /** Runs `inside` with names looked up along another path. */
  withNames(names: NameOverlay, path: readonly string[] | undefined, inside: () => void): void {
    names.setSearchPath(path);
    this.withOverlay(names, inside);
  }

  /** Runs `inside` with names of its own, which are forgotten after it. */
  withOverlay(names: NameOverlay, inside: () => void): void {
    const outer = this.names;
    this.names = names;
    try {
      inside();
    } finally {
      this.names = outer;
    }
  }

  /** Runs `inside`, whose code may run later in the transaction than the statement itself; `isSure`: it will not. */
  late(inside: () => void, isSure = false): void {
    const before = this.effects.length;
    const run = this.functionsRun;
    inside();
    if (!isSure && this.functionsRun > run) this.effects.push({ kind: "runsLater" });
    const made = this.effects.splice(before);
    this.effects.push(
      ...made.map((effect) =>
        effect.kind === "setSearchPath" ? { ...effect, isLate: true as const } : effect,
      ),
    );
  }

  /** What a body does to names, as far as the session must know: what it may have made, and that they may have changed. */
  bodyEffects(effects: readonly SessionEffect[]): void {
    for (const effect of effects) {
      if (effect.kind === "setSearchPath")
        this.effects.push({
          kind: "setSearchPath",
          local: effect.local,
          ...(effect.isLate && { isLate: true }),
        });
      else if (passing.has(effect.kind)) this.effects.push(effect);
      else if (effect.kind === "catalogChanged") this.#catalogChanged(effect);
      else if (effect.kind === "perhaps") {
        this.effects.push(effect);
        this.#catalogChanged({ kind: "catalogChanged" });
      } else if (changesColumns(effect)) {
        const { schema, name } = effect;
        this.effects.push({ kind: "alterColumns", ...(schema === undefined ? {} : { schema }), name });
        this.#catalogChanged({
          kind: "catalogChanged",
          ...(effect.kind === "renameRelation" && { moves: true }),
        });
      } else if (effect.kind !== "transaction") this.#catalogChanged({ kind: "catalogChanged" });
    }
  }

  /** Said once where the effect before it says the same. */
  #catalogChanged(effect: SessionEffect & { kind: "catalogChanged" }): void {
    const last = this.effects.at(-1);
    const isSaid =
      last?.kind === "catalogChanged" && last.code === effect.code && last.moves === effect.moves;
    if (!isSaid) this.effects.push(effect);
  }

  /** Walks what `key` stands for below `object`; a key that is being walked already adds nothing new. */
  below(key: string, object: ObjectRef, word: string, inside: () => void): void {
    if (this.active.has(key)) return;
    if (this.active.size >= depthMax) throw tooComplex();
    const { words, anchors } = this.frame;
    this.active.add(key);
    try {
      this.within(
        { words: words.includes(word) ? words : [...words, word], anchors: [...anchors, object] },
        inside,
      );
    } finally {
      this.active.delete(key);
    }
  }
}

/** Effects that are the same, whether a statement or a body has them. */
const passing: ReadonlySet<SessionEffect["kind"]> = new Set([
  "setRole",
  "discardAll",
  "deallocate",
  "runsLater",
] as const);

type NamesRelation = Extract<SessionEffect, { kind: "dropRelation" | "renameRelation" | "alterColumns" }>;

/** After these a name may stand for a relation of other columns, where a body has come to them at all. */
function changesColumns(effect: SessionEffect): effect is NamesRelation {
  return /^(drop|rename)Relation$|^alterColumns$/.test(effect.kind);
}

/** What is reached, by the texts that say what it does. */
export function codeOf(reached: Iterable<FunctionInfo | RelationInfo>): readonly ReachedCode[] {
  return [...reached].map((one) => {
    const name = `${one.schema}.${one.name}`;
    if ("kind" in one) return { name, text: one.definition ?? "" };
    const { body = "", settings, securityDefiner } = one;
    return { name, text: body, settings, securityDefiner };
  });
}

/** The name that rules speak of; temporary relations live in pg_temp whatever the server calls that schema. */
export function relationName(relation: RelationInfo): string {
  return `${relation.temporary ? "pg_temp" : relation.schema}.${relation.name}`;
}

/** A level of its own below `parent`. */
export function scopeBelow(parent: Scope | undefined, word: string): Scope {
  return { parent, word, ctes: new Map(), aliases: new Map(), locks: [] };
}
