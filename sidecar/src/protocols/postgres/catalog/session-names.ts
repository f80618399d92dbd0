/** What names mean in one session: the committed catalog, its search_path, and what it has changed itself. */
import {
  anyOfThese,
  asEither,
  type FunctionInfo,
  type MadeEffect,
  type PreparedInfo,
  parseSearchPath,
  type RelationInfo,
  renamedFrom,
  type SessionEffect,
  type TypeInfo,
  unknownCode,
  withImplicitSchemas,
  withUnknownBody,
  withUnknownCode,
} from "@sallyport/policy";
import type { TypeShape } from "../masking/type-shape.ts";
import type { ColumnOrigin, LiveNames } from "../statement-judge.ts";
import { type LiveCatalog, nextVersion } from "./live-catalog.ts";
import { Overlay } from "./overlay.ts";
import { none } from "./row-values.ts";
import { type PathTracker, ReportedPath, samePath, TrackedPath } from "./search-path.ts";
import { keyOf, plainRelation } from "./snapshot.ts";

/** What a session's names start from. */
export interface SessionNamesOptions {
  readonly catalog: LiveCatalog;
  /** The database account of the session: `"$user"`, and whose schemas it may enter. */
  readonly account: string;
  /** Who logged in, and whether the server holds the session to `account` all the same; absent before it is there. */
  readonly login?: { readonly user: string; readonly isHeld: boolean } | undefined;
  /** True for PostgreSQL 18 and newer, which report every change of search_path. */
  readonly reportsSearchPath: boolean;
  /** The setting's value when the session starts, as SHOW prints it. */
  readonly initialSearchPath: string;
  readonly prepared: (name: string) => PreparedInfo | undefined;
}

/** Answers from memory; learns from the effects of statements that succeeded and from the server's reports. */
export class SessionNames implements LiveNames {
  private readonly options: SessionNamesOptions;
  private readonly catalog: LiveCatalog;
  private readonly initialPath: readonly string[] | undefined;
  private readonly sharedKey: string;
  private readonly overlay = new Overlay<Change>(
    (_, change) =>
      change.isTemporary &&
      change.onCommit !== "drop" &&
      !(this.hasMoved && change.relation?.mayBeMissing === true),
  );
  private readonly path: PathTracker;
  private catalogHasChanged = false;
  /** False where nothing has run but what seldom changes the catalog. */
  private isChangeLikely = false;
  /** False where all that may have changed it is undone with the block. */
  private outlivesBlock = false;
  /** True between BEGIN and what ends it, as the server has told. */
  private isInBlock = false;
  /** True where this transaction has given things other names that no effect tells. */
  private hasMoved = false;
  /** True where code of this transaction's statements may still run. */
  private mayRunLater = false;
  private isJustRead = false;
  /** Code that this transaction has hung on relations or names, and that no catalog shows before its end. */
  private code: Extract<SessionEffect, { kind: "catalogChanged" }>["code"];
  /** Temporary relations are in nobody's catalog but the session's own: what hangs on them is never seen. */
  private temporaryHasCode = false;
  /** Roles that the session may have moved to; undefined stands for one that nobody knows. */
  private readonly roles = new Set<string | undefined>();
  private isInFailedTransaction = false;
  private usesPrepared = false;
  private isExplained = false;
  private readies = 0;
  private transactions = 0;
  private uncertainBefore = 0;
  private ownVersion = nextVersion();
  private ownVersionOf = 0;
  private resolved: ResolvedPath | undefined;

  constructor(options: SessionNamesOptions) {
    this.options = options;
    this.catalog = options.catalog;
    this.initialPath = parseSearchPath(options.initialSearchPath);
    this.forgetRoles();
    this.sharedKey = keyOf(options.account, options.initialSearchPath);
    this.path = options.reportsSearchPath
      ? new ReportedPath(this.initialPath)
      : new TrackedPath(this.initialPath);
  }

  get isFresh(): boolean {
    const isFresh = this.isJustRead ? this.catalog.isRead : this.catalog.isFresh;
    return isFresh && !this.overlay.isOverflown;
  }

