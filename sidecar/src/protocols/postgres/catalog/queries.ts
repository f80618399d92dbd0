/**
 * What the side connection asks PostgreSQL 14 to 18. Every name is qualified but those of operators, so that only the
 * search_path of pg_catalog under which it is asked keeps users' own out.
 */

/** The first object id that a user's own objects can have (FirstNormalObjectId). */
const firstUserOid = 16384;
/** Below it are types and functions that every server has: no type is a domain, no function outside of pg_catalog. */
const firstUnpinnedOid = 10_000;

/**
 * The hash of a catalog's rows. Each is hashed whole: `hashint8extended` folds its halves together, so that the next object of
 * the next transaction may look like the one before. `key` is where a query has the gateway's own number, without which somebody
 * who makes many objects could choose those whose hashes cancel each other out.
 */
const hashOf = (
  key: string,
  catalog: string,
  { id = "x.oid", seed = xmin, where = "true" }: HashedRows = {},
) =>
  `(SELECT pg_catalog.count(*) || ':' ||
      COALESCE(pg_catalog.bit_xor(pg_catalog.hashoidextended(${id}, (${seed}) # ${key}::pg_catalog.int8)), 0)
    FROM pg_catalog.${catalog} x WHERE ${where})`;

/** What tells rows of a catalog apart: an object id, and 64 bits more. */
interface HashedRows {
  readonly id?: string;
  readonly seed?: string;
  readonly where?: string;
}

const xmin = "x.xmin::pg_catalog.text::pg_catalog.int8";
const withXmin = (column: string) => `(${column}::pg_catalog.int8 << 32) # ${xmin}`;

// Temporary tables of other sessions come and go all the time, and nobody else can see them.
const temporarySchemas = `(SELECT n.oid FROM pg_catalog.pg_namespace n
  WHERE n.nspname ~ '^pg_(toast|temp|toast_temp)(_|$)')`;
const notTemporary = (column: string) => `x.${column} NOT IN ${temporarySchemas}`;

const isOwnColumn = `x.attrelid >= ${firstUserOid} AND x.attnum > 0
  AND x.attrelid NOT IN (SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relnamespace IN ${temporarySchemas})`;

/** The columns' part of the fingerprint: the dearest by far, as there are most of them. */
const columnsHash = (key: string) =>
  hashOf(key, "pg_attribute", { id: "x.attrelid", seed: withXmin("x.attnum"), where: isOwnColumn });

const isBuiltin = `x.oid < ${firstUserOid}`;
const isOwn = `x.oid >= ${firstUserOid}`;

/** What the server brings stands first and the columns last; no part has a blank. */
function fingerprint(key: string, ofColumns: string, ofBuiltins = hashOfBuiltins(key)): string {
  return `(${ofBuiltins} || ' ' || ${hashOfOwnButColumns(key)} || ' ' || ${ofColumns})`;
}

function hashOfBuiltins(key: string): string {
  const hashes = ["pg_class", "pg_proc", "pg_type"].map((name) => hashOf(key, name, { where: isBuiltin }));
  return `pg_catalog.concat_ws(' ', ${hashes.join(",\n  ")})`;
}

function hashOfOwnButColumns(key: string): string {
  const hashes = [
    hashOf(key, "pg_class", { where: `${isOwn} AND ${notTemporary("relnamespace")}` }),
    hashOf(key, "pg_proc", { where: isOwn }),
    hashOf(key, "pg_rewrite"),
    hashOf(key, "pg_trigger"),
    hashOf(key, "pg_namespace", { where: "x.nspname !~ '^pg_(toast_)?temp_'" }),
    hashOf(key, "pg_constraint", { where: notTemporary("connamespace") }),
    hashOf(key, "pg_statistic_ext", { where: notTemporary("stxnamespace") }),
    hashOf(key, "pg_type", { where: `${isOwn} AND ${notTemporary("typnamespace")}` }),
    ...["pg_operator", "pg_cast", "pg_policy", "pg_attrdef", "pg_enum"].map((name) => hashOf(key, name)),
    hashOf(key, "pg_aggregate", { id: "x.aggfnoid::pg_catalog.oid" }),
    hashOf(key, "pg_inherits", { id: "x.inhrelid", seed: withXmin("x.inhparent") }),
    hashOf(key, "pg_db_role_setting", { id: "x.setdatabase", seed: withXmin("x.setrole") }),
    hashOf(key, "pg_auth_members", {
      id: "x.roleid",
      seed: `pg_catalog.hashoidextended(x.grantor, ${withXmin("x.member")})`,
    }),
    hashOf(key, "pg_roles", { seed: "x.rolsuper::pg_catalog.int4 # (x.rolcanlogin::pg_catalog.int4 << 1)" }),
  ];
  return `pg_catalog.concat_ws(' ', ${hashes.join(",\n  ")})`;
}

