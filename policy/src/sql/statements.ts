/**
 * Every statement kind of PostgreSQL 18 in one table: what it does, under which word. A kind that is not here is a
 * privilege. Each handler answers with the statement's command tag.
 */
import type { Operation } from "../model.ts";
import { alterTable } from "./altered-tables.ts";
import type { SessionEffect } from "./analysis.ts";
import { walkBody } from "./bodies.ts";
import { mentionedRelations, walkRunning } from "./bound-code.ts";
import { copy } from "./copy.ts";
import { type Handler, memberObjects, namedRelation, objectWord } from "./defined-objects.ts";
import {
  createAggregate,
  createRange,
  namedObject,
  privilegeGrant,
  simpleDefinition,
} from "./definitions.ts";
import { callByName } from "./functions.ts";
import { createFunction } from "./made-functions.ts";
import { createRelation, createSchema, createTableAs, createView } from "./made-relations.ts";
import { isOff, maintenance, vacuum } from "./maintenance.ts";
import { drop, rename } from "./moved-and-dropped.ts";
import { parseStatements } from "./parser.ts";
import { Rejected } from "./rejection.ts";
import { readRelation, relationOf, writeRelation } from "./relations.ts";
import { functionSetting, settingName, storedSetting, variableSet } from "./settings.ts";
import { listOf, namesOf, nodeOf, qualifiedOf, stringOf, type TreeNode, tagOf, textOf } from "./tree.ts";
import { scopeBelow, type Walk } from "./walk.ts";

/** Judges one statement; the answer is its command tag. */
export function walkStatement(walk: Walk, wrapped: TreeNode, text: string): string {
  walk.spend();
  const tag = tagOf(wrapped) ?? "";
  const node = nodeOf(wrapped, tag) ?? {};
  const handler = Object.hasOwn(handlers, tag) ? handlers[tag] : undefined;
  if (handler !== undefined) {
    const before = walk.effects.length;
    const done = handler(walk, node, text);
    // What runs later may call it by the name that it has now: which one that is nobody follows.
    if (walk.names.runsLater && walk.effects.slice(before).some(movesCode)) walk.addOpaque(done, []);
    return done;
  }
  const word = tag
    .replace(/Stmt$/, "")
    .replace(/(?<=[a-z])(?=[A-Z])/g, " ")
    .toUpperCase();
  walk.add("privilege", word, []);
  return word;
}

function movesCode(effect: SessionEffect): boolean {
  if (effect.kind === "createFunction") return effect.language === "unknown";
  return effect.kind === "catalogChanged" && effect.moves === true;
}

const query =
  (tag: string, word: string): Handler =>
  (walk, node) => {
    walk.walkers.query(walk, tag, node, undefined);
    return word;
  };

/** A statement that is one operation on nothing that has a schema. */
const plain =
  (operation: Operation, word: string): Handler =>
  (walk) => {
    walk.add(operation, word, []);
    return word;
  };

/** A statement that is a privilege, on the object that one of its fields names. */
const privilege =
  (word: string, kind: "role" | "database" | "other" = "other", field = ""): Handler =>
  (walk, node) => {
    const name = field === "" ? "" : textOf(node, field);
    const named = name === "" ? [] : [walk.object(kind, name)];
    walk.add("privilege", word, [...named, ...mentionedRelations(walk, node)]);
    walk.effects.push({ kind: "catalogChanged" });
    return word;
  };

/** A privilege over whatever somebody owns, or lies somewhere: no name tells what that is. */
const sweeping =
  (word: string, field = ""): Handler =>
  (walk, node, text) => {
    privilege(word, "other", field)(walk, node, text);
    walk.addOpaque(word, []);
    return word;
  };

/** A publication; one for all tables names none of them. */
const publication =
  (word: string): Handler =>
  (walk, node, text) => {
    privilege(word, "other", "pubname")(walk, node, text);
    if (node.for_all_tables === true) walk.addOpaque(word, []);
    return word;
  };