  get isPrivate(): boolean {
    return (
      this.overlay.size > 0 ||
      this.code !== undefined ||
      this.usesPrepared ||
      this.hasMovedRole ||
      !samePath(this.path.current, this.initialPath)
    );
  }

  get mayChangeAtEnd(): boolean {
    return this.overlay.hasChanges || this.catalogHasChanged || this.path.hasChanges;
  }

  get version(): number {
    if (!this.isPrivate) return this.catalog.versionFor(this.sharedKey);
    if (this.ownVersionOf !== this.catalog.version) {
      this.ownVersionOf = this.catalog.version;
      this.changed();
    }
    return this.ownVersion;
  }

  get searchPath(): readonly string[] | undefined {
    return this.paths().schemas;
  }

  get possiblePath(): readonly string[] {
    return this.paths().possible;
  }

  get isPathLate(): boolean {
    return this.path.isLate;
  }

  get hasMovedRole(): boolean {
    return this.roles.size > 0;
  }

  get movedRoles(): readonly string[] {
    return [...this.roles].map((role) => role ?? "not known");
  }

  leadsBack(role: string | undefined): boolean {
    const { account, login } = this.options;
    if (login === undefined) return false;
    if (role === account) return true;
    // Where something else than the credential has set a role, nothing tells what a reset leads to.
    if (role === undefined) return login.isHeld || login.user === account;
    return role === "none" && !login.isHeld && login.user === account;
  }

  get runsLater(): boolean {
    return this.mayRunLater;
  }

  get hasMovedNames(): boolean {
    return this.hasMoved;
  }

  get definitions(): NonNullable<LiveNames["definitions"]> {
    return this.catalog.snapshot.definitions;
  }

  get upkeep(): NonNullable<LiveNames["upkeep"]> {
    return this.catalog.snapshot.upkeep;
  }

  get hasTemporaryCode(): boolean {
    const temporary = changeKey("relation", temporarySchema, "");
    return this.temporaryHasCode && [...this.overlay.keys()].some((key) => key.startsWith(temporary));
  }

  refresh(force: boolean): Promise<void> {
    return this.catalog.refresh(force);
  }

  async readAnew<T>(then: () => T): Promise<T | undefined> {
    if (!(await this.catalog.readAnew())) return undefined;
    // On a busy server the reading may have taken longer than it stays fresh for others.
    this.isJustRead = true;
    try {
      return this.isFresh ? then() : undefined;
    } finally {
      this.isJustRead = false;
    }
  }

  relationsIn(schema: string): readonly string[] {
    return this.catalog.snapshot.relationsIn(schema);
  }

  schemasWith(name: string): readonly string[] {
    return this.catalog.snapshot.schemasWith(name);
  }

  columnAt(table: number, attribute: number): ColumnOrigin | undefined {
    return this.catalog.snapshot.column(table, attribute);
  }

  typeNames(oids: readonly number[]): Promise<readonly (readonly [schema: string, name: string])[]> {
    return this.catalog.typeNames(oids);
  }

  columnType(source: string): number | undefined {
    return this.catalog.snapshot.columnType(source);
  }

  typeShape(oid: number): TypeShape | undefined {
    return this.catalog.snapshot.typeShape(oid);
  }

  relation(schema: string | undefined, name: string): RelationInfo | undefined {
    const found = this.found(schema, name);
    if (found === undefined) return undefined;
    const hasCode = this.code !== undefined || (this.temporaryHasCode && found.temporary);
    return hasCode ? withUnknownCode(found) : found;
  }

  private found(schema: string | undefined, name: string): RelationInfo | undefined {
    if (schema !== undefined) return this.relationIn(schema, name);
    const perhaps: RelationInfo[] = [];
    let uncertain: RelationInfo | undefined;
    const { schemas = [], possible } = this.paths();
    for (const candidate of possible) {
      const found = this.relationIn(candidate, name);
      if (found === undefined) continue;
      if (found.mayBeMissing === true) {
        perhaps.push(found);
        continue;
      }
      // A schema that may be missing, or that the account may not enter, is in no path.
      if (!schemas.includes(candidate)) continue;
      if (uncertain !== undefined) return anyOfThese([...perhaps, withColumnsOf(found, uncertain)]);
      if (candidate !== temporarySchema || this.isCertain(name)) return anyOfThese([...perhaps, found]);
      // It may be gone without our knowing; the name then means what it hides, and that is what is judged.
      uncertain = found;
    }
    if (uncertain === undefined) return anyOfThese(perhaps);
    return anyOfThese([...perhaps, { ...uncertain, hasUnsureColumns: true }]);
  }

