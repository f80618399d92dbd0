/** The names as earlier statements of the same text, and SET clauses of functions, leave them. */
import type { MadeEffect, SessionEffect } from "./analysis.ts";
import type { FunctionInfo, NameResolver, PreparedInfo, RelationInfo, TypeInfo } from "./names.ts";
import { anyOfThese, asEither, renamedFrom } from "./perhaps.ts";
import { withImplicitSchemas } from "./search-path-value.ts";

/** A NameResolver that lays what a text has done so far over another one. */
export class NameOverlay implements NameResolver {
  readonly #below: NameResolver;
  #searchPath: readonly string[] | undefined;
  #isPathChanged = false;
  #isPathLate = false;
  /** Roles that the text has moved to; an unknown one is "". */
  readonly #roles = new Set<string>();
  readonly #relations = new Map<string, RelationInfo | undefined>();
  readonly #functions = new Map<string, FunctionInfo[]>();
  /** Those that the text has made; false: perhaps. */
  readonly #schemas = new Map<string, boolean>();
  /** What a schema was called before the text, by the name that it has given it. */
  readonly #formerly = new Map<string, string>();
  readonly #types = new Map<string, TypeInfo>();
  readonly #prepared = new Map<string, PreparedInfo | undefined>();
  #isAllDeallocated = false;
  #isUnknown = false;
  #hasShortLived = false;
  #hasMoved = false;
  #runsLater = false;
  #code: "relations" | "everything" | undefined;

  constructor(below: NameResolver) {
    this.#below = below;
    this.#searchPath = below.searchPath;
  }

  get version(): number {
    return this.#below.version;
  }

  get searchPath(): readonly string[] | undefined {
    return this.#searchPath;
  }

  get possiblePath(): readonly string[] {
    const below = this.#isPathChanged ? undefined : this.#below.possiblePath;
    const possible = below ?? this.#searchPath ?? [];
    return this.#roles.size === 0 ? possible : [...possible, ...this.#roles];
  }

  get hasMovedRole(): boolean {
    return this.#roles.size > 0 || this.#below.hasMovedRole === true;
  }

  get isPathLate(): boolean {
    return this.#isPathLate || this.#below.isPathLate === true;
  }

  get runsLater(): boolean {
    return this.#runsLater || this.#below.runsLater === true;
  }

  leadsBack(role: string | undefined): boolean {
    return this.#below.leadsBack?.(role) === true;
  }

  get isFresh(): boolean {
    return this.#below.isFresh;
  }

  get isAltered(): boolean {
    return this.#relations.size > 0 || this.#below.isAltered === true;
  }

  get hasMovedNames(): boolean {
    return this.#hasMoved || this.#below.hasMovedNames === true;
  }

  get definitions(): NonNullable<NameResolver["definitions"]> {
    return this.#below.definitions ?? noDefinitions;
  }

  get upkeep(): NonNullable<NameResolver["upkeep"]> {
    return this.#below.upkeep ?? noUpkeep;
  }

  /** True where what hangs on relations is not known: on temporary ones, or on any after what the text has made. */
  get hasUnknownCode(): boolean {
    return this.#code !== undefined || this.#below.hasTemporaryCode === true;
  }

  /** True once nobody can tell from the text what names mean: after a ROLLBACK of what it made, for one. */
  get isUnknown(): boolean {
    return this.#isUnknown;
  }

  /** Gives up on names for the rest of the text. */
  becomeUnknown(): void {
    this.#isUnknown = true;
  }

  /** The schema that an unqualified CREATE goes to. */
  get creationSchema(): string {
    const path = this.#searchPath ?? [];
    return path.find((schema) => schema !== "pg_temp" && schema !== "pg_catalog") ?? "public";
  }

  relationsIn(schema: string): readonly string[] {
    return this.#below.relationsIn?.(schema) ?? [];
  }

  schemasWith(name: string): readonly string[] {
    return this.#below.schemasWith?.(name) ?? [];
  }

  relation(schema: string | undefined, name: string): RelationInfo | undefined {
    const found = this.#found(schema, name);
    return found === undefined || this.#code === undefined ? found : withUnknownCode(found);
  }

