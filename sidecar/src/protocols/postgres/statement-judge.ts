import {
  type Analysis,
  type Command,
  type CommandPart,
  type CopyOutOptions,
  hideAll,
  type MaskDecision,
  type MaskedColumns,
  type NameResolver,
  type NameSetting,
  type ObjectRef,
  type Operation,
  type ReachedCode,
  type RelationInfo,
  refusedByMasks,
  type SessionEffect,
  type SessionMasking,
  type SqlRejection,
  type StatementAnalysis,
  type Verdict,
} from "@sallyport/policy";
import { mustBeDurable, type SessionGuard } from "../../guard/index.ts";
import { errorTable } from "../../wire/gateway-error.ts";
import { nameChangeOf, showsApplicationName } from "./application-name.ts";
import { encodingNamed, encodingSetBy, masksNeedUtf8 } from "./client-encodings.ts";
import type { TypeShape } from "./masking/type-shape.ts";
import { namesProcesses } from "./process-ids.ts";
import { serverName } from "./server-name.ts";

/** A text with what analysis and policy say of it, and under which names that held. */
export interface Judged {
  readonly text: string;
  readonly command: Command;
  readonly verdict: Verdict;
  /** Set where the text cannot be parsed or resolved: PostgreSQL's own error. */
  readonly rejection: SqlRejection | undefined;
  readonly effects: readonly (readonly SessionEffect[])[];
  /** What functions and views behind its names did when it was judged. */
  readonly code: readonly ReachedCode[];
  /** True where one of the effects changes what names mean. */
  readonly changesNames: boolean;
  /** True where it ends a transaction or goes back in one: names that have changed meanwhile mean what they meant before. */
  readonly endsTransaction: boolean;
  /** True where the text may ask for COPY's own messages. */
  readonly mayCopy: boolean;
  /** True where that may be data of the client. */
  readonly mayTakeData: boolean;
  /** True where its record must be on disk before it runs. */
  readonly needsDisk: boolean;
  /** True where its numbers may be those that clients know sessions by. */
  readonly namesProcesses: boolean;
  readonly namesVersion: number;
  /**
   * The names by which the server may have planned it before, where they have changed since: it is judged by both, because a plan
   * keeps to what its names meant. Absent: it is planned anew.
   */
  readonly plannedAt?: number;
  readonly policyEpoch: number;
  /** True where it makes, alters or moves functions: what that is depends on what is under way at the moment. */
  readonly makesFunctions: boolean;
  /** True where it executes a prepared statement by name: what the name means may change at any message. */
  readonly readsPrepared: boolean;
  /** The prepared statements of the session that it executes, those that they execute included. */
  readonly executes: readonly string[];
  /** How rows of each statement are hidden; undefined: they pass unread. */
  readonly masks: readonly StatementMasks[] | undefined;
  /** True where an error or notice of it may show values that are masked for the session. */
  readonly hidesErrors: boolean;
  /** True where its literals and parameters may be values that are masked for the session. */
  readonly hidesLiterals: boolean;
  /** Where the text sets application_name: the session puts its own part in front. */
  readonly nameSettings: readonly NameSetting[] | undefined;
  /** True where its one row is the session's application_name. */
  readonly showsName: boolean;
}

/** The part of a session's names that the protocol moves: it learns what succeeded and asks for fresh facts. */
export interface LiveNames extends NameResolver {
  /** Roles that the session may have moved to, for people to read. */
  readonly movedRoles?: readonly string[];
  /** True while answers hold for this session alone (its own tables, another search_path). */
  readonly isPrivate: boolean;
  /** True where the end of the transaction, or of a part of it, may change an answer. */
  readonly mayChangeAtEnd: boolean;
  /** Reads the catalog again; resolves at once where it is new enough and `force` is not set. */
  refresh(force: boolean): Promise<void>;
  /** Reads now, and does something at once with the names of that reading; undefined where it cannot be had. */
  readAnew<T>(then: () => T): Promise<T | undefined>;
  /** Applies what a statement that succeeded changed. */
  apply(effect: SessionEffect): void;
  /** The server is ready: `I` idle, `T` in a transaction, `E` in a failed one; `failed` if an error came since. */
  ready(status: "I" | "T" | "E", failed: boolean): void;
  /** The server reported its search_path. */
  reportSearchPath(value: string): void;
  /** What (table oid, attribute number) stands for in the committed catalog; absent: nobody knows. */
  columnAt?(table: number, attribute: number): ColumnOrigin | undefined;
  /** Schema and name of the committed types with these oids, an array's as its element's. */
  typeNames?(oids: readonly number[]): Promise<readonly (readonly [schema: string, name: string])[]>;
  /** The type's oid of a column given as `schema.table.column`. */
  columnType?(source: string): number | undefined;
  /** What a committed type of users' own making consists of; undefined: nobody knows. */
  typeShape?(oid: number): TypeShape | undefined;
}