  functions(schema: string | undefined, name: string): readonly FunctionInfo[] {
    const found = this.functionsFound(schema, name);
    return this.code === "everything" ? found.map(withUnknownBody) : found;
  }

  madeFunctions(schema: string, name: string): readonly FunctionInfo[] {
    if (this.overlay.size === 0) return none;
    return this.overlay.get(changeKey("function", schema, name))?.functions ?? none;
  }

  isBuiltinAlone(name: string): boolean {
    const isUntouched = !this.catalogHasChanged && this.code === undefined && !this.overlay.isOverflown;
    return isUntouched && this.catalog.snapshot.isBuiltinAlone(name);
  }

  private functionsFound(schema: string | undefined, name: string): readonly FunctionInfo[] {
    if (schema !== undefined) return this.functionsIn(schema, name);
    // Overloads are chosen by their arguments among all schemas of the path.
    return this.codePath().flatMap((candidate) => this.functionsIn(candidate, name));
  }

  operatorFunctions(schema: string | undefined, operator: string): readonly FunctionInfo[] {
    if (this.code === "everything") return [unknownCode];
    const { snapshot } = this.catalog;
    if (schema !== undefined) return snapshot.operatorFunctions(schema, operator);
    return this.codePath().flatMap((candidate) => snapshot.operatorFunctions(candidate, operator));
  }

  type(schema: string | undefined, name: string): TypeInfo | undefined {
    const found = this.typeFound(schema, name);
    return found === undefined || this.code !== "everything" ? found : { ...found, functions: [unknownCode] };
  }

  private typeFound(schema: string | undefined, name: string): TypeInfo | undefined {
    if (schema !== undefined) return this.typeIn(schema, name);
    let perhaps: TypeInfo | undefined;
    const { schemas = [], possible } = this.paths();
    for (const candidate of possible) {
      const found = this.typeIn(candidate, name);
      if (found === undefined) continue;
      if (found.mayBeMissing !== true && schemas.includes(candidate)) return found;
      if (found.mayBeMissing === true) perhaps ??= found;
    }
    return perhaps;
  }

  schemaExists(name: string): boolean {
    if (name === temporarySchema) return true;
    const change = this.overlay.get(changeKey("schema", name, ""));
    return change !== undefined || this.catalog.snapshot.schemas.has(name);
  }

  schemaMayBeMissing(name: string): boolean {
    return this.overlay.get(changeKey("schema", name, ""))?.mayBeMissing === true;
  }

  prepared(name: string): PreparedInfo | undefined {
    const found = this.options.prepared(name);
    // What is judged with it holds for this session alone, and only until the name is prepared anew.
    if (found !== undefined) {
      this.usesPrepared = true;
      this.changed();
    }
    return found;
  }

  apply(effect: SessionEffect): void {
    const isExplained = this.isExplained;
    this.isExplained = explaining.has(effect.kind);
    switch (effect.kind) {
      case "transaction":
        this.applyTransaction(effect);
        return;
      case "setSearchPath":
        if (effect.isReset === true) this.path.setInitial(effect.local);
        else this.path.set(effect.path, effect.local);
        if (effect.isLate === true) this.path.becomeLate(effect.local);
        break;
      case "setRole":
        this.roles.add(effect.role);
        break;
      case "runsLater":
        // No name means another thing: what depends on it is judged anew each time.
        this.mayRunLater = true;
        return;
      case "catalogChanged":
        this.noteChange(effect.isUnlikely !== true);
        this.hasMoved ||= effect.moves === true;
        if (effect.code !== undefined && this.code !== "everything") this.code = effect.code;
        // What drops (a cascade, a body, DISCARD TEMP) may drop temporary relations that no effect names.
        if (!isExplained) this.uncertainBefore = this.readies;
        break;
      case "createRelation":
      case "createFunction":
      case "createSchema":
      case "createType":
        this.make(effect, true);
        break;
      case "perhaps":
        this.make(effect.made, false);
        break;
      case "dropRelation":
        this.dropRelation(effect.schema, effect.name);
        break;
      case "alterColumns":
        this.alterColumns(effect.schema, effect.name);
        break;
      case "renameRelation":
        this.renameRelation(effect.schema, effect.name, effect.to);
        break;
      case "renameSchema":
        this.put("schema", effect.to, "", { was: this.formerly(effect.name) ?? effect.name });
        break;
      case "discardAll":
        this.overlay.clear();
        this.path.reset();
        this.forgetRoles();
        this.usesPrepared = false;
        break;
      case "prepare":
      case "deallocate":
        break;
    }
    this.changed();
  }