/** A privilege on something that is named by its kind and a list of names: a relation, most of the time. */
const privilegeOnMember =
  (word: string, kindField: string, field = ""): Handler =>
  (walk, node) => {
    const name = field === "" ? [] : [walk.object("other", textOf(node, field))];
    walk.add("privilege", word, [...name, ...memberObjects(walk, node, textOf(node, kindField))]);
    walk.effects.push({ kind: "catalogChanged" });
    return word;
  };

const handlers: Readonly<Record<string, Handler>> = {
  SelectStmt: query("SelectStmt", "SELECT"),
  InsertStmt: query("InsertStmt", "INSERT"),
  UpdateStmt: query("UpdateStmt", "UPDATE"),
  DeleteStmt: query("DeleteStmt", "DELETE"),
  MergeStmt: query("MergeStmt", "MERGE"),
  TruncateStmt: truncate,
  CopyStmt: copy,
  ExplainStmt: explain,

  PrepareStmt: prepare,
  ExecuteStmt: (walk, node) => {
    executePrepared(walk, node);
    return "EXECUTE";
  },
  DeallocateStmt: deallocate,
  DeclareCursorStmt: declareCursor,
  FetchStmt: (walk, node) => {
    const word = node.ismove === true ? "MOVE" : "FETCH";
    walk.add("read", word, [walk.object("other", textOf(node, "portalname"))]);
    return word;
  },
  ClosePortalStmt: plain("session", "CLOSE CURSOR"),

  TransactionStmt: transaction,
  VariableSetStmt: (walk, node) => variableSet(walk, node),
  VariableShowStmt: (walk, node) => {
    walk.add("session", "SHOW", [walk.object("setting", settingName(node))]);
    return "SHOW";
  },
  DiscardStmt: discard,
  ConstraintsSetStmt: plain("session", "SET CONSTRAINTS"),
  ListenStmt: plain("session", "LISTEN"),
  UnlistenStmt: plain("session", "UNLISTEN"),
  NotifyStmt: (walk, node) => {
    walk.add("write", "NOTIFY", [walk.object("other", textOf(node, "conditionname"))]);
    return "NOTIFY";
  },

  DoStmt: doBlock,
  CallStmt: (walk, node) => {
    const call = nodeOf(node, "funccall") ?? {};
    const { schema, name } = qualifiedOf(namesOf(call, "funcname"));
    callByName(walk, { schema, name, node: call }, "CALL");
    walk.walkers.expression(walk, call, scopeBelow(undefined, "CALL"));
    return "CALL";
  },

  LockStmt: (walk, node) => {
    const rangeVars = listOf(node, "relations").map((item) => nodeOf(item, "RangeVar") ?? {});
    const objects = rangeVars.flatMap((rangeVar) => namedRelation(walk, rangeVar, false));
    walk.add("control", "LOCK", objects);
    return "LOCK TABLE";
  },
  VacuumStmt: vacuum,
  ClusterStmt: maintenance("CLUSTER"),
  ReindexStmt: (walk, node, text) => {
    // As with ALTER INDEX: those of temporary tables, and what the transaction made, have no name here.
    const isIndex = textOf(node, "kind") === "REINDEX_OBJECT_INDEX";
    return maintenance("REINDEX", isIndex)(walk, node, text);
  },
  CheckPointStmt: plain("control", "CHECKPOINT"),
  RefreshMatViewStmt: refreshView,

  CreateStmt: createRelation("CREATE TABLE", "table"),
  CreateForeignTableStmt: (walk, node, text) => {
    const base = nodeOf(node, "base") ?? {};
    walk.add("privilege", "CREATE FOREIGN TABLE", [walk.object("other", textOf(node, "servername"))]);
    createRelation("CREATE FOREIGN TABLE", "foreignTable")(walk, base, text);
    return "CREATE FOREIGN TABLE";
  },
  CreateTableAsStmt: createTableAs,
  ViewStmt: createView,
  CreateSeqStmt: createRelation("CREATE SEQUENCE", "sequence", "sequence"),
  AlterSeqStmt: namedObject("ALTER SEQUENCE", "relation", "sequence"),
  CreateSchemaStmt: createSchema,
  AlterTableStmt: alterTable,
  RenameStmt: rename,
  DropStmt: drop,
  IndexStmt: simpleDefinition("CREATE INDEX", "relation"),
  CreateStatsStmt: simpleDefinition("CREATE STATISTICS", "relations"),
  AlterStatsStmt: plain("define", "ALTER STATISTICS"),
  CreateTrigStmt: simpleDefinition("CREATE TRIGGER", "relation", "funcname"),
  RuleStmt: simpleDefinition("CREATE RULE", "relation"),
  CreateFunctionStmt: createFunction,
  AlterFunctionStmt: (walk, node) => {
    for (const item of listOf(node, "actions")) {
      const action = nodeOf(item, "DefElem");
      functionSetting(walk, nodeOf(nodeOf(action, "arg"), "VariableSetStmt"));
    }
    // What runs later finds its names along another path, or runs as somebody else.
    if (walk.names.runsLater) walk.addOpaque("ALTER FUNCTION", []);
    return namedObject("ALTER FUNCTION", "function", "func")(walk, node, "");
  },
  DefineStmt: (walk, node, text) => {
    const kind = objectWord(textOf(node, "kind"));
    if (kind === "AGGREGATE") return createAggregate(walk, node, text);
    const isType = textOf(node, "kind") === "OBJECT_TYPE";
    return namedObject(`CREATE ${kind}`, isType ? "type" : "other", "defnames")(walk, node, text);
  },
  CompositeTypeStmt: (walk, node, text) => {
    const name = nodeOf(node, "typevar") ?? {};
    const schema = name.schemaname === undefined ? {} : { schema: textOf(name, "schemaname") };
    walk.effects.push({ kind: "createType", ...schema, name: textOf(name, "relname") });
    return simpleDefinition("CREATE TYPE", "typevar")(walk, node, text);
  },
  CreateEnumStmt: namedObject("CREATE TYPE", "type", "typeName"),
  CreateRangeStmt: createRange,
  CreateDomainStmt: namedObject("CREATE DOMAIN", "type", "domainname"),
  AlterDomainStmt: alterDomain,
  AlterEnumStmt: namedObject("ALTER TYPE", "type", "typeName"),
  AlterTypeStmt: namedObject("ALTER TYPE", "type", "typeName"),
  AlterCollationStmt: namedObject("ALTER COLLATION", "other", "collname"),
  AlterOperatorStmt: plain("define", "ALTER OPERATOR"),
  CreateOpClassStmt: namedObject("CREATE OPERATOR CLASS", "other", "opclassname"),
  CreateOpFamilyStmt: namedObject("CREATE OPERATOR FAMILY", "other", "opfamilyname"),
  AlterOpFamilyStmt: namedObject("ALTER OPERATOR FAMILY", "other", "opfamilyname"),
  CreateConversionStmt: namedObject("CREATE CONVERSION", "other", "conversion_name"),
  CreateCastStmt: (walk, node, text) => namedObject("CREATE CAST", "function", "func")(walk, node, text),
  AlterTSDictionaryStmt: namedObject("ALTER TEXT SEARCH DICTIONARY", "other", "dictname"),
  AlterTSConfigurationStmt: namedObject("ALTER TEXT SEARCH CONFIGURATION", "other", "cfgname"),
  AlterObjectSchemaStmt: simpleDefinition("ALTER", "relation", "object"),
  AlterObjectDependsStmt: simpleDefinition("ALTER", "relation", "object"),
  CommentStmt: comment,
  ReplicaIdentityStmt: plain("define", "ALTER TABLE"),

  GrantStmt: privilegeGrant,
  GrantRoleStmt: (walk, node) => {
    const word = node.is_grant === true ? "GRANT" : "REVOKE";
    const roles = [...listOf(node, "granted_roles"), ...listOf(node, "grantee_roles")];
    walk.add(
      "privilege",
      word === "GRANT" ? "GRANT ROLE" : "REVOKE ROLE",
      roles.map((role) => walk.object("role", roleName(role))),
    );
    return word === "GRANT" ? "GRANT ROLE" : "REVOKE ROLE";
  },
  AlterDefaultPrivilegesStmt: privilege("ALTER DEFAULT PRIVILEGES"),
  AlterOwnerStmt: (walk, node, text) => {
    simpleDefinition("ALTER OWNER", "relation", "object", "privilege")(walk, node, text);
    return `ALTER ${objectWord(textOf(node, "objectType"))}`;
  },
  CreateRoleStmt: privilege("CREATE ROLE", "role", "role"),
  AlterRoleStmt: (walk, node) => {
    walk.add("privilege", "ALTER ROLE", [walk.object("role", roleName(nodeOf(node, "role")))]);
    return "ALTER ROLE";
  },
  AlterRoleSetStmt: (walk, node) => {
    storedSetting(nodeOf(node, "setstmt"));
    const role = nodeOf(node, "role");
    walk.add("privilege", "ALTER ROLE", [
      walk.object("role", role === undefined ? "all" : roleName(role)),
      walk.object("setting", settingName(nodeOf(node, "setstmt"))),
    ]);
    return "ALTER ROLE";
  },
  DropRoleStmt: (walk, node) => {
    walk.add(
      "privilege",
      "DROP ROLE",
      listOf(node, "roles").map((role) => walk.object("role", roleName(role))),
    );
    return "DROP ROLE";
  },
  DropOwnedStmt: sweeping("DROP OWNED"),
  ReassignOwnedStmt: sweeping("REASSIGN OWNED"),
  SecLabelStmt: privilegeOnMember("SECURITY LABEL", "objtype"),
  CreatePolicyStmt: simpleDefinition("CREATE POLICY", "table", undefined, "privilege"),
  AlterPolicyStmt: simpleDefinition("ALTER POLICY", "table", undefined, "privilege"),

  CreatedbStmt: namedDatabase("define", "CREATE DATABASE"),
  DropdbStmt: namedDatabase("define", "DROP DATABASE"),
  AlterDatabaseStmt: namedDatabase("privilege", "ALTER DATABASE"),
  AlterDatabaseRefreshCollStmt: namedDatabase("control", "ALTER DATABASE"),
  AlterDatabaseSetStmt: (walk, node, text) => {
    storedSetting(nodeOf(node, "setstmt"));
    return namedDatabase("privilege", "ALTER DATABASE")(walk, node, text);
  },
  AlterSystemStmt: (walk, node) => {
    storedSetting(nodeOf(node, "setstmt"));
    walk.add("privilege", "ALTER SYSTEM", [walk.object("setting", settingName(nodeOf(node, "setstmt")))]);
    return "ALTER SYSTEM";
  },
  LoadStmt: (walk, node) => {
    walk.add("privilege", "LOAD", [walk.object("file", textOf(node, "filename"))]);
    return "LOAD";
  },
  CreateTableSpaceStmt: privilege("CREATE TABLESPACE", "other", "tablespacename"),
  DropTableSpaceStmt: privilege("DROP TABLESPACE", "other", "tablespacename"),
  AlterTableSpaceOptionsStmt: privilege("ALTER TABLESPACE", "other", "tablespacename"),
  AlterTableMoveAllStmt: sweeping("ALTER TABLE", "orig_tablespacename"),
  CreateExtensionStmt: privilege("CREATE EXTENSION", "other", "extname"),
  AlterExtensionStmt: privilege("ALTER EXTENSION", "other", "extname"),
  AlterExtensionContentsStmt: privilegeOnMember("ALTER EXTENSION", "objtype", "extname"),
  CreateFdwStmt: privilege("CREATE FOREIGN DATA WRAPPER", "other", "fdwname"),
  AlterFdwStmt: privilege("ALTER FOREIGN DATA WRAPPER", "other", "fdwname"),
  CreateForeignServerStmt: privilege("CREATE SERVER", "other", "servername"),
  AlterForeignServerStmt: privilege("ALTER SERVER", "other", "servername"),
  CreateUserMappingStmt: privilege("CREATE USER MAPPING", "other", "servername"),
  AlterUserMappingStmt: privilege("ALTER USER MAPPING", "other", "servername"),
  DropUserMappingStmt: privilege("DROP USER MAPPING", "other", "servername"),
  ImportForeignSchemaStmt: privilege("IMPORT FOREIGN SCHEMA", "other", "server_name"),
  CreateEventTrigStmt: privilege("CREATE EVENT TRIGGER", "other", "trigname"),
  AlterEventTrigStmt: privilege("ALTER EVENT TRIGGER", "other", "trigname"),
  CreatePLangStmt: privilege("CREATE LANGUAGE", "other", "plname"),
  CreateTransformStmt: privilege("CREATE TRANSFORM", "other", "lang"),
  CreateAmStmt: privilege("CREATE ACCESS METHOD", "other", "amname"),
  CreatePublicationStmt: publication("CREATE PUBLICATION"),
  AlterPublicationStmt: publication("ALTER PUBLICATION"),
  CreateSubscriptionStmt: privilege("CREATE SUBSCRIPTION", "other", "subname"),
  AlterSubscriptionStmt: privilege("ALTER SUBSCRIPTION", "other", "subname"),
  DropSubscriptionStmt: privilege("DROP SUBSCRIPTION", "other", "subname"),
};