const part = (kind: string, columns: string, from: string) =>
  `SELECT '${kind}' AS kind, pg_catalog.json_build_array(${columns})::pg_catalog.text AS data ${from}`;

const oid = (column: string) => `${column}::pg_catalog.int8`;
const isOwnFunction = (row: string) =>
  `(${row}.oid >= ${firstUnpinnedOid} AND (${row}.oid >= ${firstUserOid}
    OR ${row}.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace))`;
const isOwnSchema = (column: string) => `${column} NOT IN ${temporarySchemas}`;
const referred = `CASE d.refclassid WHEN 'pg_catalog.pg_class'::pg_catalog.regclass THEN 'relation'
  WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass THEN 'function' ELSE 'operator' END, ${oid("d.refobjid")}`;
// A domain over an array has the array's category, but a name and checks of its own.
const isArray = (row: string) => `(${row}.typcategory = 'A' AND ${row}.typtype <> 'd')`;
const elementOrItself = (row: string) =>
  oid(`CASE WHEN ${isArray(row)} THEN ${row}.typelem ELSE ${row}.oid END`);
const codeClasses = `('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass)`;

/** What an expression of `catalog` calls, charged to the relation or type that the expression belongs to. */
const uses = (catalog: string, owner: string, where: string) => `
  SELECT DISTINCT ${owner} AS owner, d.refclassid, d.refobjid
  FROM pg_catalog.pg_depend d JOIN pg_catalog.${catalog} x ON x.oid = d.objid
  WHERE d.classid = 'pg_catalog.${catalog}'::pg_catalog.regclass AND d.refclassid IN ${codeClasses} AND ${where}`;

// Whose schema it is does not matter, only that it is not the server's own.
const typeName = (row: string) => `CASE WHEN ${row}.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
  THEN ${row}.typname::pg_catalog.text ELSE 'own.' || ${row}.typname END`;

const functionNames = (oids: string) => `(SELECT COALESCE(pg_catalog.json_agg(
    pg_catalog.json_build_array(${oid("f.oid")}, fn.nspname, f.proname)), '[]'::pg_catalog.json)
  FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace fn ON fn.oid = f.pronamespace WHERE f.oid IN (${oids}))`;

// A trigger runs its function and whatever its WHEN condition calls.
const triggerFunctions = `SELECT g.tgfoid
  UNION SELECT d.refobjid FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
    AND d.objid = g.oid AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  UNION SELECT o.oprcode FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_operator o ON o.oid = d.refobjid
    WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND d.objid = g.oid
      AND d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass`;

// Functions of pg_catalog are in no pg_depend; the stored expression names them by their ids.
const calledIn = (tree: string) =>
  `pg_catalog.regexp_matches(${tree}::pg_catalog.text, ':(?:funcid|opfuncid) ([0-9]+)', 'g') found`;

const builtinUses = (
  kind: string,
  expressions: readonly (readonly [owner: string, tree: string, from: string, where?: string])[],
) =>
  part(
    kind,
    `${oid("u.owner")}, pg_catalog.string_agg(DISTINCT p.proname, ' ')`,
    `FROM (${expressions
      .map(
        ([
          owner,
          tree,
          from,
          where = "true",
        ]) => `SELECT ${owner} AS owner, found[1]::pg_catalog.oid AS function FROM pg_catalog.${from}, ${calledIn(tree)}
          WHERE ${tree} IS NOT NULL AND ${where}`,
      )
      .join(" UNION ")}) u JOIN pg_catalog.pg_proc p ON p.oid = u.function
    WHERE p.oid < ${firstUserOid} GROUP BY u.owner`,
  );

// Not the expression of a generated column.
const isPlainDefault = `(SELECT a.attgenerated = '' FROM pg_catalog.pg_attribute a
  WHERE a.attrelid = x.adrelid AND a.attnum = x.adnum)`;

/**
 * Extensions whose functions in C compute from their arguments, and neither read tables nor run SQL. Their volatile ones set
 * thresholds, but for those that draw random values, and triggers that fill a column of their row with the time or the user.
 */
const reviewedExtensions = `'btree_gin', 'btree_gist', 'citext', 'cube', 'earthdistance', 'fuzzystrmatch', 'hstore',
  'insert_username', 'intarray', 'isn', 'ltree', 'moddatetime', 'pg_trgm', 'pgcrypto', 'seg', 'unaccent', 'uuid-ossp', 'vector'`;
const volatileExtensions = "'insert_username', 'moddatetime', 'pgcrypto', 'uuid-ossp'";