  #found(schema: string | undefined, name: string): RelationInfo | undefined {
    if (schema !== undefined) return this.#relationIn(schema, name);
    if (!this.#isPathChanged && this.#relations.size + this.#formerly.size === 0)
      return this.#below.relation(undefined, name);
    return anyOfThese(this.#candidates(schema, name));
  }

  /** What the name may mean: those that may be missing, and the first that is not. */
  #candidates(schema: string | undefined, name: string): readonly RelationInfo[] {
    const found: RelationInfo[] = [];
    for (const candidate of schema === undefined ? this.possiblePath : [schema]) {
      const relation = this.#relationIn(candidate, name);
      if (relation === undefined) continue;
      const isSure = relation.mayBeMissing !== true;
      // A schema that may be missing is in no path yet.
      if (isSure && schema === undefined && this.#searchPath?.includes(candidate) !== true) continue;
      found.push(relation);
      if (isSure) break;
    }
    return found;
  }

  functions(schema: string | undefined, name: string): readonly FunctionInfo[] {
    const found = this.#functionsFound(schema, name);
    return this.#code === "everything" ? found.map(withUnknownBody) : found;
  }

  #functionsFound(schema: string | undefined, name: string): readonly FunctionInfo[] {
    if (schema !== undefined) return this.#functionsIn(schema, name);
    if (!this.#isPathChanged && this.#functions.size + this.#roles.size === 0)
      return this.#below.functions(undefined, name);
    return this.possiblePath.flatMap((candidate) => this.#functionsIn(candidate, name));
  }

  madeFunctions(schema: string, name: string): readonly FunctionInfo[] {
    const made = this.#functions.get(`${schema}.${name}`);
    const below = this.#below.madeFunctions?.(schema, name) ?? noFunctions;
    return made === undefined ? below : [...made, ...below];
  }

  isBuiltinAlone(name: string): boolean {
    const isUntouched = this.#functions.size === 0 && this.#code === undefined;
    return isUntouched && this.#below.isBuiltinAlone?.(name) === true;
  }

  operatorFunctions(schema: string | undefined, operator: string): readonly FunctionInfo[] {
    if (this.#code === "everything") return [unknownCode];
    if (schema !== undefined || (!this.#isPathChanged && this.#roles.size === 0)) {
      return this.#below.operatorFunctions(schema, operator);
    }
    return this.possiblePath.flatMap((candidate) => this.#below.operatorFunctions(candidate, operator));
  }

  type(schema: string | undefined, name: string): TypeInfo | undefined {
    const found = this.#typeFound(schema, name);
    return found === undefined || this.#code !== "everything"
      ? found
      : { ...found, functions: [unknownCode] };
  }

  #typeFound(schema: string | undefined, name: string): TypeInfo | undefined {
    let perhaps: TypeInfo | undefined;
    for (const candidate of schema === undefined ? this.possiblePath : [schema]) {
      const made = this.#types.get(`${candidate}.${name}`);
      if (made !== undefined && made.mayBeMissing !== true && this.#looksIn(schema, candidate)) return made;
      perhaps ??= made;
    }
    return this.#typeBelow(schema, name) ?? perhaps;
  }

  #looksIn(schema: string | undefined, candidate: string): boolean {
    return schema !== undefined || this.#searchPath?.includes(candidate) === true;
  }

  #typeBelow(schema: string | undefined, name: string): TypeInfo | undefined {
    if (schema === undefined && !this.#isPathChanged) return this.#below.type(undefined, name);
    let perhaps: TypeInfo | undefined;
    for (const candidate of schema === undefined ? (this.#searchPath ?? []) : [schema]) {
      const former = this.#formerly.get(candidate);
      const found =
        this.#below.type(candidate, name) ??
        (former === undefined ? undefined : this.#below.type(former, name));
      if (found !== undefined && found.mayBeMissing !== true) return found;
      perhaps ??= found;
    }
    return perhaps;
  }

  schemaExists(name: string): boolean {
    if (name === "pg_temp" || this.#schemas.has(name) || this.#formerly.has(name)) return true;
    return this.#below.schemaExists(name);
  }

  schemaMayBeMissing(name: string): boolean {
    const isSure = this.#schemas.get(name);
    return isSure === undefined ? this.#below.schemaMayBeMissing?.(name) === true : !isSure;
  }

  prepared(name: string): PreparedInfo | undefined {
    if (this.#prepared.has(name)) return this.#prepared.get(name);
    return this.#isAllDeallocated ? undefined : this.#below.prepared(name);
  }

  /** Looks unqualified names up along another path from here on; undefined: unknown. */
  setSearchPath(path: readonly string[] | undefined): void {
    // "$user" depends on who the server thinks we are; schemas that do not exist are passed over.
    const isKnown = path?.every((schema) => schema !== "$user" && !this.schemaMayBeMissing(schema)) === true;
    const existing = path?.filter((schema) => this.schemaExists(schema)) ?? [];
    this.#searchPath = isKnown ? withImplicitSchemas(existing) : undefined;
    this.#isPathChanged = true;
  }

  /** Takes over what a statement will have done once it ran. */
  apply(effect: SessionEffect): void {
    switch (effect.kind) {
      case "prepare":
        this.#prepared.set(effect.name, { parts: effect.parts, text: effect.text });
        return;
      case "deallocate":
        if (effect.name !== undefined) this.#prepared.set(effect.name, undefined);
        else this.#forgetPrepared();
        return;
      case "discardAll":
        this.#forgetPrepared();
        this.setSearchPath(undefined);
        return;
      case "setSearchPath":
        this.#isPathLate ||= effect.isLate === true;
        this.setSearchPath(this.isPathLate ? undefined : effect.path);
        return;
      case "runsLater":
        this.#runsLater = true;
        return;
      case "setRole":
        this.#roles.add(effect.role ?? "");
        // Whose schema "$user" is cannot be told any more.
        if (effect.role === undefined) this.setSearchPath(undefined);
        return;
      case "transaction":
        // SET LOCAL and an aborted SET end with the transaction: the path is then what it was, which is unknown.
        if (effect.action === "begin" || effect.action === "savepoint") return;
        if (this.#isPathChanged) this.setSearchPath(undefined);
        // What is rolled back, or dropped at commit, takes its names with it.
        if (effect.action.startsWith("rollback") && this.#hasNames()) this.#isUnknown = true;
        if (effect.action === "commit" && this.#hasShortLived) this.#isUnknown = true;
        return;
      case "createRelation":
      case "createFunction":
      case "createSchema":
      case "createType":
        this.#make(effect, true);
        return;
      case "perhaps":
        this.#make(effect.made, false);
        return;
      case "dropRelation": {
        const [found, ...others] = this.#candidates(effect.schema, effect.name);
        // Which of several it was nobody can tell: all of them stay.
        if (found !== undefined && others.length === 0)
          this.#relations.set(`${found.schema}.${found.name}`, undefined);
        return;
      }
      case "alterColumns":
        for (const found of this.#candidates(effect.schema, effect.name))
          this.#relations.set(`${found.schema}.${found.name}`, { ...found, hasUnsureColumns: true });
        return;
      case "renameRelation":
        this.#renameRelation(effect);
        return;
      case "renameSchema":
        this.#formerly.set(effect.to, this.#formerly.get(effect.name) ?? effect.name);
        return;
      case "catalogChanged":
        this.#hasMoved ||= effect.moves === true;
        if (effect.code !== undefined && this.#code !== "everything") this.#code = effect.code;
        return;
    }
  }

  #hasNames(): boolean {
    const made = this.#relations.size + this.#functions.size + this.#schemas.size + this.#types.size;
    return made + this.#formerly.size > 0;
  }

  #relationIn(schema: string, name: string): RelationInfo | undefined {
    const key = `${schema}.${name}`;
    if (this.#relations.has(key)) return this.#relations.get(key);
    const found = this.#below.relation(schema, name);
    const former = this.#formerly.get(schema);
    if (found !== undefined || former === undefined) return found;
    const relation = this.#below.relation(former, name);
    return relation === undefined ? undefined : renamedFrom(relation, { schema });
  }

  #functionsIn(schema: string, name: string): readonly FunctionInfo[] {
    const made = this.#functions.get(`${schema}.${name}`) ?? [];
    const former = this.#formerly.get(schema);
    const moved = former === undefined ? [] : this.#below.functions(former, name);
    return [...made, ...moved, ...this.#below.functions(schema, name)];
  }

  /** Takes in what is made for certain, or perhaps. */
  #make(effect: MadeEffect, isSure: boolean): void {
    if (effect.kind === "createSchema") this.#createSchema(effect.name, isSure);
    // What is made in a schema shows that it is there.
    else if (isSure && effect.schema !== undefined) this.#createSchema(effect.schema, true);
    if (effect.kind === "createRelation") this.#createRelation(effect, isSure);
    else if (effect.kind === "createFunction") this.#createFunction(effect);
    else if (effect.kind === "createType") this.#createType(effect, isSure);
  }

  #createSchema(name: string, isSure: boolean): void {
    if (isSure || !this.schemaExists(name)) this.#schemas.set(name, isSure);
  }

  #createType(effect: Extract<MadeEffect, { kind: "createType" }>, isSure: boolean): void {
    const { schema = this.creationSchema, name } = effect;
    if (!isSure && this.#typeFound(schema, name) !== undefined) return;
    const type = { schema, name, functions: [] };
    this.#types.set(`${schema}.${name}`, isSure ? type : { ...type, mayBeMissing: true });
  }

  #renameRelation(effect: Extract<SessionEffect, { kind: "renameRelation" }>): void {
    const [found, ...others] = this.#candidates(effect.schema, effect.name);
    if (others.length > 0) this.#hasMoved = true;
    if (found === undefined || others.length > 0) return;
    this.#relations.set(`${found.schema}.${found.name}`, undefined);
    this.#relations.set(`${found.schema}.${effect.to}`, renamedFrom(found, { name: effect.to }));
  }

  #forgetPrepared(): void {
    this.#prepared.clear();
    this.#isAllDeallocated = true;
  }

  #createRelation(effect: Extract<MadeEffect, { kind: "createRelation" }>, isSure: boolean): void {
    const schema = effect.temporary ? "pg_temp" : (effect.schema ?? this.creationSchema);
    const key = `${schema}.${effect.name}`;
    this.#hasShortLived ||= effect.onCommit === "drop";
    const existing = this.#relationIn(schema, effect.name);
    const made: RelationInfo = {
      schema,
      name: effect.name,
      kind: effect.relationKind,
      temporary: effect.temporary,
      columns: effect.columns,
      ...(effect.hasUnsureColumns === true ? { hasUnsureColumns: true } : {}),
      reads: effect.reads ?? [],
      children: [],
      cascades: [],
      triggers: [],
      // What a view made in this very text reads is not known to the catalog yet: writes through it are opaque.
      hasRules: effect.relationKind === "view",
      functions: effect.hasCode === true ? [unknownCode] : [],
    };
    this.#relations.set(key, joined(existing, made, isSure));
  }

  #createFunction(effect: Extract<MadeEffect, { kind: "createFunction" }>): void {
    const schema = effect.schema ?? this.creationSchema;
    const key = `${schema}.${effect.name}`;
    const info: FunctionInfo = {
      schema,
      name: effect.name,
      language: effect.language,
      ...(effect.body === undefined ? {} : { body: effect.body }),
      securityDefiner: effect.securityDefiner,
      settings: effect.settings ?? [],
    };
    this.#functions.set(key, [...(this.#functions.get(key) ?? []), info]);
  }
}

/** What is there once a relation of that name was made, perhaps, beside one that may be there already. */
function joined(existing: RelationInfo | undefined, made: RelationInfo, isSure: boolean): RelationInfo {
  if (existing === undefined) return isSure ? made : { ...made, mayBeMissing: true };
  if (!isSure) return asEither(existing, made);
  // IF NOT EXISTS keeps what is there; OR REPLACE makes a view read other things as well, by another text.
  const before = existing.mayBeMissing === true ? asEither(existing, made) : existing;
  const { definition: _, mayBeMissing: __, ...kept } = before;
  return { ...kept, reads: [...before.reads, ...made.reads], hasUnsureColumns: true };
}

const noUpkeep: NonNullable<NameResolver["upkeep"]> = new Map();
const noFunctions: readonly FunctionInfo[] = [];
const noDefinitions: NonNullable<NameResolver["definitions"]> = new Map();

/** Code that is known to be there and to nobody what it does. */
export const unknownCode: FunctionInfo = {
  schema: "uncommitted",
  name: "definition",
  language: "unknown",
  securityDefiner: false,
  settings: [],
};

/** A function of a user once its name may have been given to another. */
export function withUnknownBody(info: FunctionInfo): FunctionInfo {
  return info.schema === "pg_catalog" ? info : { ...unknownCode, schema: info.schema, name: info.name };
}

/** The relation as it is once something may hang on it that nobody has read. */
export function withUnknownCode(relation: RelationInfo): RelationInfo {
  const isSystem = relation.schema === "pg_catalog" || relation.schema === "information_schema";
  return isSystem ? relation : { ...relation, hasRules: true, functions: [unknownCode] };
}