/** A column by its relation; without a name, the whole row or a column that is gone. */
export interface ColumnOrigin {
  readonly relation: RelationInfo;
  readonly column: string | undefined;
}

/** SQL analysis as the judge calls it; `shapeOf` gives the key under which texts differ in literals alone. */
export interface SqlAnalyser {
  analyse(
    sql: string,
    names: NameResolver,
    options?: { readonly masked?: MaskedColumns; readonly isKept?: boolean },
  ): Analysis;
  shapeOf(sql: string): { readonly shape: string } | undefined;
}

/** Decisions already made; two generations, so that the oldest half goes at once when it is full. */
export class DecisionCache {
  private young = new Map<string, Judged>();
  private old = new Map<string, Judged>();
  private characters = 0;

  get(key: string): Judged | undefined {
    const young = this.young.get(key);
    if (young !== undefined) return young;
    const old = this.old.get(key);
    if (old !== undefined) this.put(key, old);
    return old;
  }

  put(key: string, judged: Judged): void {
    if (key.length > cachedCharactersMax / 16) return;
    this.young.set(key, judged);
    this.characters += key.length + judged.text.length;
    if (this.young.size < cachedDecisionsMax && this.characters < cachedCharactersMax) return;
    this.old = this.young;
    this.young = new Map();
    this.characters = 0;
  }
}

const cachedDecisionsMax = 2048;
const cachedCharactersMax = 2 * 1024 * 1024;

export interface StatementJudgeOptions {
  readonly guard: SessionGuard;
  readonly names: LiveNames;
  readonly analyser: SqlAnalyser;
  /** Shared by the sessions that one policy serves; each session has its own beside it for private names. */
  readonly sharedCache: DecisionCache;
  /** The session's prepared statements, to see which of them an analysis asked for. */
  readonly prepared: { takeLookedUp(): readonly string[] };
  /** What the resource lets client_encoding be beside UTF8. */
  readonly encodings?: ReadonlySet<string> | undefined;
  /** True where the session begins with one of these. */
  readonly isOutsideUtf8?: boolean;
}

/** Turns SQL text into a judged command, from the cache where every fact behind the verdict is the same. */
export class StatementJudge {
  private readonly guard: SessionGuard;
  private readonly names: LiveNames;
  private readonly analyser: SqlAnalyser;
  private readonly prepared: StatementJudgeOptions["prepared"];
  private shared: DecisionCache;
  private ownCache: DecisionCache | undefined;
  private epoch = 0;
  private masking: SessionMasking;
  private readonly encodings: ReadonlySet<string> | undefined;
  private hasLeftUtf8: boolean;

  constructor(options: StatementJudgeOptions) {
    this.guard = options.guard;
    this.names = options.names;
    this.analyser = options.analyser;
    this.prepared = options.prepared;
    this.shared = options.sharedCache;
    this.masking = options.guard.masking;
    this.encodings = options.encodings;
    this.hasLeftUtf8 = options.isOutsideUtf8 ?? false;
  }

  /** True where client_encoding is or may have been another than UTF8: from then on, whatever it is set to later. */
  get isOutsideUtf8(): boolean {
    return this.hasLeftUtf8;
  }

  /** True where the session may report this client_encoding. */
  mayBe(encoding: string): boolean {
    return this.hasLeftUtf8 && this.encodings?.has(encoding) === true;
  }

  /** A new policy is in force: nothing judged before counts. */
  policyChanged(sharedCache: DecisionCache): void {
    this.shared = sharedCache;
    this.ownCache = undefined;
    this.masking = this.guard.masking;
    this.epoch += 1;
  }

  isCurrent(judged: Judged): boolean {
    return (
      judged.verdict.cacheable &&
      !judged.readsPrepared &&
      !judged.makesFunctions &&
      judged.policyEpoch === this.epoch &&
      judged.namesVersion === this.names.version
    );
  }