/**
 * What they are called in the library, since names can be altered: of the first nobody knows what the checks of its row do, the
 * other sets something and says that it does not.
 */
const unreviewedSymbols = "'hstore_populate_record', 'accept_weak_input'";

// Types get these from superusers alone: a column of a type is read and written by them.
const isPartOfType = `d.refobjid IN (x.typinput::pg_catalog.oid, x.typoutput::pg_catalog.oid, x.typreceive::pg_catalog.oid,
  x.typsend::pg_catalog.oid, x.typmodin::pg_catalog.oid, x.typmodout::pg_catalog.oid, x.typanalyze::pg_catalog.oid,
  x.typsubscript::pg_catalog.oid)`;

const columnsOf = (list: string) => `(SELECT ${list} FROM pg_catalog.pg_attribute a
  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)`;

// Printing a definition takes a lock on all that it names. It must not wait for a transaction that holds them: that
// may be the very one whose next statement waits for this catalog.
// Nor can the server print what hangs on something that is gone: a race of older servers, or a hand in the catalog, leaves
// such a thing, and one of them must not keep everybody from reading the rest.
const isPrintable = (catalog: string, objects: string) => `(SELECT path FROM settled) IS NOT NULL
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.${catalog}'::pg_catalog.regclass
    AND d.objid IN (${objects}) AND CASE d.refclassid
      WHEN 'pg_catalog.pg_class'::pg_catalog.regclass
        THEN d.refobjid IN (SELECT relation FROM locked) OR ${isGone("pg_class")}
      ${["pg_proc", "pg_type", "pg_operator"]
        .map((of) => `WHEN 'pg_catalog.${of}'::pg_catalog.regclass THEN ${isGone(of)}`)
        .join(" ")} END)`;

const isGone = (catalog: string) => `d.refobjid NOT IN (SELECT g.oid FROM pg_catalog.${catalog} g)`;

/**
 * True where a stored expression has a literal that may be somebody's value: no NULL, boolean, zero, empty text, array or
 * object, no name of a relation, and not the modifier of the column's own type. Read from the stored form, as printing locks.
 */
const hasLiteral = (tree: string, modifier: string) => `EXISTS (SELECT FROM pg_catalog.regexp_matches(
    ${tree}::pg_catalog.text, ':consttype ([0-9]+) [^{}]*:constvalue ([0-9]+ \\[[^]]*\\])', 'g') f
  WHERE f[1] NOT IN ('16', '2205')
    AND NOT (f[1] IN ('20', '21', '23', '26', '700', '701') AND f[2] ~ '^[0-9]+ \\[( 0)+ \\]$')
    AND f[2] !~ '^(4 \\[ 16 0 0 0|6 \\[ 24 0 0 0 0 128|8 \\[ 32 0 0 0 0 0 0 (32|64)|16 \\[ 64( 0){11}( [0-9]+){4}) \\]$'
    AND NOT (f[1] = '23' AND f[2] ~ pg_catalog.format('^4 \\[ %s %s %s %s( [0-9]+)* \\]$', (${modifier}) & 255,
      ((${modifier}) >> 8) & 255, ((${modifier}) >> 16) & 255, ((${modifier}) >> 24) & 255)))`;