/** A role as statements name it; keywords such as CURRENT_USER keep their word. */
function roleName(node: TreeNode | undefined): string {
  const spec = nodeOf(node, "RoleSpec") ?? nodeOf(node, "AccessPriv") ?? node;
  const name = textOf(spec, "rolename") || textOf(spec, "priv_name");
  return name || textOf(spec, "roletype").replace("ROLESPEC_", "").toLowerCase();
}

function namedDatabase(operation: Operation, word: string): Handler {
  return (walk, node) => {
    walk.add(operation, word, [walk.object("database", textOf(node, "dbname"))]);
    return word;
  };
}

/** A new check runs on every row that has the type. */
function alterDomain(walk: Walk, node: TreeNode, text: string): string {
  if (textOf(node, "subtype") === "V") {
    // VALIDATE CONSTRAINT: the checks that are there run on every value that is there. Not below the domain as an
    // object: who may look at types may not do what their checks do.
    const { schema, name } = qualifiedOf(namesOf(node, "typeName"));
    for (const info of walk.names.type(schema, name)?.functions ?? [])
      walk.walkers.functionInfo(walk, info, "ALTER DOMAIN");
  }
  walkRunning(walk, node, scopeBelow(undefined, "ALTER DOMAIN"));
  return namedObject("ALTER DOMAIN", "type", "typeName")(walk, node, text);
}