  ready(status: "I" | "T" | "E", failed: boolean): void {
    this.readies += 1;
    if (status === "I") this.endTransaction(!failed && !this.isInFailedTransaction);
    else this.isInBlock = true;
    this.isInFailedTransaction = status === "E";
    if (this.path.ready()) this.changed();
  }

  reportSearchPath(value: string): void {
    if (this.path.report(parseSearchPath(value))) this.changed();
  }

  private applyTransaction(effect: Extract<SessionEffect, { kind: "transaction" }>): void {
    const name = effect.name ?? "";
    switch (effect.action) {
      case "begin":
        return;
      case "commit":
        this.endTransaction(!this.isInFailedTransaction);
        return;
      case "rollback":
        this.endTransaction(false);
        return;
      case "savepoint":
        this.overlay.savepoint(name);
        this.path.savepoint(name);
        return;
      case "release":
        this.overlay.release(name);
        this.path.release(name);
        return;
      case "rollbackTo":
        this.overlay.rollbackTo(name);
        this.path.rollbackTo(name);
        this.isInFailedTransaction = false;
        this.changed();
        return;
    }
  }

  private endTransaction(isCommitted: boolean): void {
    this.isInFailedTransaction = false;
    this.transactions += 1;
    const hasChanged = this.overlay.hasChanges || this.overlay.isOverflown || this.catalogHasChanged;
    if (isCommitted) this.overlay.commit();
    else this.overlay.rollback();
    const pathHasChanged = this.path.end(isCommitted);
    // Even what failed may have committed in part (CREATE INDEX CONCURRENTLY, a procedure), but for what ran in a block.
    if (this.catalogHasChanged && (isCommitted || this.outlivesBlock))
      this.catalog.invalidate(this.isChangeLikely);
    this.catalogHasChanged = false;
    this.isChangeLikely = false;
    this.outlivesBlock = false;
    this.isInBlock = false;
    this.hasMoved = false;
    this.mayRunLater = false;
    if (this.code !== undefined) this.temporaryHasCode = true;
    this.code = undefined;
    if (hasChanged || pathHasChanged) this.changed();
  }

  /** Takes in what is made for certain, or perhaps. */
  private make(effect: MadeEffect, isSure: boolean): void {
    if (effect.kind === "createSchema") this.createSchema(effect.name, isSure);
    // What is made in a schema shows that it is there.
    else if (isSure && effect.schema !== undefined && this.schemaMayBeMissing(effect.schema))
      this.createSchema(effect.schema, true);
    if (effect.kind === "createRelation") this.createRelation(effect, isSure);
    else if (effect.kind === "createFunction") this.createFunction(effect);
    else if (effect.kind === "createType")
      this.createType(effect.schema ?? this.creationSchema(), effect.name, isSure);
  }

  private createSchema(name: string, isSure: boolean): void {
    if (isSure) this.put("schema", name, "", {});
    else if (!this.schemaExists(name)) this.put("schema", name, "", { mayBeMissing: true });
  }