  /** True where the names that it was judged by mean the same. */
  holdsForNames(judged: Judged): boolean {
    // What has no text was not judged by any.
    if (judged.text === "") return true;
    return !judged.readsPrepared && !judged.makesFunctions && judged.namesVersion === this.names.version;
  }

  /** The same command under the policy in force now, where that, or what it says at this time, has changed since. */
  reconsidered(judged: Judged): Judged {
    if (judged.policyEpoch === this.epoch) {
      if (judged.verdict.cacheable || !this.guard.followsTime) return judged;
      return { ...judged, verdict: this.guard.decide(judged.command) };
    }
    if (this.isUnmaskable) return this.rejected(judged.text, masksNeedUtf8);
    // Other masks: what the rows show must be followed again.
    if (!this.masking.isEmpty) return this.judgeAnew(judged.text, this.cache(), undefined, judged.plannedAt);
    const verdict = this.guard.decide(judged.command);
    return { ...judged, ...unmasked, verdict, policyEpoch: this.epoch };
  }

  /** `plannedAt`: the version of names by which the server may have planned the text already. */
  judge(text: string, plannedAt?: number): Judged {
    const special = this.encodings === undefined ? undefined : this.judgeEncoding(text, this.encodings);
    if (special !== undefined) return special;
    const cache = this.cache();
    const { isPrivate, version } = this.names;
    // Of names that many sessions share none is hidden behind a session's own.
    const isKept = isPrivate && plannedAt !== undefined && plannedAt !== version;
    const exact = cache.get(isKept ? keptKey(text) : text);
    if (exact !== undefined && exact.namesVersion === version) return this.stamped(exact, text);
    if (isKept) return this.judgeAnew(text, cache, undefined, plannedAt);
    const shape = this.analyser.shapeOf(text)?.shape;
    if (shape !== undefined) {
      const alike = cache.get(shape);
      if (alike !== undefined && alike.namesVersion === this.names.version) return this.stamped(alike, text);
    }
    return this.judgeAnew(text, cache, shape);
  }

  /** A text that cannot be judged because the catalog cannot be read. */
  unavailable(text: string): Judged {
    const { sqlstate, text: message } = errorTable.catalogUnavailable;
    const hint = "Try again; the gateway reads the catalog over a connection of its own.";
    return this.rejected(text, { kind: "rejected", sqlstate, message, hint });
  }

  private rejected(text: string, rejection: SqlRejection): Judged {
    const command = { protocol: "postgres", text, parts: [] };
    return this.made(text, command, rejectedVerdict(rejection), rejection, []);
  }

  /** Masks that a later policy has brought: rows and errors are no UTF-8 here, and what cannot be read cannot be masked. */
  private get isUnmaskable(): boolean {
    return this.hasLeftUtf8 && !this.masking.isEmpty;
  }

  /** A change to an encoding that the resource allows, and whatever masks cannot reach; undefined: any other text. */
  private judgeEncoding(text: string, encodings: ReadonlySet<string>): Judged | undefined {
    if (this.isUnmaskable) return this.rejected(text, masksNeedUtf8);
    const name = encodingSetBy(text);
    if (name === undefined || encodingNamed(name, encodings) === undefined) return undefined;
    if (!this.masking.isEmpty) return this.rejected(text, masksNeedUtf8);
    // Analysis knows one value alone that client_encoding may have; what the text touches is the same.
    const analysis = this.analyser.analyse("SET client_encoding TO 'UTF8'", this.names);
    if (analysis.kind === "rejected") return this.rejected(text, analysis);
    const command = commandOf(text, analysis.statements);
    // Also where it is refused or fails: what the server makes of it is not waited for.
    this.hasLeftUtf8 = true;
    const effects = analysis.statements.map((statement) => statement.effects);
    return this.made(text, command, this.guard.decide(command), undefined, effects);
  }

  /** A command that has no SQL text of its own: a portal of a cursor, a function call. */
  judgeCommand(command: Command): Judged {
    return this.made(command.text, command, this.guard.decide(command), undefined, []);
  }

  /** An Execute of a portal that SQL made: its rows are hidden as those of the cursor are. */
  judgeFetch(portal: string, command: Command): Judged {
    if (this.isUnmaskable) return this.rejected(command.text, masksNeedUtf8);
    const judged = this.judgeCommand(command);
    if (this.masking.isEmpty) return judged;
    return { ...judged, masks: [{ decision: plain, fetches: serverName(portal) }], hidesErrors: true };
  }

