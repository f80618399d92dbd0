/**
 * Sequences of messages as clients send them and as they should not: simple and extended, pipelined, COPY, errors,
 * savepoints, cursors, settings and statements that policy refuses. Generated, so that a failing one is shrunk.
 */
import { isLoneUtility, loadSqlParser } from "@sallyport/policy";
import fc from "fast-check";
import { frame, int32s, query } from "../targets/wire-client.ts";

await loadSqlParser();

/** One thing that a client does. */
export interface Action {
  readonly name: string;
  /** What goes through the gateway. */
  readonly bytes: readonly Uint8Array[];
  /** What the server alone gets, where that is something else. */
  readonly direct?: readonly Uint8Array[];
}
const made = (name: string, ...bytes: Uint8Array[]): Action => ({ name, bytes });
/** A Query with this text. */
export const simple = (sql: string): Action => made(`Query ${sql}`, query(sql));

const transactions = [
  ...["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION READ ONLY", "COMMIT", "ROLLBACK"],
  ...["COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a", "RELEASE a"],
  ...["ROLLBACK TO SAVEPOINT b", "RELEASE SAVEPOINT b", "END", "ABORT", "SET TRANSACTION READ ONLY"],
];
const reads = [
  ...[
    "SELECT 1",
    "SELECT",
    "TABLE wide",
    "SELECT n, word, at FROM note ORDER BY n",
    "SELECT * FROM seen ORDER BY 1",
  ],
  ...["VALUES (1, 'a'), (2, NULL)", "SHOW search_path", "SHOW TimeZone", "SELECT generate_series(1, 5)"],
  ...[
    "SELECT * FROM other.note",
    "EXPLAIN (COSTS OFF) SELECT 1",
    "SELECT noisy('a')",
    "SELECT repeat('long', 9000)",
  ],
  ...["SELECT count(*) FROM note n JOIN other.note o USING (n)", "WITH a AS (SELECT 1 AS x) SELECT x FROM a"],
  ...["SELECT current_setting('search_path'), 'ünïcödé — 🐘', E'\\x41', U&'\\0041', $t$dollar$t$"],
];
const writes = [
  ...["INSERT INTO note VALUES (1, 'one')", "INSERT INTO note VALUES (2, 'two') RETURNING n, word AS w"],
  ...["INSERT INTO note VALUES (1, 'again') ON CONFLICT (n) DO UPDATE SET word = excluded.word RETURNING *"],
  ...[
    "UPDATE note SET word = word || '!' WHERE n = 1 RETURNING old.word, new.word",
    "DELETE FROM note WHERE n = 2",
  ],
  ...[
    "MERGE INTO note USING (VALUES (3)) v(n) ON note.n = v.n WHEN NOT MATCHED THEN INSERT VALUES (v.n, 'merged')",
  ],
  ...["CALL filing(7)", "DO $$BEGIN RAISE WARNING 'done'; END$$", "TRUNCATE note", "DELETE FROM note"],
  ...["WITH d AS (DELETE FROM note WHERE n = 1 RETURNING *) SELECT count(*) FROM d", "LOCK TABLE note"],
];
const failures = [
  ...[
    "SELECT 1 / 0",
    "SELEC 1",
    "SELECT * FROM nowhere",
    "SELECT missing FROM note",
    "SELECT nothing_such(1)",
  ],
  ...[
    "INSERT INTO note VALUES (5, NULL)",
    "SELECT 'x'::int",
    "SELECT failing(3)",
    "SELECT * FROM nowhere.note",
  ],
  ...["INSERT INTO note VALUES (9, 'x'), (9, 'y')", "EXECUTE nobody", "FETCH 1 FROM nobody", "SELECT 'open"],
  ...[
    "DEALLOCATE nobody",
    "SET nothing_such = 1",
    "RELEASE nobody",
    "SELECT $1",
    "SELECT 1 +",
    "DROP TABLE nowhere",
  ],
  ...[
    "CREATE TABLE note (n int)",
    "SELECT 1 FROM note GROUP BY word HAVING n = 1",
    "COPY nowhere FROM STDIN",
  ],
  ...["SELECT 1 WHERE 'a' = ANY (1)", "INSERT INTO note (absent) VALUES (1)", "SELECT 1::nosuchtype"],
];
const sessions = [
  ...[
    "SET search_path = other, public",
    "SET LOCAL search_path = other",
    "RESET search_path",
    "SELECT * FROM note",
  ],
  ...[
    "SET TimeZone = 'Asia/Tokyo'",
    "SET DateStyle = 'SQL, DMY'",
    "RESET ALL",
    "DISCARD ALL",
    "DISCARD PLANS",
  ],
  ...["SELECT set_config('search_path', 'other', false)", "SELECT set_config('search_path', 'other', true)"],
  ...["PREPARE one (int) AS SELECT $1 + 1", "EXECUTE one(4)", "DEALLOCATE one", "DEALLOCATE ALL"],
  ...[
    "PREPARE two AS INSERT INTO note VALUES (11, 'two') RETURNING n",
    "EXECUTE two",
    "EXPLAIN (COSTS OFF) EXECUTE one(1)",
  ],
  ...[
    "DECLARE c CURSOR FOR SELECT generate_series(1, 9)",
    "FETCH 2 FROM c",
    "MOVE 1 IN c",
    "CLOSE c",
    "FETCH ALL c",
  ],
  ...["DECLARE h CURSOR WITH HOLD FOR SELECT 'held' UNION ALL SELECT 'on'", "FETCH NEXT FROM h", "CLOSE ALL"],
  ...["CREATE TEMP TABLE tmp (a int)", "INSERT INTO tmp VALUES (1)", "SELECT * FROM tmp", "DROP TABLE tmp"],
  ...["CREATE TEMP TABLE note (t text)", "DROP TABLE IF EXISTS pg_temp.note", "CREATE TABLE made (m int)"],
  ...[
    "INSERT INTO made VALUES (1)",
    "SELECT m FROM made",
    "DROP TABLE IF EXISTS made",
    "ALTER TABLE made ADD o int",
  ],
  ...["LISTEN news", "NOTIFY news, 'extra'", "SELECT pg_notify('news', 'called')", "UNLISTEN *"],
];
const several = [
  ...["", ";", " ;; ", "-- nothing", "/* nothing */ ;"],
  ...["SELECT 1; SELECT 2", "INSERT INTO note VALUES (21, 'x'); SELECT 1 / 0", "SELECT 1;;"],
  ...["BEGIN; INSERT INTO note VALUES (22, 'kept'); COMMIT; SELECT 1 / 0; SELECT 3", "BEGIN; SELECT 1"],
  ...[
    "SELECT 1; SELEC 2",
    "SELECT 1; COMMIT; SELECT 2",
    "SAVEPOINT s; SELECT 1",
    "SELECT noisy('m'); SELECT 'x'::int",
  ],
];