/** Runs the view's query again and stores what it finds. */
function refreshView(walk: Walk, node: TreeNode): string {
  const word = "REFRESH MATERIALIZED VIEW";
  const relation = relationOf(walk, nodeOf(node, "relation") ?? {});
  walk.add("define", word, [walk.relationObject(relation)]);
  if (node.skipData !== true) readRelation(walk, { ...relation, kind: "view" }, word);
  return word;
}

function truncate(walk: Walk, node: TreeNode): string {
  for (const item of listOf(node, "relations")) {
    const rangeVar = nodeOf(item, "RangeVar") ?? {};
    const relation = relationOf(walk, rangeVar);
    writeRelation(walk, relation, { event: "truncate", word: "TRUNCATE", unbounded: true });
    if (textOf(node, "behavior") === "DROP_CASCADE") {
      const reached = relation.cascades.map((cascade) => ({
        name: cascade.relation,
        kind: "relation" as const,
        direct: false,
      }));
      // CASCADE follows every foreign key, those without ON DELETE CASCADE too, which only the server knows.
      walk.add("write", "TRUNCATE", [walk.relationObject(relation), ...reached], { unbounded: true });
      walk.addOpaque("TRUNCATE", [walk.relationObject(relation)]);
    }
  }
  return "TRUNCATE TABLE";
}

