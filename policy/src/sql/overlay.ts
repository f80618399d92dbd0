/** The names as earlier statements of the same text, and SET clauses of functions, leave them. */
import type { SessionEffect } from "./analysis.ts";
import type { FunctionInfo, NameResolver, PreparedInfo, RelationInfo, TypeInfo } from "./names.ts";
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
  readonly #schemas = new Set<string>();
  readonly #types = new Map<string, TypeInfo>();
  readonly #prepared = new Map<string, PreparedInfo | undefined>();
  #isAllDeallocated = false;
  #isUnknown = false;
  #hasShortLived = false;
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

  leadsBack(role: string | undefined): boolean {
    return this.#below.leadsBack?.(role) === true;
  }

  get isFresh(): boolean {
    return this.#below.isFresh;
  }

  get isAltered(): boolean {
    return this.#relations.size > 0 || this.#below.isAltered === true;
  }

  get definitions(): NonNullable<NameResolver["definitions"]> {
    return this.#below.definitions ?? noDefinitions;
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
    if (!this.#isPathChanged && this.#relations.size === 0) return this.#below.relation(undefined, name);
    for (const candidate of this.#searchPath ?? []) {
      const found = this.#relationIn(candidate, name);
      if (found !== undefined) return found;
    }
    return undefined;
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
    const path = schema === undefined ? (this.#searchPath ?? []) : [schema];
    for (const candidate of path) {
      const made = this.#types.get(`${candidate}.${name}`);
      if (made !== undefined) return made;
    }
    if (schema !== undefined || !this.#isPathChanged) return this.#below.type(schema, name);
    for (const candidate of path) {
      const found = this.#below.type(candidate, name);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  schemaExists(name: string): boolean {
    return name === "pg_temp" || this.#schemas.has(name) || this.#below.schemaExists(name);
  }

  prepared(name: string): PreparedInfo | undefined {
    if (this.#prepared.has(name)) return this.#prepared.get(name);
    return this.#isAllDeallocated ? undefined : this.#below.prepared(name);
  }

  /** Looks unqualified names up along another path from here on; undefined: unknown. */
  setSearchPath(path: readonly string[] | undefined): void {
    // "$user" depends on who the server thinks we are; schemas that do not exist are passed over.
    const isKnown = path !== undefined && !path.includes("$user");
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
        this.#createRelation(effect);
        return;
      case "createFunction":
        this.#createFunction(effect);
        return;
      case "createSchema":
        this.#schemas.add(effect.name);
        return;
      case "createType": {
        const schema = effect.schema ?? this.creationSchema;
        this.#types.set(`${schema}.${effect.name}`, { schema, name: effect.name, functions: [] });
        return;
      }
      case "dropRelation": {
        const found = this.relation(effect.schema, effect.name);
        if (found !== undefined) this.#relations.set(`${found.schema}.${found.name}`, undefined);
        return;
      }
      case "alterColumns": {
        const found = this.relation(effect.schema, effect.name);
        if (found === undefined) return;
        this.#relations.set(`${found.schema}.${found.name}`, { ...found, hasUnsureColumns: true });
        return;
      }
      case "renameRelation": {
        const found = this.relation(effect.schema, effect.name);
        if (found === undefined) return;
        this.#relations.set(`${found.schema}.${found.name}`, undefined);
        const old = { name: `${found.schema}.${found.name}`, kind: "relation", direct: false } as const;
        const reads = found.temporary ? found.reads : [...found.reads, old];
        this.#relations.set(`${found.schema}.${effect.to}`, { ...found, name: effect.to, reads });
        return;
      }
      case "catalogChanged":
        if (effect.code !== undefined && this.#code !== "everything") this.#code = effect.code;
        return;
    }
  }

  #hasNames(): boolean {
    return this.#relations.size + this.#functions.size + this.#schemas.size + this.#types.size > 0;
  }

  #relationIn(schema: string, name: string): RelationInfo | undefined {
    const key = `${schema}.${name}`;
    return this.#relations.has(key) ? this.#relations.get(key) : this.#below.relation(schema, name);
  }

  #functionsIn(schema: string, name: string): readonly FunctionInfo[] {
    const made = this.#functions.get(`${schema}.${name}`) ?? [];
    return [...made, ...this.#below.functions(schema, name)];
  }

  #forgetPrepared(): void {
    this.#prepared.clear();
    this.#isAllDeallocated = true;
  }

  #createRelation(effect: SessionEffect & { kind: "createRelation" }): void {
    const schema = effect.temporary ? "pg_temp" : (effect.schema ?? this.creationSchema);
    const key = `${schema}.${effect.name}`;
    this.#hasShortLived ||= effect.onCommit === "drop";
    const existing = this.#relationIn(schema, effect.name);
    if (existing !== undefined) {
      // IF NOT EXISTS keeps what is there; OR REPLACE makes a view read other things as well, by another text.
      const { definition: _, ...kept } = existing;
      const reads = [...existing.reads, ...(effect.reads ?? [])];
      this.#relations.set(key, { ...kept, reads, hasUnsureColumns: true });
      return;
    }
    this.#relations.set(key, {
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
    });
  }

  #createFunction(effect: SessionEffect & { kind: "createFunction" }): void {
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