const copies = [
  "COPY note FROM STDIN",
  "COPY note (n, word) FROM STDIN (FORMAT csv, HEADER)",
  "COPY note FROM STDIN BINARY",
];
const copyBinary = Buffer.concat([
  Buffer.from("PGCOPY\n\xff\r\n\0", "latin1"),
  int32s(0, 0),
  Buffer.from([0, 3]),
  ...[int32s(4, 33), int32s(3), Buffer.from("bin"), int32s(-1)],
  Buffer.from([0xff, 0xff]),
]);
const copyData: Record<string, Uint8Array> = {
  text: Buffer.from("31\ttext\t2.5\n32\tmore\t\\N\n"),
  csv: Buffer.from('n,word\n41,"a,b"\n42,c\n'),
  binary: copyBinary,
  garbage: Buffer.from("x\ty\n"),
  nothing: Buffer.alloc(0),
  half: Buffer.from("51\tha"),
  long: Buffer.from(
    Array.from({ length: 900 }, (_, row) => `${1000 + row}\t${"long".repeat(8)}\t0\n`).join(""),
  ),
};
const copyEnds: Record<string, Uint8Array> = { done: frame("c"), fail: frame("f", "enough\0") };
/** What may stand among the data: the server drops it while it takes data, and not once that has failed. */
const amongData: Record<string, Uint8Array> = { Sync: frame("S"), Flush: frame("H") };
const copyPiece = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...Object.keys(copyData)) },
  { weight: 2, arbitrary: fc.constantFrom("Sync", "Sync", "Flush") },
);
const copyBody = fc.tuple(
  fc.array(copyPiece, { maxLength: 5 }),
  fc.constantFrom("done", ...Object.keys(copyEnds)),
);
const copied = (pieces: readonly string[], end: string): Uint8Array[] => [
  ...pieces.map((name) => amongData[name] ?? frame("d", copyData[name] ?? "")),
  copyEnds[end] ?? frame("c"),
];
const copyIn = fc
  .tuple(fc.constantFrom(...copies, `${copies[0]}; SELECT 'behind'`), copyBody)
  .map(([sql, [data, end]]) => made(`Query ${sql} ${data} ${end}`, query(sql), ...copied(data, end)));