  /** A statement that SQL PREPARE has made: its parts are known already. */
  judgePrepared(effect: { readonly text: string; readonly parts: readonly CommandPart[] }): Judged {
    const judged = this.judgeCommand({ protocol: "postgres", text: effect.text, parts: effect.parts });
    if (this.masking.isEmpty) return judged;
    // Whoever binds it has its text followed first.
    const masks = [{ decision: hideAll }];
    return { ...judged, masks, hidesErrors: true, hidesLiterals: true, readsPrepared: true };
  }

  private judgeAnew(
    text: string,
    cache: DecisionCache,
    shape: string | undefined,
    plannedAt?: number,
  ): Judged {
    const { masking } = this;
    this.prepared.takeLookedUp();
    const isKept = plannedAt !== undefined;
    const analysis = this.analyser.analyse(text, this.names, { masked: masking.columns, isKept });
    const executes = this.prepared.takeLookedUp();
    const readsPrepared = executes.length > 0;
    if (analysis.kind === "rejected") {
      const command = { protocol: "postgres", text, parts: [] };
      // A name that is not there may be back once the server has answered.
      return {
        ...this.made(text, command, rejectedVerdict(analysis), analysis, []),
        readsPrepared,
        executes,
      };
    }
    const asked = commandOf(text, analysis.statements);
    const command = this.withWhatStandsBehind(asked, analysis.statements);
    const change = nameChangeOf(analysis.statements);
    if (change.kind === "refused") {
      return this.made(text, command, rejectedVerdict(change.rejection), change.rejection, []);
    }
    const nameSettings = change.kind === "set" ? change.settings : undefined;
    const found = masking.isEmpty ? unmasked : hiddenBy(masking, analysis.statements);
    const decided = this.decide(command, asked);
    const verdict = found.denied === undefined ? decided : refusedByMasks(decided, [found.denied]);
    const effects = analysis.statements.map((statement) => statement.effects);
    const judged = {
      ...this.made(text, command, verdict, undefined, effects),
      code: analysis.statements.flatMap(({ code = [] }) => code),
      masks: found.masks,
      hidesErrors: found.hidesErrors,
      hidesLiterals: found.hidesLiterals,
      readsPrepared,
      executes,
      nameSettings,
      showsName: showsApplicationName(text, nameSettings),
      ...(isKept && { plannedAt }),
    };
    if (verdict.cacheable && !readsPrepared && !judged.makesFunctions) {
      cache.put(isKept ? keptKey(text) : text, judged);
      if (shape !== undefined && !analysis.literalsMatter && verdict.readsText !== true)
        cache.put(shape, judged);
    }
    return judged;
  }

  /**
   * An unqualified name may mean another relation by the time when it runs, where somebody drops or moves the one that it means
   * now. Who may do that alone is judged by both; of two together the threat model tells.
   */
  private withWhatStandsBehind(command: Command, statements: readonly StatementAnalysis[]): Command {
    const behind = statements.flatMap((statement) => statement.behind ?? []);
    const more = behind.filter(({ first, isLikely }) => isLikely || this.mayPutAway(first));
    if (more.length === 0) return command;
    return { ...command, parts: [...command.parts, ...more.flatMap(({ parts }) => parts)] };
  }

  private decide(command: Command, asked: Command): Verdict {
    if (command.parts.length === 0) return emptyVerdict;
    const verdict = this.guard.decide(command);
    if (command === asked || verdict.action !== "Deny" || this.guard.decide(asked).action === "Deny")
      return verdict;
    const hint =
      "Name the schema: without it, the name may come to mean this relation, which stands further on in the search_path.";
    return { ...verdict, hint };
  }

  private mayPutAway(relation: ObjectRef): boolean {
    const dot = relation.name.indexOf(".");
    const schema = relation.name.slice(0, dot);
    const reads = this.names.relation(schema, relation.name.slice(dot + 1))?.reads ?? [];
    // By its name, by its schema's, or by that of what it hangs on: what a view reads, or something that nobody lists here.
    const ways = [
      [relation],
      [{ name: schema, kind: "schema", direct: true } as const],
      [],
      ...reads.map((read) => [{ ...read, direct: true }]),
    ];
    return puttingAway.some(({ operation, word }) =>
      ways.some((objects) => {
        const part = {
          operation,
          words: [word],
          objects,
          unbounded: false,
          enforcement: "authoritative",
        } as const;
        const verdict = this.guard.decide({ protocol: "postgres", text: "", parts: [part] });
        // Of another text than none the rules may say another thing.
        return verdict.action !== "Deny" || verdict.readsText === true;
      }),
    );
  }