function comment(walk: Walk, node: TreeNode): string {
  const names = namesOf(nodeOf(nodeOf(node, "object"), "List"), "items");
  const kind = textOf(node, "objtype");
  const relationNames = kind === "OBJECT_COLUMN" ? names.slice(0, -1) : names;
  const { schema, name } = qualifiedOf(relationNames);
  const isRelation = relationKinds.has(kind) && name !== "";
  const found = isRelation ? walk.names.relation(schema, name) : undefined;
  const shown = found === undefined ? `${schema ?? walk.names.creationSchema}.${name}` : "";
  const objects = isRelation
    ? [found === undefined ? walk.object("relation", shown) : walk.relationObject(found)]
    : [];
  walk.add("define", "COMMENT", objects);
  return "COMMENT";
}

const relationKinds = new Set([
  "OBJECT_TABLE",
  "OBJECT_VIEW",
  "OBJECT_MATVIEW",
  "OBJECT_SEQUENCE",
  "OBJECT_FOREIGN_TABLE",
  "OBJECT_INDEX",
  "OBJECT_COLUMN",
]);

/** EXPLAIN plans, which reads; with ANALYZE it runs. */
function explain(walk: Walk, node: TreeNode): string {
  const analyze = listOf(node, "options")
    .map((item) => nodeOf(item, "DefElem"))
    .some((option) => textOf(option, "defname").toLowerCase() === "analyze" && !isOff(option));
  const inner = nodeOf(node, "query") ?? {};
  walk.within({ words: [...walk.frame.words, "EXPLAIN"], isPlanOnly: !analyze }, () => {
    walk.add("read", "EXPLAIN", []);
    walkStatement(walk, inner, "");
  });
  // Functions that are called immutable run while the statement is planned.
  if (!analyze) keepOnlyOfCode(walk, 0);
  return "EXPLAIN";
}