const extendedCopyIn = fc
  .tuple(fc.constantFrom(...copies), copyBody, fc.boolean())
  .map(([sql, [data, end], isSynced]) =>
    made(
      `Parse Bind Execute ${sql} ${data} ${end}${isSynced ? " Sync" : ""}`,
      ...[
        parse("", sql),
        bind("", ""),
        execute("", 0),
        ...copied(data, end),
        ...(isSynced ? [frame("S")] : []),
      ],
    ),
  );
const copyOut = fc
  .constantFrom(
    ...[
      "COPY note TO STDOUT",
      "COPY wide TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)",
      "COPY wide TO STDOUT BINARY",
    ],
    ...[
      "COPY (SELECT generate_series(1, 3)) TO STDOUT",
      "COPY (SELECT 1 / (3 - generate_series(1, 4))) TO STDOUT",
    ],
    ...["COPY wide TO STDOUT; SELECT 1", "COPY (DELETE FROM note RETURNING n) TO STDOUT"],
  )
  .map(simple);

const parse = (name: string, sql: string, types: readonly number[] = []) =>
  frame("P", `${name}\0${sql}\0`, int16s(types.length), int32s(...types));
/** Parameters, with the codes of their formats as Bind takes them: none, one for all, or one for each. */
interface Values {
  readonly values: readonly (string | null)[];
  readonly formats: readonly number[];
}
const bind = (
  portal: string,
  name: string,
  { values, formats: codes }: Values = { values: [], formats: [] },
  formats: readonly number[] = [],
) =>
  frame(
    ...(["B", `${portal}\0${name}\0`, int16s(codes.length, ...codes), int16s(values.length)] as const),
    ...values.flatMap((value) =>
      value === null ? [int32s(-1)] : [int32s(Buffer.byteLength(value)), Buffer.from(value)],
    ),
    int16s(formats.length, ...formats),
  );
const told = ({ values, formats }: Values) => `${JSON.stringify(values)} as [${formats}]`;
const execute = (portal: string, rows: number) => frame("E", `${portal}\0`, int32s(rows));

function int16s(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 2);
  values.forEach((value, index) => {
    bytes.writeInt16BE(value, index * 2);
  });
  return bytes;
}