  private createRelation(effect: Extract<MadeEffect, { kind: "createRelation" }>, isSure: boolean): void {
    const schema = effect.temporary ? temporarySchema : (effect.schema ?? this.creationSchema());
    // Where an unknown search_path puts it is learned when it is committed.
    if (schema === undefined) {
      this.noteChange();
      return;
    }
    // OR REPLACE and IF NOT EXISTS keep what hangs on a relation that is there already.
    const before = this.relationIn(schema, effect.name);
    if (!isSure) {
      this.createPerhaps(effect, schema, before);
      return;
    }
    const info: RelationInfo = {
      ...plainRelation,
      ...(before === undefined ? {} : whatHangsOn(before)),
      ...(effect.hasCode === true ? { functions: [...(before?.functions ?? []), unknownCode] } : {}),
      schema,
      name: effect.name,
      kind: effect.relationKind,
      temporary: schema === temporarySchema,
      columns: [...new Set([...(before?.columns ?? []), ...effect.columns])],
      ...(before !== undefined || effect.hasUnsureColumns === true ? { hasUnsureColumns: true } : {}),
      // A view of this transaction: what it reads is known, its text is not, so writing to it is opaque.
      reads: [...(before?.reads ?? []), ...(effect.reads ?? [])],
      hasRules: effect.relationKind === "view" || before?.hasRules === true,
    };
    this.put("relation", schema, effect.name, { relation: info, onCommit: effect.onCommit });
  }

  private createPerhaps(
    effect: Extract<MadeEffect, { kind: "createRelation" }>,
    schema: string,
    before: RelationInfo | undefined,
  ): void {
    const made: RelationInfo = {
      ...plainRelation,
      schema,
      name: effect.name,
      kind: effect.relationKind,
      temporary: schema === temporarySchema,
      columns: effect.columns,
      ...(effect.hasUnsureColumns === true ? { hasUnsureColumns: true } : {}),
      reads: effect.reads ?? [],
      hasRules: effect.relationKind === "view",
      functions: effect.hasCode === true ? [unknownCode] : [],
    };
    if (before === undefined) {
      const relation: RelationInfo = { ...made, mayBeMissing: true };
      this.put("relation", schema, effect.name, { relation, onCommit: effect.onCommit });
      return;
    }
    const relation = asEither(before, made);
    // What a function makes again with each call is said once.
    if (sizeOf(relation) > sizeOf(before) || before.hasUnsureColumns !== true) this.putOver(before, relation);
  }

  private createFunction(effect: Extract<MadeEffect, { kind: "createFunction" }>): void {
    const schema = effect.schema ?? this.creationSchema();
    if (schema === undefined) {
      this.noteChange();
      return;
    }
    const { name, language, body, securityDefiner, settings = [] } = effect;
    const made: FunctionInfo = {
      schema,
      name,
      language,
      ...(body === undefined ? {} : { body }),
      securityDefiner,
      settings,
    };
    // An overload and a replacement look alike here: both bodies count.
    const before = this.overlay.get(changeKey("function", schema, name))?.functions ?? [];
    this.put("function", schema, name, { functions: [...before.slice(-overloadsMax), made] });
  }

  private createType(schema: string | undefined, name: string, isSure: boolean): void {
    if (schema === undefined) this.noteChange();
    else if (isSure) this.put("type", schema, name, { type: { schema, name, functions: [] } });
    else if (this.typeIn(schema, name) === undefined)
      this.put("type", schema, name, { type: { schema, name, functions: [], mayBeMissing: true } });
  }

  private dropRelation(schema: string | undefined, name: string): void {
    const [found, ...others] = this.named(schema, name);
    // Which of several it was nobody can tell: all of them stay.
    if (found !== undefined && others.length === 0) this.hide(found);
    else this.noteChange();
  }

  private alterColumns(schema: string | undefined, name: string): void {
    for (const found of this.named(schema, name)) this.putOver(found, { ...found, hasUnsureColumns: true });
  }

  private renameRelation(schema: string | undefined, name: string, to: string): void {
    const [found, ...others] = this.named(schema, name);
    if (found === undefined || others.length > 0) {
      this.hasMoved ||= others.length > 0;
      this.noteChange();
      return;
    }
    const before = this.overlay.get(changeKey("relation", found.schema, name));
    this.hide(found);
    const relation = renamedFrom(found, { name: to });
    this.put("relation", found.schema, to, { relation, onCommit: before?.onCommit });
  }