/** What is small, or hangs on more than can be told from its own rows: read whole each time. */
const parts: readonly string[] = [
  // A schema that its user may not enter is skipped in the search_path, so who may enter decides what a name means.
  part(
    "schema",
    `${oid("n.oid")}, n.nspname, CASE WHEN pg_catalog.has_schema_privilege('public', n.oid, 'USAGE') THEN NULL
      ELSE (SELECT pg_catalog.json_agg(r.rolname) FROM pg_catalog.pg_roles r
        WHERE r.rolname !~ '^pg_' AND pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE')) END`,
    `FROM pg_catalog.pg_namespace n WHERE ${isOwnSchema("n.oid")}`,
  ),
  part(
    "child",
    `${oid("i.inhparent")}, ${oid("i.inhrelid")}`,
    `FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhparent
      WHERE c.relkind IN ('r', 'p', 'f')`,
  ),
  part(
    "definition",
    `${oid("d.relation")}, d.kind, pg_catalog.json_agg(d.name)`,
    `FROM (
      SELECT a.attrelid AS relation, 'bound' AS kind, a.attname AS name
        FROM pg_catalog.pg_partitioned_table p JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid
        WHERE a.attnum > 0 AND NOT a.attisdropped
          AND (a.attnum = ANY (p.partattrs::pg_catalog.int2[]) OR 0 = ANY (p.partattrs::pg_catalog.int2[]))
      UNION ALL SELECT a.attrelid, 'index', a.attname
        FROM pg_catalog.pg_index x
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = x.indexrelid
          AND d.refclassid = d.classid AND d.refobjid = x.indrelid
        JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = d.refobjsubid
        WHERE x.indexrelid >= ${firstUserOid}
          AND (${hasLiteral("x.indpred", "-1")} OR ${hasLiteral("x.indexprs", "-1")})) d
      GROUP BY d.relation, d.kind`,
  ),
  // What a change of one of these columns tells of the others: it fails by their values.
  part(
    "bound",
    `${oid("b.relation")}, pg_catalog.json_agg(a.attname ORDER BY a.attnum)`,
    `FROM (
      SELECT k.conrelid AS relation, k.tableoid AS catalog, k.oid AS id, pg_catalog.unnest(k.conkey) AS number
        FROM pg_catalog.pg_constraint k WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND pg_catalog.cardinality(k.conkey) > 1
      UNION SELECT i.indrelid, 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid, d.refobjsubid
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
          AND d.objid = i.indexrelid AND d.refclassid = d.classid AND d.refobjid = i.indrelid
        WHERE i.indisunique AND i.indexrelid >= ${firstUserOid}) b
      JOIN pg_catalog.pg_attribute a ON a.attrelid = b.relation AND a.attnum = b.number
      WHERE b.number > 0 GROUP BY b.relation, b.catalog, b.id HAVING pg_catalog.count(*) > 1`,
  ),
  part(
    "cascade",
    `${oid("k.confrelid")}, ${oid("k.conrelid")}, k.confdeltype IN ('c', 'n', 'd'), k.confupdtype IN ('c', 'n', 'd')`,
    `FROM pg_catalog.pg_constraint k WHERE k.contype = 'f'
      AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))`,
  ),
  // Clones of a partitioned table's triggers count as internal before 15; those of foreign keys are all in pg_catalog.
  part(
    "trigger",
    `${oid("g.tgrelid")}, g.tgtype, ${functionNames(triggerFunctions)}, g.tgdeferrable`,
    `FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid
      WHERE g.tgenabled <> 'D'
        AND NOT (g.tgisinternal AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace)`,
  ),
  part(
    "read",
    `${oid("d.owner")}, ${referred}`,
    `FROM (SELECT DISTINCT r.ev_class AS owner, x.refclassid, x.refobjid
      FROM pg_catalog.pg_depend x JOIN pg_catalog.pg_rewrite r ON r.oid = x.objid
      WHERE x.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.ev_class >= ${firstUserOid}
        AND (x.refclassid IN ${codeClasses}
          OR (x.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND x.refobjid <> r.ev_class))) d`,
  ),
  part(
    "relationUse",
    `${oid("d.owner")}, ${referred}`,
    `FROM (${[
      uses("pg_attrdef", "x.adrelid", `NOT ${isPlainDefault}`),
      uses("pg_constraint", "x.conrelid", "x.conrelid <> 0"),
      uses("pg_policy", "x.polrelid", "true"),
      // Expressions of an index run on writes, and those of a partition key as well.
      uses(
        "pg_class",
        "COALESCE((SELECT i.indrelid FROM pg_catalog.pg_index i WHERE i.indexrelid = x.oid), x.oid)",
        `x.oid >= ${firstUserOid}`,
      ),
    ].join(" UNION ")}) d`,
  ),
  // What is computed anew from the rows that are there.
  part(
    "upkeepUse",
    `${oid("d.owner")}, ${referred}`,
    `FROM (${[
      uses(
        "pg_class",
        "(SELECT i.indrelid FROM pg_catalog.pg_index i WHERE i.indexrelid = x.oid)",
        `x.oid >= ${firstUserOid} AND x.relkind IN ('i', 'I')`,
      ),
      uses("pg_statistic_ext", "x.stxrelid", notTemporary("stxnamespace")),
    ].join(" UNION ")}) d`,
  ),
  // No read computes a default.
  part(
    "columnDefaultUse",
    `${oid("d.owner")}, ${referred}`,
    `FROM (${uses("pg_attrdef", "x.adrelid", isPlainDefault)}) d`,
  ),
  builtinUses("relationBuiltins", [
    ["x.polrelid", "x.polqual", "pg_policy x"],
    ["x.polrelid", "x.polwithcheck", "pg_policy x"],
    ["x.indrelid", "x.indexprs", "pg_index x"],
    ["x.indrelid", "x.indpred", "pg_index x"],
    ["x.tgrelid", "x.tgqual", "pg_trigger x"],
    ["x.partrelid", "x.partexprs", "pg_partitioned_table x"],
  ]),
  builtinUses("typeBuiltins", [
    ["x.contypid", "x.conbin", "pg_constraint x", "x.contypid <> 0"],
    ["x.oid", "x.typdefaultbin", "pg_type x"],
  ]),
  part(
    "typeUse",
    `${oid("d.owner")}, ${referred}`,
    `FROM (${[
      uses("pg_constraint", "x.contypid", "x.contypid <> 0"),
      uses("pg_type", "x.oid", `x.oid >= ${firstUserOid} AND NOT ${isPartOfType}`),
      uses("pg_cast", "x.casttarget", "true"),
    ].join(" UNION ")}) d`,
  ),
  // A default of a parameter runs wherever the function is called without it.
  part(
    "defaultUse",
    `${oid("d.owner")}, ${referred}`,
    `FROM (${uses("pg_proc", "x.oid", `x.proargdefaults IS NOT NULL AND x.oid >= ${firstUserOid}`)}) d`,
  ),
  builtinUses("defaultBuiltins", [["x.oid", "x.proargdefaults", "pg_proc x", isOwnFunction("x")]]),
  part(
    "type",
    `${oid("t.oid")}, ${oid("t.typnamespace")}, t.typname, ${oid("t.typbasetype")},
      (SELECT pg_catalog.json_agg(DISTINCT ${elementOrItself("m")})
        FROM (SELECT a.atttypid AS oid FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0
            UNION ALL SELECT g.rngsubtype FROM pg_catalog.pg_range g WHERE t.oid IN (g.rngtypid, g.rngmultitypid)
            UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd') u
          JOIN pg_catalog.pg_type m ON m.oid = u.oid
        WHERE m.oid >= ${firstUserOid}), ${oid("t.typarray")},
      (SELECT pg_catalog.json_agg(${oid("a.atttypid")} ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped),
      CASE WHEN t.typtype = 'e' THEN (SELECT pg_catalog.json_agg(e.enumlabel ORDER BY e.enumsortorder)
        FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid) END`,
    `FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
      WHERE (c.oid IS NULL OR c.relkind = 'c') AND NOT ${isArray("t")} AND ${isOwnSchema("t.typnamespace")}
        AND (t.oid >= ${firstUserOid} OR t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace
          OR EXISTS (SELECT FROM pg_catalog.pg_cast k WHERE k.casttarget = t.oid AND k.castfunc >= ${firstUserOid}))`,
  ),
  // An aggregate is what its support functions are: it is told as a body that calls them.
  part(
    "function",
    `${oid("p.oid")}, ${oid("p.pronamespace")}, p.proname,
      CASE WHEN p.prokind = 'a' THEN 'sql' ELSE l.lanname END,
      CASE WHEN p.prokind = 'a' THEN (SELECT 'SELECT ' || pg_catalog.string_agg(DISTINCT
          pg_catalog.format('%I.%I()', fn.nspname, f.proname), ', ')
        FROM pg_catalog.pg_aggregate g JOIN pg_catalog.pg_proc f ON f.oid IN (g.aggtransfn, g.aggfinalfn, g.aggcombinefn,
          g.aggserialfn, g.aggdeserialfn, g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn)
        JOIN pg_catalog.pg_namespace fn ON fn.oid = f.pronamespace WHERE g.aggfnoid = p.oid)
      WHEN l.lanname NOT IN ('sql', 'plpgsql') THEN NULL
      WHEN p.prosqlbody IS NOT NULL THEN CASE WHEN ${isPrintable("pg_proc", "p.oid")}
        THEN pg_catalog.pg_get_function_sqlbody(p.oid) END
      ELSE p.prosrc END, p.prosqlbody IS NOT NULL, p.prosecdef, p.proconfig,
      (SELECT pg_catalog.json_agg(DISTINCT ${elementOrItself("t")})
        FROM pg_catalog.pg_type t WHERE t.oid >= ${firstUserOid}
          AND t.oid = ANY (p.prorettype || COALESCE(p.proallargtypes, p.proargtypes::pg_catalog.oid[]))),
      COALESCE(p.proargnames, '{}'), COALESCE(p.proargmodes, '{}'),
      CASE WHEN p.proargmodes && '{o,b,t}'::pg_catalog."char"[] THEN (SELECT pg_catalog.json_agg(${typeName("t")} ORDER BY a.place)
          FROM ROWS FROM (pg_catalog.unnest(p.proallargtypes), pg_catalog.unnest(p.proargmodes)) WITH ORDINALITY a (type, mode, place)
            JOIN pg_catalog.pg_type t ON t.oid = a.type WHERE a.mode IN ('o', 'b', 't'))
        ELSE pg_catalog.json_build_array(${typeName("r")}) END, ${oid("r.typrelid")}`,
    `FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
        JOIN pg_catalog.pg_type r ON r.oid = p.prorettype
      WHERE ${isOwnSchema("p.pronamespace")}
        AND ${isOwnFunction("p")}`,
  ),
  part(
    "extension",
    `e.extname, pg_catalog.json_agg(${oid("p.oid")})`,
    `FROM pg_catalog.pg_extension e
      JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
        AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
      JOIN pg_catalog.pg_proc p ON p.oid = d.objid JOIN pg_catalog.pg_language l ON l.oid = p.prolang
      WHERE e.extname IN (${reviewedExtensions}) AND l.lanname IN ('c', 'internal') AND p.prosrc NOT IN (${unreviewedSymbols})
        AND (p.provolatile <> 'v' OR e.extname IN (${volatileExtensions}))
      GROUP BY e.extname`,
  ),
  part(
    "operator",
    `${oid("o.oid")}, ${oid("o.oprnamespace")}, o.oprname, ${functionNames("o.oprcode, o.oprrest, o.oprjoin")}`,
    `FROM pg_catalog.pg_operator o
      WHERE o.oid >= ${firstUserOid} OR o.oprnamespace <> 'pg_catalog'::pg_catalog.regnamespace`,
  ),
];