  private cache(): DecisionCache {
    if (!this.names.isPrivate) return this.shared;
    this.ownCache ??= new DecisionCache();
    return this.ownCache;
  }

  private stamped(found: Judged, text: string): Judged {
    if (found.text === text && found.policyEpoch === this.epoch) return found;
    return { ...found, text, command: { ...found.command, text }, policyEpoch: this.epoch };
  }

  private made(
    text: string,
    command: Command,
    verdict: Verdict,
    rejection: SqlRejection | undefined,
    effects: readonly (readonly SessionEffect[])[],
  ): Judged {
    return {
      text,
      command,
      verdict,
      rejection,
      effects,
      code: [],
      changesNames: changesNames(effects),
      endsTransaction: endsTransaction(effects),
      mayCopy: /copy/i.test(text),
      // FROM STDOUT is the same to PostgreSQL as FROM STDIN.
      mayTakeData: /copy/i.test(text) && /std(?:in|out)/i.test(text),
      needsDisk: mustBeDurable(command),
      namesProcesses: namesProcesses(text),
      showsName: showsApplicationName(text),
      namesVersion: this.names.version,
      policyEpoch: this.epoch,
      makesFunctions: makesFunctions(command, effects),
      readsPrepared: false,
      executes: [],
      masks: undefined,
      // A text that nobody can follow may hold values, and so may the error that answers it.
      hidesErrors: rejection !== undefined && !this.masking.isEmpty,
      hidesLiterals: rejection !== undefined && !this.masking.isEmpty,
      nameSettings: undefined,
    };
  }
}

/** No text has a zero byte. */
const keptKey = (text: string): string => `\0${text}`;

/** Ways to make a name mean another relation: a drop also takes what hangs on the dropped. */
const puttingAway: readonly { readonly operation: Operation; readonly word: string }[] = [
  ...[
    "TABLE",
    "VIEW",
    "MATERIALIZED VIEW",
    "FOREIGN TABLE",
    "SEQUENCE",
    "INDEX",
    "SCHEMA",
    "EXTENSION",
  ].flatMap((kind) => [
    { operation: "define", word: `ALTER ${kind}` } as const,
    { operation: "define", word: `DROP ${kind}` } as const,
  ]),
  ...["TYPE", "DOMAIN", "FUNCTION", "ROUTINE", "AGGREGATE", "OPERATOR", "COLLATION", "CAST"].map(
    (kind) => ({ operation: "define", word: `DROP ${kind}` }) as const,
  ),
  ...["EXTENSION", "FOREIGN SERVER", "FDW", "LANGUAGE", "ACCESS METHOD"].map(
    (kind) => ({ operation: "privilege", word: `DROP ${kind}` }) as const,
  ),
  ...["ALTER EXTENSION", "REVOKE", "GRANT", "DROP OWNED"].map(
    (word) => ({ operation: "privilege", word }) as const,
  ),
];

/** How masks change one statement's rows. */
export interface StatementMasks {
  readonly decision: MaskDecision;
  /** DECLARE: the cursor that the decision is for. */
  readonly declares?: string;
  /** How many columns the text says that the rows have; absent: it does not matter. */
  readonly width?: number;
  /** True where that cursor may outlive its transaction. */
  readonly isHeld?: boolean;
  /** True where the decision holds only as long as names do: functions that its rows run may be replaced. */
  readonly runsCode?: true;
  /** FETCH: the cursor whose decision holds for the rows. */
  readonly fetches?: string;
  /** COPY TO STDOUT: how its data is written. */
  readonly copyOut?: CopyOutOptions;
}

interface Hidden extends Pick<Judged, "masks" | "hidesErrors" | "hidesLiterals"> {
  readonly denied: Extract<MaskDecision, { kind: "deny" }> | undefined;
}

const plain: MaskDecision = { kind: "plain" };
/** Statements whose rows are the server's own words, and never values of a table. */
const widthless: ReadonlySet<string> = new Set(["EXPLAIN", "SHOW"]);
const unmasked: Hidden = { masks: undefined, hidesErrors: false, hidesLiterals: false, denied: undefined };