const withParameters = [
  ...[
    "SELECT $1::int + 1",
    "SELECT $1",
    "SELECT $1::text, $2::int",
    "INSERT INTO note VALUES ($1, $2) RETURNING *",
  ],
  ...["SELECT * FROM note WHERE n = $1", "SELECT generate_series(1, $1::int)"],
];
/** The server looks its name up at Execute, the gateway, which judges what would run, at Parse. */
const looksUpLate = /^EXPLAIN .* EXECUTE/;
// In the middle of a pipeline nobody knows what these leave search_path at: the server tells when it is ready.
const hidesSearchPath =
  /set_config\('search_path'|RESET (ALL|search_path)|search_path TO DEFAULT|DISCARD ALL/;
const anySql = fc
  .oneof(
    fc.constantFrom(...withParameters),
    fc.constantFrom(...reads),
    fc.constantFrom(...writes),
    fc.constantFrom(...failures),
    fc.constantFrom(...sessions),
    fc.constantFrom(...transactions),
    fc.constantFrom("", ";", "SELECT 1; SELECT 2", "COPY public.wide TO STDOUT"),
  )
  .filter((sql) => !looksUpLate.test(sql) && !hidesSearchPath.test(sql));
const statementName = fc.constantFrom("", "", "one", "two");
/** A named statement that executes itself, also by another one, ends at the server's stack and nowhere else. */
const mayBeNamed = (name: string, sql: string) => name === "" || !sql.startsWith("EXECUTE");
const portalName = fc.constantFrom("", "", "p", "c");
/** The last is a number in binary; whichever format a parameter is said to have, the server alone judges whether it is. */
const written = fc.constantFrom("1", "77", "word", "", null, "\0\0\0\x07");
const values: fc.Arbitrary<Values> = fc.oneof(
  { weight: 3, arbitrary: fc.constant({ values: [], formats: [] }) },
  {
    weight: 3,
    arbitrary: fc.record({
      values: fc.array(written, { maxLength: 2 }),
      formats: fc.constantFrom([], [], [], [0], [1], [0, 1], [1, 0]),
    }),
  },
);
const formats = fc.constantFrom([], [], [0], [1], [0, 1], [1, 1, 1]);
const types = fc.constantFrom([], [], [23], [25, 23], [0]);
const rows = fc.constantFrom(0, 0, 1, 2);

const extended = fc.oneof(
  fc
    .tuple(statementName, anySql, types)
    .filter(([name, sql]) => mayBeNamed(name, sql))
    .map(([name, sql, given]) => made(`Parse ${name} ${sql} ${given}`, parse(name, sql, given))),
  fc
    .tuple(portalName, statementName, values, formats)
    .map(([portal, name, given, codes]) =>
      made(`Bind ${portal} ${name} ${told(given)} ${codes}`, bind(portal, name, given, codes)),
    ),
  fc
    .tuple(portalName, rows)
    .map(([portal, most]) => made(`Execute ${portal} ${most}`, execute(portal, most))),
  fc
    .tuple(fc.constantFrom("S", "P"), fc.constantFrom("", "one", "p", "nobody"))
    .map(([what, name]) => made(`Describe ${what} ${name}`, frame("D", `${what}${name}\0`))),
  fc
    .tuple(fc.constantFrom("S", "P"), fc.constantFrom("", "one", "p", "nobody"))
    .map(([what, name]) => made(`Close ${what} ${name}`, frame("C", `${what}${name}\0`))),
  fc.constantFrom(made("Flush", frame("H")), made("Sync", frame("S")), made("Sync", frame("S"))),
);
const cycle = fc
  .tuple(statementName, portalName, anySql, values, formats, rows, fc.boolean())
  .filter(([name, , sql]) => mayBeNamed(name, sql))
  .map(([name, portal, sql, given, codes, most, isSynced]) =>
    made(
      `Cycle ${name} ${portal} ${sql} ${told(given)} ${codes} ${most}${isSynced ? " Sync" : ""}`,
      ...[
        parse(name, sql),
        frame("D", `S${name}\0`),
        bind(portal, name, given, codes),
        frame("D", `P${portal}\0`),
      ],
      ...[execute(portal, most), ...(isSynced ? [frame("S")] : [])],
    ),
  );

const anyAction = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...transactions).map(simple) },
  { weight: 2, arbitrary: fc.constantFrom(...reads).map(simple) },
  { weight: 2, arbitrary: fc.constantFrom(...writes).map(simple) },
  { weight: 2, arbitrary: fc.constantFrom(...failures).map(simple) },
  { weight: 3, arbitrary: fc.constantFrom(...sessions).map(simple) },
  { weight: 1, arbitrary: fc.constantFrom(...several).map(simple) },
  { weight: 1, arbitrary: copyIn },
  { weight: 1, arbitrary: extendedCopyIn },
  { weight: 1, arbitrary: copyOut },
  { weight: 5, arbitrary: extended },
  { weight: 4, arbitrary: cycle },
);

/** What one connection sends. */
export interface Sequence {
  readonly actions: readonly Action[];
  /** Where the stream is cut into writes, as fractions of its length. */
  readonly cuts: readonly number[];
  /** True where the sequence ends with a statement that is cancelled. */
  readonly isCancelled: boolean;
}
const sequenceOf = (action: fc.Arbitrary<Action>): fc.Arbitrary<Sequence> =>
  fc.record({
    actions: fc.array(action, { minLength: 1, maxLength: 14 }).map(harmless),
    cuts: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 4 }),
    isCancelled: fc.integer({ min: 0, max: 19 }).map((n) => n === 0),
  });

/**
 * Without what ends PostgreSQL itself: a Query that fails in a transaction leaves an unnamed portal whose plan is freed,
 * and an Execute of it reads that memory. The gateway answers such an Execute itself.
 */