function prepare(walk: Walk, node: TreeNode, text: string): string {
  const inner = nodeOf(node, "query") ?? {};
  walkStatement(walk, inner, "");
  walk.walkers.expression(walk, node.argtypes, scopeBelow(undefined, "PREPARE"));
  walk.effects.push({ kind: "prepare", name: textOf(node, "name"), text, parts: walk.parts.build() });
  return "PREPARE";
}

/** EXECUTE does what its statement does; also below EXPLAIN and CREATE TABLE AS. */
export function executePrepared(walk: Walk, node: TreeNode): void {
  const name = textOf(node, "name");
  const prepared = walk.names.prepared(name);
  if (prepared === undefined) {
    throw new Rejected({ sqlstate: "26000", message: `prepared statement "${name}" does not exist` }, true);
  }
  if (prepared.rejection !== undefined) {
    // EXPLAIN and CREATE TABLE AS run no utility statement: the server tells so itself.
    if (walk.frame.words.every((word) => word === "EXECUTE")) throw new Rejected(prepared.rejection);
    walk.add("read", "EXECUTE", []);
    return;
  }
  for (const part of prepared.parts) {
    walk.parts.add({ ...part, words: [...new Set([...walk.frame.words, "EXECUTE", ...part.words])] });
  }
  if (prepared.parts.length === 0) walk.add("read", "EXECUTE", []);
  walkAgain(walk, prepared.text);
  walk.walkers.expression(walk, node.params, scopeBelow(undefined, "EXECUTE"));
}

/** The server plans it anew once search_path or a name has changed, so it is judged by what its names mean now as well. */
function walkAgain(walk: Walk, text: string): void {
  const key = `prepared ${text}`;
  if (text === "" || walk.active.has(key)) return;
  const [statement] = parseStatements(text);
  const inner = nodeOf(nodeOf(statement?.node, "PrepareStmt"), "query") ?? statement?.node;
  if (inner === undefined) return;
  walk.active.add(key);
  const made = walk.effects.length;
  const words = [...new Set([...walk.frame.words, "EXECUTE"])];
  walk.within({ words, isBody: true, isKept: true }, () => {
    try {
      walkStatement(walk, inner, "");
    } catch (error) {
      // Where it stands in the other text says nothing of this one.
      throw error instanceof Rejected ? error.withoutPosition() : error;
    }
  });
  keepOnlyOfCode(walk, made);
  walk.active.delete(key);
}

/** Of the effects from there on, those that functions have: what a statement itself makes is not made here, or told already. */
function keepOnlyOfCode(walk: Walk, from: number): void {
  for (const effect of walk.effects.splice(from))
    if (["setSearchPath", "setRole", "runsLater", "catalogChanged", "perhaps"].includes(effect.kind))
      walk.effects.push(effect);
}