const isOwnRelation = `c.oid >= ${firstUserOid} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I', 'c')
  AND ${isOwnSchema("c.relnamespace")}`;

/** What every server of a version has; only a superuser who wants to can change it. */
const builtinParts: readonly string[] = [
  part(
    "builtinFunctions",
    "pg_catalog.string_agg(DISTINCT p.proname, ' ')",
    `FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND p.oid < ${firstUserOid}`,
  ),
  part(
    "builtinTypes",
    "pg_catalog.string_agg(t.typname, ' ')",
    `FROM pg_catalog.pg_type t
      WHERE t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND t.oid < ${firstUserOid}`,
  ),
  part(
    "builtinRelation",
    `n.nspname, c.relname, c.relkind, ${columnsOf("pg_catalog.string_agg(a.attname, ' ' ORDER BY a.attnum)")}`,
    `FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname IN ('pg_catalog', 'information_schema') AND c.oid < ${firstUserOid} AND c.relkind IN ('r', 'v')`,
  ),
];

const hasRows = `c.relkind IN ('r', 'p', 'v', 'm', 'f')`;
const attrdefs = `pg_catalog.pg_attrdef x
    JOIN pg_catalog.pg_attribute a ON a.attrelid = x.adrelid AND a.attnum = x.adnum`;