/** What the session's masks make of a text, statement by statement. */
function hiddenBy(masking: SessionMasking, statements: readonly StatementAnalysis[]): Hidden {
  let denied: Hidden["denied"];
  let isWatched = masking.patterns.length > 0;
  let hidesErrors = false;
  let hidesLiterals = false;
  const masks = statements.map(({ text, tag, lineage, copyOut, effects, parts }): StatementMasks => {
    const decision = lineage === undefined ? plain : masking.decide(lineage);
    if (decision.kind === "deny") denied ??= decision;
    else if (copyOut?.isUtf8 === false) denied ??= otherEncoding(decision, masking);
    const { declares, fetches } = lineage ?? {};
    isWatched ||= lineage?.touches === true || declares !== undefined || fetches !== undefined;
    // Checks that were put off until now fail now, with the values of statements before.
    const runsDeferred =
      effects.some((effect) => effect.kind === "transaction" && effect.action === "commit") ||
      parts.some(({ words }) => words.some((word) => /CONSTRAINTS|TRANSACTION/.test(word)));
    hidesErrors ||= lineage?.touches === true || fetches !== undefined || runsDeferred;
    hidesLiterals ||= (lineage?.findings.length ?? 0) > 0;
    return {
      decision,
      ...(lineage?.touches === true &&
      lineage.rows.open === undefined &&
      !widthless.has(tag) &&
      fetches === undefined
        ? { width: lineage.rows.columns.length }
        : {}),
      ...(declares === undefined ? {} : { declares, isHeld: /\bhold\b/i.test(text) }),
      ...(lineage?.runsCode === true ? { runsCode: true } : {}),
      ...(fetches === undefined ? {} : { fetches }),
      ...(copyOut === undefined ? {} : { copyOut }),
    };
  });
  return { masks: isWatched ? masks : undefined, hidesErrors, hidesLiterals, denied };
}

/** COPY data in another encoding cannot be read, and what cannot be read cannot be masked. */
function otherEncoding(decision: MaskDecision, masking: SessionMasking): Hidden["denied"] {
  const choice =
    decision.kind === "mask"
      ? (decision.rest ?? decision.columns.find((one) => one !== undefined))
      : undefined;
  const ref = choice?.ref ?? masking.patterns[0]?.ref;
  if (ref === undefined) return undefined;
  const message = "COPY in another encoding than UTF8 cannot be masked for you";
  return { kind: "deny", message, hint: "Leave ENCODING out.", ref };
}

function commandOf(text: string, statements: readonly StatementAnalysis[]): Command {
  const parts =
    statements.length === 1 ? statements[0]?.parts : statements.flatMap((statement) => statement.parts);
  return { protocol: "postgres", text, parts: parts ?? [] };
}

/** Effects that say how names or the session changed; transaction words alone change nothing here. */
function changesNames(effects: readonly (readonly SessionEffect[])[]): boolean {
  return effects.some((ofStatement) => ofStatement.some((effect) => effect.kind !== "transaction"));
}

function makesFunctions(command: Command, effects: readonly (readonly SessionEffect[])[]): boolean {
  const isMade = (effect: SessionEffect) =>
    (effect.kind === "perhaps" ? effect.made : effect).kind === "createFunction" ||
    (effect.kind === "catalogChanged" && effect.moves === true);
  return (
    effects.some((ofStatement) => ofStatement.some(isMade)) ||
    command.parts.some(({ words }) => words.includes("ALTER FUNCTION"))
  );
}

function endsTransaction(effects: readonly (readonly SessionEffect[])[]): boolean {
  return effects.some((ofStatement) =>
    ofStatement.some((effect) => effect.kind === "transaction" && ending.has(effect.action)),
  );
}

const ending: ReadonlySet<string> = new Set(["commit", "rollback", "rollbackTo"]);

const emptyVerdict: Verdict = {
  action: "Allow",
  message: "",
  limits: {},
  audit: [],
  cacheable: true,
  enforcement: "authoritative",
};

// A rejection is never cached: another session may create the missing table at any time.
function rejectedVerdict(rejection: SqlRejection): Verdict {
  return {
    action: "Deny",
    message: rejection.message,
    ...(rejection.hint === undefined ? {} : { hint: rejection.hint }),
    limits: {},
    audit: [],
    cacheable: false,
    enforcement: "authoritative",
  };
}