  /** What a statement has just dropped or renamed, temporary ones first: those that may be missing, and the first that is not. */
  private named(schema: string | undefined, name: string): readonly RelationInfo[] {
    const found: RelationInfo[] = [];
    const { schemas = [], possible } = this.paths();
    for (const candidate of schema === undefined ? possible : [schema]) {
      const relation = this.relationIn(candidate, name);
      const isSure = relation?.mayBeMissing !== true;
      if (relation === undefined || (isSure && schema === undefined && !schemas.includes(candidate)))
        continue;
      found.push(relation);
      if (isSure) break;
    }
    return found;
  }

  /** Keeps what is known of a change beside the relation itself. */
  private putOver(before: RelationInfo, relation: RelationInfo): void {
    const change = this.overlay.get(changeKey("relation", before.schema, before.name));
    if (change === undefined) this.put("relation", before.schema, before.name, { relation });
    else this.overlay.set(changeKey("relation", before.schema, before.name), { ...change, relation });
  }

  private hide(relation: RelationInfo): void {
    if (relation.schema === temporarySchema) {
      this.overlay.set(changeKey("relation", temporarySchema, relation.name), undefined);
      return;
    }
    this.put("relation", relation.schema, relation.name, {});
  }

  private noteChange(isLikely = true): void {
    this.catalogHasChanged = true;
    this.isChangeLikely ||= isLikely;
    this.outlivesBlock ||= !this.isInBlock;
  }

  private put(family: Family, schema: string, name: string, change: Partial<Change>): void {
    const isTemporary = schema === temporarySchema;
    if (!isTemporary) this.noteChange();
    const made = { isTemporary, madeAt: this.readies, transaction: this.transactions, ...change };
    this.overlay.set(changeKey(family, schema, name), made);
  }

  private relationIn(schema: string, name: string): RelationInfo | undefined {
    if (this.overlay.size === 0) return this.catalog.snapshot.relation(schema, name);
    const change = this.overlay.get(changeKey("relation", schema, name));
    if (change !== undefined) return change.relation;
    const found = this.catalog.snapshot.relation(schema, name);
    const former = found === undefined ? this.formerly(schema) : undefined;
    if (former === undefined) return found;
    const moved = this.overlay.get(changeKey("relation", former, name));
    const relation = moved === undefined ? this.catalog.snapshot.relation(former, name) : moved.relation;
    return relation === undefined ? undefined : renamedFrom(relation, { schema });
  }

  /** What the catalog calls a schema that this transaction has given that name. */
  private formerly(schema: string): string | undefined {
    return this.overlay.size === 0 ? undefined : this.overlay.get(changeKey("schema", schema, ""))?.was;
  }

  private functionsIn(schema: string, name: string): readonly FunctionInfo[] {
    const committed = this.catalog.snapshot.functions(schema, name);
    if (this.overlay.size === 0) return committed;
    const made = (of: string) => this.madeFunctions(of, name);
    const former = this.formerly(schema);
    if (former === undefined) return [...made(schema), ...committed];
    return [...made(schema), ...made(former), ...this.catalog.snapshot.functions(former, name), ...committed];
  }

  private typeIn(schema: string, name: string): TypeInfo | undefined {
    const made = this.overlay.get(changeKey("type", schema, name))?.type;
    if (made !== undefined) return made;
    const row = this.overlay.get(changeKey("relation", schema, name))?.relation;
    if (row !== undefined) {
      const { functions, mayBeMissing } = row;
      return { schema, name, functions, ...(mayBeMissing && { mayBeMissing }) };
    }
    const former = this.formerly(schema);
    const found = this.catalog.snapshot.type(schema, name);
    return found ?? (former === undefined ? undefined : this.catalog.snapshot.type(former, name));
  }

  /** False where a temporary relation may have been dropped by something that no effect tells of. */
  private isCertain(name: string): boolean {
    const change = this.overlay.get(changeKey("relation", temporarySchema, name));
    if (change === undefined) return true;
    if (change.madeAt < this.uncertainBefore) return false;
    return change.onCommit !== undefined || change.transaction === this.transactions;
  }

  private codePath(): readonly string[] {
    return this.paths().code;
  }