function harmless(actions: Action[]): Action[] {
  const query = actions.findIndex(({ name }) => /^(refused )?Query/.test(name));
  return query < 0 ? actions : actions.filter(({ name }, at) => at < query || !name.startsWith("Execute  "));
}

/** Sequences that a policy which allows everything lets through. */
export const anySequence = sequenceOf(anyAction);

/** The same, with COPY data everywhere. */
export const anyCopySequence = sequenceOf(
  fc.oneof(
    { weight: 2, arbitrary: copyIn },
    { weight: 4, arbitrary: extendedCopyIn },
    { weight: 4, arbitrary: anyAction },
  ),
);

// ------------------------------------------------------------------------------------------------ what is refused

/** A text that begins with this is what the policy under test refuses. */
export const refusedMark = "/*no*/";
/** What the server alone gets in its place: it finds 42501 while it analyses the text, as it would a missing right. */
const raising = "SELECT 1 FROM closed.t";

/** The same of what the server prepares unseen: it fails when it runs. */
const raisingLate = "SET ROLE postgres";
const raisingAs = (sql: string) => (isLoneUtility(refusedMark + sql) ? raisingLate : raising);

/** Statements whose names are always found, so that it is policy that answers them. */
const refusable = [
  ...[
    "SELECT 1",
    "SELECT n, word FROM public.note",
    "TABLE public.wide",
    "DELETE FROM public.note",
    "ROLLBACK",
  ],
  ...[
    "INSERT INTO public.note VALUES (61, 'never')",
    "UPDATE public.note SET word = 'never'",
    "BEGIN",
    "COMMIT",
  ],
  ...[
    "TRUNCATE public.note",
    "CALL public.filing(66)",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "RELEASE a",
    "DISCARD ALL",
  ],
  ...[
    "CREATE TABLE refused (n int)",
    "SET TimeZone = 'Asia/Tokyo'",
    "PREPARE one AS SELECT 'never'",
    "LISTEN news",
  ],
  ...["DECLARE c CURSOR FOR SELECT 'never'", "COPY public.note TO STDOUT", "COPY public.note FROM STDIN"],
  ...["SELECT 1; INSERT INTO public.note VALUES (62, 'never')", "BEGIN; SELECT 1; COMMIT", "DEALLOCATE ALL"],
];
const refused = fc.oneof(
  fc.constantFrom(...refusable).map((sql) => ({
    name: `refused Query ${sql}`,
    bytes: [query(refusedMark + sql)],
    direct: [query(raising)],
  })),
  fc.tuple(statementName, fc.constantFrom(...refusable)).map(([name, sql]) => ({
    name: `refused Parse ${name} ${sql}`,
    bytes: [parse(name, refusedMark + sql)],
    direct: [parse(name, raisingAs(sql))],
  })),
  fc
    .tuple(statementName, portalName, fc.constantFrom(...refusable), rows, fc.boolean())
    .map(([name, portal, sql, most, isSynced]) => {
      const behind = [
        ...[frame("D", `S${name}\0`), bind(portal, name), frame("D", `P${portal}\0`), execute(portal, most)],
        ...(isSynced ? [frame("S")] : []),
      ];
      return {
        name: `refused Cycle ${name} ${portal} ${sql} ${most}${isSynced ? " Sync" : ""}`,
        bytes: [parse(name, refusedMark + sql), ...behind],
        direct: [parse(name, raisingAs(sql)), ...behind],
      };
    }),
  copyBody.map(([data, end]) => ({
    name: `refused Query COPY ${data} ${end}`,
    bytes: [query(`${refusedMark}COPY public.note FROM STDIN`), ...copied(data, end)],
    direct: [query(raising), ...copied(data, end)],
  })),
);

/** Sequences of which policy refuses a part. */
export const anyRefusedSequence = sequenceOf(
  fc.oneof({ weight: 3, arbitrary: anyAction }, { weight: 1, arbitrary: refused }),
);

/** The same, with COPY data everywhere. */
export const anyRefusedCopySequence = sequenceOf(
  fc.oneof(
    { weight: 2, arbitrary: copyIn },
    { weight: 4, arbitrary: extendedCopyIn },
    { weight: 2, arbitrary: anyAction },
    { weight: 3, arbitrary: refused },
  ),
);