const builtinNames = (
  from: string,
) => `(SELECT pg_catalog.string_agg(DISTINCT p.proname, ' ') FROM (${from}) u
  JOIN pg_catalog.pg_proc p ON p.oid = u.function WHERE p.oid < ${firstUserOid})`;
const called = "found[1]::pg_catalog.oid AS function";

/**
 * What hangs on a relation's columns, of which there are most: literals of defaults and checks, functions of the server
 * that those call, and what generated columns are computed from (a generated column depends on the columns that it names).
 */
const ofColumns = `
  (SELECT pg_catalog.json_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.atthasmissing),
  (SELECT pg_catalog.json_agg(a.attname ORDER BY a.attnum) FROM ${attrdefs}
    WHERE x.adrelid = c.oid AND a.attgenerated = '' AND ${hasLiteral("x.adbin", "a.atttypmod")}),
  (SELECT pg_catalog.json_agg(a.attname ORDER BY x.oid, a.attnum) FROM pg_catalog.pg_constraint x
    JOIN pg_catalog.pg_attribute a ON a.attrelid = x.conrelid AND a.attnum = ANY (x.conkey)
    WHERE x.conrelid = c.oid AND x.contype = 'c' AND ${hasLiteral("x.conbin", "-1")}),
  ${builtinNames(`SELECT ${called} FROM ${attrdefs}, ${calledIn("x.adbin")}
    WHERE x.adrelid = c.oid AND a.attgenerated = ''`)},
  ${builtinNames(`SELECT ${called} FROM ${attrdefs}, ${calledIn("x.adbin")}
    WHERE x.adrelid = c.oid AND a.attgenerated <> ''
    UNION ALL SELECT ${called} FROM pg_catalog.pg_constraint x, ${calledIn("x.conbin")} WHERE x.conrelid = c.oid`)},
  (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(g.name, g.sources) ORDER BY g.name) FROM (
    SELECT a.attname AS name, pg_catalog.json_agg(b.attname ORDER BY b.attnum) AS sources FROM ${attrdefs}
      JOIN pg_catalog.pg_depend d ON ((d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = x.oid)
          OR (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = x.adrelid AND d.objsubid = x.adnum))
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = x.adrelid
        AND d.refobjsubid > 0 AND d.refobjsubid <> x.adnum
      JOIN pg_catalog.pg_attribute b ON b.attrelid = x.adrelid AND b.attnum = d.refobjsubid
    WHERE x.adrelid = c.oid AND a.attgenerated <> '' GROUP BY a.attname) g)`;