function deallocate(walk: Walk, node: TreeNode): string {
  const name = textOf(node, "name");
  walk.add("session", "DEALLOCATE", []);
  walk.effects.push(name === "" ? { kind: "deallocate" } : { kind: "deallocate", name });
  return name === "" ? "DEALLOCATE ALL" : "DEALLOCATE";
}

function declareCursor(walk: Walk, node: TreeNode): string {
  walk.late(() => walkStatement(walk, nodeOf(node, "query") ?? {}, ""));
  return "DECLARE CURSOR";
}

function discard(walk: Walk, node: TreeNode): string {
  const target = textOf(node, "target").replace("DISCARD_", "");
  walk.add("session", `DISCARD ${target}`, []);
  if (target === "ALL") walk.effects.push({ kind: "discardAll" });
  if (target === "ALL" || target === "TEMP") {
    // Temporary relations of this session may have hidden others of their name until now; what is not temporary goes with them
    // where it is made of a temporary type.
    walk.namesUnknownAfter = true;
    walk.effects.push({ kind: "catalogChanged", isUnlikely: true });
  }
  return `DISCARD ${target}`;
}

const transactionWords: Readonly<Record<string, string>> = {
  TRANS_STMT_BEGIN: "BEGIN",
  TRANS_STMT_START: "START TRANSACTION",
  TRANS_STMT_COMMIT: "COMMIT",
  TRANS_STMT_ROLLBACK: "ROLLBACK",
  TRANS_STMT_SAVEPOINT: "SAVEPOINT",
  TRANS_STMT_RELEASE: "RELEASE",
  TRANS_STMT_ROLLBACK_TO: "ROLLBACK",
  TRANS_STMT_PREPARE: "PREPARE TRANSACTION",
  TRANS_STMT_COMMIT_PREPARED: "COMMIT PREPARED",
  TRANS_STMT_ROLLBACK_PREPARED: "ROLLBACK PREPARED",
};

const transactionActions = {
  TRANS_STMT_BEGIN: "begin",
  TRANS_STMT_START: "begin",
  TRANS_STMT_COMMIT: "commit",
  TRANS_STMT_ROLLBACK: "rollback",
  TRANS_STMT_SAVEPOINT: "savepoint",
  TRANS_STMT_RELEASE: "release",
  TRANS_STMT_ROLLBACK_TO: "rollbackTo",
  TRANS_STMT_PREPARE: "rollback",
} as const;

function transaction(walk: Walk, node: TreeNode): string {
  const kind = textOf(node, "kind");
  const word = transactionWords[kind] ?? "COMMIT PREPARED";
  // Two-phase commit reaches beyond the session: another session's work is ended by its name.
  walk.add(word.includes("PREPARE") ? "control" : "session", word, []);
  const action = transactionActions[kind as keyof typeof transactionActions];
  if (action !== undefined) {
    const name = textOf(node, "savepoint_name");
    walk.effects.push({ kind: "transaction", action, ...(name === "" ? {} : { name }) });
    if (node.chain === true) walk.effects.push({ kind: "transaction", action: "begin" });
  }
  if (word.endsWith("PREPARED")) walk.effects.push({ kind: "catalogChanged" });
  return word;
}

/** DO: the block is the statement's own text, so that what it names is named directly. */
function doBlock(walk: Walk, node: TreeNode): string {
  let language = "plpgsql";
  let body: string | undefined;
  for (const item of listOf(node, "args")) {
    const option = nodeOf(item, "DefElem");
    const value = stringOf(nodeOf(option, "arg"));
    if (textOf(option, "defname") === "language") language = (value ?? "").toLowerCase();
    else if (textOf(option, "defname") === "as") body = value;
  }
  const before = walk.parts.additions;
  walk.within({ words: [...walk.frame.words, "DO"], isBody: true }, () => {
    walkBody(walk, language, body, "DO");
  });
  if (walk.parts.additions === before) walk.add("read", "DO", []);
  return "DO";
}
