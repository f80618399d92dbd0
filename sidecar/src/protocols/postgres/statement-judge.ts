import type {
  Analysis,
  Command,
  CommandPart,
  NameResolver,
  SessionEffect,
  SqlRejection,
  StatementAnalysis,
  Verdict,
} from "@sallyport/policy";
import { mustBeDurable, type SessionGuard } from "../../guard/index.ts";
import { errorTable } from "../../wire/gateway-error.ts";
import { nameChangeOf } from "./application-name.ts";

/** A text with what analysis and policy say of it, and under which names that held. */
export interface Judged {
  readonly text: string;
  readonly command: Command;
  readonly verdict: Verdict;
  /** Set where the text cannot be parsed or resolved: PostgreSQL's own error. */
  readonly rejection: SqlRejection | undefined;
  readonly effects: readonly (readonly SessionEffect[])[];
  /** True where one of the effects changes what names mean. */
  readonly changesNames: boolean;
  /** True where the text may ask for COPY's own messages. */
  readonly mayCopy: boolean;
  /** True where its record must be on disk before it runs. */
  readonly needsDisk: boolean;
  readonly namesVersion: number;
  readonly policyEpoch: number;
  /** True where it executes a prepared statement by name: what the name means may change at any message. */
  readonly readsPrepared: boolean;
  /** Set where the text sets application_name: the session puts its own part in front. */
  readonly applicationName: string | undefined;
}

/** The part of a session's names that the protocol moves: it learns what succeeded and asks for fresh facts. */
export interface LiveNames extends NameResolver {
  /** True while answers hold for this session alone (its own tables, another search_path). */
  readonly isPrivate: boolean;
  /** Reads the catalog again; resolves at once where it is new enough and `force` is not set. */
  refresh(force: boolean): Promise<void>;
  /** Applies what a statement that succeeded changed. */
  apply(effect: SessionEffect): void;
  /** The server is ready: `I` idle, `T` in a transaction, `E` in a failed one; `failed` if an error came since. */
  ready(status: "I" | "T" | "E", failed: boolean): void;
  /** The server reported its search_path. */
  reportSearchPath(value: string): void;
}

/** SQL analysis as the judge calls it; `shapeOf` gives the key under which texts differ in literals alone. */
export interface SqlAnalyser {
  analyse(sql: string, names: NameResolver): Analysis;
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
  /** The session's prepared statements, to see whether an analysis asked for one. */
  readonly prepared: { readonly lookups: number };
}

/** Turns SQL text into a judged command, from the cache where every fact behind the verdict is the same. */
export class StatementJudge {
  private readonly guard: SessionGuard;
  private readonly names: LiveNames;
  private readonly analyser: SqlAnalyser;
  private readonly prepared: { readonly lookups: number };
  private shared: DecisionCache;
  private ownCache: DecisionCache | undefined;
  private epoch = 0;

  constructor(options: StatementJudgeOptions) {
    this.guard = options.guard;
    this.names = options.names;
    this.analyser = options.analyser;
    this.prepared = options.prepared;
    this.shared = options.sharedCache;
  }

  /** A new policy is in force: nothing judged before counts. */
  policyChanged(sharedCache: DecisionCache): void {
    this.shared = sharedCache;
    this.ownCache = undefined;
    this.epoch += 1;
  }

  isCurrent(judged: Judged): boolean {
    return (
      judged.verdict.cacheable &&
      !judged.readsPrepared &&
      judged.policyEpoch === this.epoch &&
      judged.namesVersion === this.names.version
    );
  }

  /** The same command under the policy in force now, where that has changed since. */
  reconsidered(judged: Judged): Judged {
    if (judged.policyEpoch === this.epoch) return judged;
    return { ...judged, verdict: this.guard.decide(judged.command), policyEpoch: this.epoch };
  }

  judge(text: string): Judged {
    const cache = this.cache();
    const exact = cache.get(text);
    if (exact !== undefined && exact.namesVersion === this.names.version) return this.stamped(exact, text);
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
    const rejection = { kind: "rejected", sqlstate, message, hint } as const;
    const command = { protocol: "postgres", text, parts: [] };
    return this.made(text, command, rejectedVerdict(rejection), rejection, []);
  }

  /** A command that has no SQL text of its own: a portal of a cursor, a function call. */
  judgeCommand(command: Command): Judged {
    return this.made(command.text, command, this.guard.decide(command), undefined, []);
  }

  /** A statement that SQL PREPARE has made: its parts are known already. */
  judgePrepared(effect: { readonly text: string; readonly parts: readonly CommandPart[] }): Judged {
    return this.judgeCommand({ protocol: "postgres", text: effect.text, parts: effect.parts });
  }

  private judgeAnew(text: string, cache: DecisionCache, shape: string | undefined): Judged {
    const { lookups } = this.prepared;
    const analysis = this.analyser.analyse(text, this.names);
    const readsPrepared = this.prepared.lookups !== lookups;
    if (analysis.kind === "rejected") {
      const command = { protocol: "postgres", text, parts: [] };
      return this.made(text, command, rejectedVerdict(analysis), analysis, []);
    }
    const command = commandOf(text, analysis.statements);
    const change = nameChangeOf(text, command.parts);
    if (change.kind === "refused") {
      return this.made(text, command, rejectedVerdict(change.rejection), change.rejection, []);
    }
    const applicationName = change.kind === "set" ? change.value : undefined;
    const verdict = command.parts.length === 0 ? emptyVerdict : this.guard.decide(command);
    const effects = analysis.statements.map((statement) => statement.effects);
    const judged = {
      ...this.made(text, command, verdict, undefined, effects),
      readsPrepared,
      applicationName,
    };
    if (verdict.cacheable && !readsPrepared) {
      cache.put(text, judged);
      if (shape !== undefined && !analysis.literalsMatter && verdict.readsText !== true)
        cache.put(shape, judged);
    }
    return judged;
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
      changesNames: changesNames(effects),
      mayCopy: /copy/i.test(text),
      needsDisk: mustBeDurable(command),
      namesVersion: this.names.version,
      policyEpoch: this.epoch,
      readsPrepared: false,
      applicationName: undefined,
    };
  }
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