/** Relations of users, those of which `where` is true. */
const relations = (where: string) =>
  part(
    "relation",
    `${oid("c.oid")}, ${oid("c.relnamespace")}, c.relname, c.relkind,
      CASE WHEN c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
        THEN ${columnsOf("pg_catalog.json_agg(a.attname ORDER BY a.attnum)")} END,
      CASE WHEN c.relkind IN ('v', 'm') AND ${isPrintable(
        "pg_rewrite",
        "SELECT r.oid FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid",
      )}
        THEN pg_catalog.pg_get_viewdef(c.oid) END,
      EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN'),
      (SELECT pg_catalog.json_agg(DISTINCT ${elementOrItself("t")})
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.atttypid >= ${firstUserOid} AND t.oid >= ${firstUserOid}),
      CASE WHEN ${hasRows} THEN ${columnsOf("pg_catalog.json_agg(a.attnum ORDER BY a.attnum)")} END,
      CASE WHEN ${hasRows} THEN (SELECT pg_catalog.json_agg(
          CASE WHEN a.atttypid < ${firstUnpinnedOid} THEN ${oid("a.atttypid")}
            ELSE (SELECT ${oid("CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END")}
              FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid) END ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END,
      CASE WHEN ${hasRows} THEN pg_catalog.json_build_array(${ofColumns}) END`,
    `FROM pg_catalog.pg_class c
      WHERE ${isOwnRelation} AND ${where}`,
  );

/** When a catalog was read: what a later reading needs to ask for changes alone. */
export interface CatalogMoment {
  /** The server's process: another one may know another past. */
  readonly server: string;
  /** The oldest transaction that was running: rows of older ones were seen, or belong to none that was ever committed. */
  readonly xmin: string;
  readonly builtins: string;
}

const serverIdentity = `pg_catalog.concat_ws(' ', pg_catalog.pg_backend_pid(),
  pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()))`;

const oldestRunning = "pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::pg_catalog.text";

/**
 * One round trip that changes whenever what the snapshot holds may have changed, and when that was. Its parameter is the gateway's
 * own number.
 */
export const fingerprintQuery = `SELECT ${fingerprint("$1", columnsHash("$1"))} AS fingerprint,
  ${serverIdentity} AS server, ${oldestRunning} AS xmin`;

const momentParts = (key: string, ofColumns: string): readonly string[] => [
  part(
    "moment",
    `${serverIdentity}, ${oldestRunning}, b.hash, ${fingerprint(key, ofColumns, "b.hash")}`,
    // Not to be taken apart: it would be computed twice.
    `FROM (SELECT ${hashOfBuiltins(key)} AS hash OFFSET 0) b`,
  ),
  part(
    "relations",
    `COALESCE(pg_catalog.json_agg(${oid("c.oid")}), '[]'::pg_catalog.json)`,
    `FROM pg_catalog.pg_class c WHERE ${isOwnRelation}`,
  ),
];

const isNew = (row: string) => `pg_catalog.age(${row}.xmin) <= (SELECT age FROM since)`;

/**
 * True of relations whose row may differ from what was read before. A row that is new has a transaction that was not
 * over then, so its age is at most that of the oldest one then. What a view's definition says follows the names of
 * everything in it, and a rule that is gone leaves no row: both are always asked for. A default or check that is gone
 * leaves a new row of its column or of its relation.
 */
const mayHaveChanged = `(c.relkind IN ('v', 'm') OR c.relhasrules OR ${isNew("c")}
  OR c.oid = ANY ($2::pg_catalog.text::pg_catalog.oid[])
  OR c.oid IN (SELECT r.ev_class FROM pg_catalog.pg_rewrite r WHERE ${isNew("r")}
    UNION ALL SELECT x.adrelid FROM pg_catalog.pg_attrdef x WHERE ${isNew("x")}
    UNION ALL SELECT x.conrelid FROM pg_catalog.pg_constraint x WHERE ${isNew("x")}
    UNION ALL SELECT relation FROM altered))`;