  /** The path as it is now, until something of it changes. */
  private paths(): ResolvedPath {
    const { version } = this.catalog;
    if (this.resolved?.of === version) return this.resolved;
    const listed = this.listedSchemas();
    const named = this.namedSchemas();
    const possible = named === undefined ? [] : withImplicitSchemas(named);
    this.resolved = {
      of: version,
      schemas: listed === undefined ? undefined : withImplicitSchemas(listed),
      possible,
      code: possible.filter((schema) => schema !== temporarySchema),
    };
    return this.resolved;
  }

  private listedSchemas(): readonly string[] | undefined {
    const named = this.namedSchemas();
    // What another role may enter is not known.
    return this.hasMovedRole ? named : named?.filter((schema) => this.mayEnter(schema));
  }

  /** What search_path lists, also what the account may not enter. */
  private namedSchemas(): readonly string[] | undefined {
    const { current } = this.path;
    if (current === undefined) return undefined;
    if (this.roles.has(undefined) && current.includes("$user")) return undefined;
    const { account } = this.options;
    const roles = [...this.roles].filter((role) => role !== undefined);
    return current.flatMap((name) => (name === "$user" ? [account, ...roles] : [name]));
  }

  /** The server passes over schemas that do not exist or that the account may not use. */
  private mayEnter(schema: string): boolean {
    if (schema === temporarySchema) return true;
    const change = this.overlay.get(changeKey("schema", schema, ""));
    if (change !== undefined && change.was === undefined) return change.mayBeMissing !== true;
    const accounts = this.catalog.snapshot.schemas.get(change?.was ?? schema);
    return accounts === "everyone" || accounts?.has(this.options.account) === true;
  }

  /** A role that nobody holds the session to is left by DISCARD ALL on older servers, and by what an administrator says. */
  private forgetRoles(): void {
    const { account, login } = this.options;
    this.roles.clear();
    if (login !== undefined && !login.isHeld && login.user !== account) this.roles.add(login.user);
  }

  private creationSchema(): string | undefined {
    return this.listedSchemas()?.[0];
  }

  private changed(): void {
    this.ownVersion = nextVersion();
    this.resolved = undefined;
  }
}

/** Where names are looked up, under one version of the catalog. */
interface ResolvedPath {
  readonly of: number;
  readonly schemas: readonly string[] | undefined;
  /** Those, and what the account may not enter now. */
  readonly possible: readonly string[];
  /** Where functions and operators are: never in pg_temp without its name. */
  readonly code: readonly string[];
}

type Family = "relation" | "function" | "type" | "schema";
type OnCommit = Extract<SessionEffect, { kind: "createRelation" }>["onCommit"];

/** What a name means in this session; of a relation's without one: nothing, because it was dropped. */
interface Change {
  readonly isTemporary: boolean;
  readonly madeAt: number;
  readonly transaction: number;
  readonly onCommit?: OnCommit | undefined;
  readonly relation?: RelationInfo;
  readonly functions?: readonly FunctionInfo[];
  readonly type?: TypeInfo;
  /** Of a schema: whether a body may have made it, or what the catalog calls it. */
  readonly mayBeMissing?: true;
  readonly was?: string;
}

/** Effects that say all that their statement does to temporary relations. */
const explaining: ReadonlySet<SessionEffect["kind"]> = new Set([
  "createRelation",
  "createFunction",
  "createSchema",
  "createType",
  "renameRelation",
] as const);

const temporarySchema = "pg_temp";
const overloadsMax = 100;

function whatHangsOn({ children, cascades, triggers, functions }: RelationInfo): Partial<RelationInfo> {
  return { children, cascades, triggers, functions };
}

function sizeOf({ columns, reads, functions }: RelationInfo): number {
  return columns.length + reads.length + functions.length;
}

function changeKey(family: Family, schema: string, name: string): string {
  return `${family}\0${schema}\0${name}`;
}

function withColumnsOf(relation: RelationInfo, other: RelationInfo): RelationInfo {
  return {
    ...relation,
    columns: [...new Set([...relation.columns, ...other.columns])],
    hasUnsureColumns: true,
  };
}