// Whose columns are new, and whose are of a type that is.
const alteredRelations = `altered AS MATERIALIZED (
  SELECT x.attrelid AS relation, pg_catalog.bool_or(${isNew("x")}) AS has_new FROM pg_catalog.pg_attribute x
  WHERE ${isOwnColumn} AND (${isNew("x")} OR x.atttypid IN
    (SELECT t.oid FROM pg_catalog.pg_type t WHERE t.oid >= ${firstUserOid} AND ${isNew("t")}))
  GROUP BY x.attrelid)`;

/** Stands where the hash of all columns would. */
const leftOut = "?";

const since = (xmin: string) => `since AS MATERIALIZED (SELECT
    pg_catalog.age(${xmin}::pg_catalog.text::pg_catalog.xid8::pg_catalog.xid) AS age)`;

/**
 * The fingerprint of an earlier reading if it still holds, without the hash of all columns, which is the dearest part by far: it is
 * the same as long as no column is newer than that reading. Null where one is, or may be, and on another server, which it names.
 */
export const likenessQuery = `WITH ${since("$2")} SELECT s.server, CASE
  WHEN s.server = $3 AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute x WHERE ${isNew("x")} AND ${isOwnColumn})
  THEN ${fingerprint("$1", "$4::pg_catalog.text")} END AS fingerprint
  FROM (SELECT ${serverIdentity} AS server) s`;

/** The parameters of `likenessQuery`. */
export function likenessOf({ moment, fingerprint }: EarlierReading, key: string): readonly string[] {
  return [key, moment.xmin, moment.server, ofColumnsIn(fingerprint)];
}

/** Whether a fingerprint has the hash of all columns, and so can be compared with any other. */
export function isExact(fingerprint: string): boolean {
  return ofColumnsIn(fingerprint) !== leftOut;
}

function ofColumnsIn(fingerprint: string): string {
  return fingerprint.slice(fingerprint.lastIndexOf(" ") + 1);
}

const settledAndLocked = `settled AS MATERIALIZED (
  SELECT pg_catalog.set_config('search_path', 'pg_catalog', true) AS path,
    pg_catalog.set_config('lock_timeout', '1000', true)),
locked AS MATERIALIZED (SELECT l.relation FROM pg_catalog.pg_locks l
  WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock')`;

/**
 * Everything the snapshot is built of, as rows of (kind, data): one statement, so that all rows show one moment.
 * Definitions are printed with qualified names only under a search_path of pg_catalog alone, which lasts for the statement.
 * Its parameter is that of `fingerprintQuery`.
 */
export const catalogQuery = `WITH ${settledAndLocked}
${[...momentParts("$1", columnsHash("$1")), ...builtinParts, relations("true"), ...parts].join("\nUNION ALL\n")}`;

/** What a later reading knows of an earlier one. */
export interface EarlierReading {
  readonly moment: CatalogMoment;
  /** Tables that had rules. */
  readonly ruled: readonly number[];
  /** Not exact where columns had changed and their hash was left out. */
  readonly fingerprint: string;
}

/**
 * The same without what has stayed as it was: relations that cannot have changed since then, and what the server brings.
 * Where columns have changed their hash is left out unless the fingerprint is to be exact: one definition follows another more
 * often than not, and that hash costs as much as the rest. On another server than then, or with other builtins, it is no answer.
 */
export const changesQuery = `WITH ${since("$1")}, ${alteredRelations}, ${settledAndLocked}
${[
  ...momentParts(
    "$5",
    `CASE WHEN EXISTS (SELECT FROM altered WHERE has_new) OR $3::pg_catalog.text = '${leftOut}'
      THEN CASE WHEN $4::pg_catalog.bool THEN ${columnsHash("$5")} ELSE '${leftOut}' END ELSE $3 END`,
  ),
  relations(mayHaveChanged),
  ...parts,
].join("\nUNION ALL\n")}`;

/** The parameters of `changesQuery`. */
export function changesSince(
  { moment, ruled, fingerprint }: EarlierReading,
  wanted: { readonly isExact: boolean; readonly key: string },
): readonly string[] {
  const { isExact, key } = wanted;
  return [moment.xmin, `{${ruled.join(",")}}`, ofColumnsIn(fingerprint), String(isExact), key];
}

/** Types by their ids, an array as what it is made of. */
export function typeNamesQuery(oids: readonly number[]): string {
  return `SELECT ${oid("t.oid")} AS oid, n.nspname AS schema, e.typname AS name
    FROM pg_catalog.pg_type t JOIN pg_catalog.pg_type e
      ON e.oid = CASE WHEN ${isArray("t")} AND t.typelem <> 0 THEN t.typelem ELSE t.oid END
    JOIN pg_catalog.pg_namespace n ON n.oid = e.typnamespace
    WHERE t.oid = ANY ('{${oids.join(",")}}'::pg_catalog.oid[])`;
}
