/**
 * Profiles: named bundles that contribute Allow rules and nothing else. What a profile leaves out is denied because
 * nothing matches it, so that another policy may still allow it, and a Deny rule always beats a profile.
 */
import type { CommandPart, ObjectRef, Operation } from "./model.ts";

/** An Allow rule of a profile, in the terms that the evaluator judges. */
export interface ProfileRule {
  readonly operations?: readonly Operation[];
  /** Whether the profile has anything to say of this part. */
  readonly part?: (part: CommandPart) => boolean;
  /** Whether the profile covers this object; absent covers every object. */
  readonly object?: (object: ObjectRef) => boolean;
}

/** What `spec.profile` may say. */
export const profileNames = ["ReadOnly", "ReadWrite", "SchemaOnly", "Admin", "None"] as const;
export type ProfileName = (typeof profileNames)[number];

/** The Allow rules that each profile contributes. `COPY … TO` is export, and only Admin exports. */
export const profiles: Readonly<Record<ProfileName, readonly ProfileRule[]>> = {
  // The catalog shows values of tables that a rule may deny (most_common_vals), so reading is not reading all of it.
  ReadOnly: [{ operations: ["read"], object: isOrdinary }, harmlessSession()],
  ReadWrite: [
    { operations: ["read"], object: isOrdinary },
    { operations: ["write"], object: (object) => !isCatalog(object) && object.isSecret !== true },
    advisoryLocks(),
    harmlessSession(),
  ],
  SchemaOnly: [
    { operations: ["define"] },
    advisoryLocks(),
    harmlessSession(),
    // Migration tools look up what exists; of the catalog they see all but what shows data or secrets.
    { operations: ["read"], object: isStructuralCatalog },
  ],
  Admin: [{}],
  None: [],
};

/** What SchemaOnly adds where its reads are masked: everything that ReadOnly reads, with every value hidden. */
export const maskedReads: readonly ProfileRule[] = [{ operations: ["read"], object: isOrdinary }];

/** What the user of a profile is told when it does not cover a command. */
export const profileHints: Readonly<Record<ProfileName, string>> = {
  ReadOnly:
    "the profile ReadOnly reads, statistics and secrets of the catalog excepted, and sets harmless settings",
  ReadWrite: "the profile ReadWrite reads, writes and takes advisory locks, and sets harmless settings",
  SchemaOnly: "the profile SchemaOnly changes the schema and reads no data",
  Admin: "the profile Admin allows everything that no rule denies",
  None: "the profile None allows nothing by itself",
};

/** Applications and migration tools take turns by locks of no table, and who writes a row can hold others up as well. */
function advisoryLocks(): ProfileRule {
  return {
    operations: ["control"],
    part: ({ objects }) => objects.length > 0,
    object: ({ name }) => /^pg_catalog\.pg_(?:try_)?advisory_/.test(name),
  };
}

/**
 * Session statements that change nothing but the session. Transactions, prepared statements and cursors are here
 * because what they run is judged by itself; settings are a reviewed list, because some of them are privileges, and
 * count whatever statement changes them (`SET`, or `SELECT set_config(…)`).
 */
function harmlessSession(): ProfileRule {
  return {
    operations: ["session"],
    part: ({ words, objects }) => {
      // Words before the last only say what it stands in: EXPLAIN, EXECUTE, DO, a function.
      const word = words.at(-1)?.toUpperCase() ?? "";
      if (word === "SHOW") return objects.every((object) => object.kind === "setting");
      if (objects.length === 0) return sessionWords.has(word.split(" ", 1)[0] ?? "");
      return objects.every(
        (object) => object.kind === "setting" && harmlessSettings.has(object.name.toLowerCase()),
      );
    },
  };
}

/** LISTEN, NOTIFY, LOAD, LOCK and CHECKPOINT are not here: they reach beyond the session. */
const sessionWords: ReadonlySet<string> = new Set(
  (
    "BEGIN START COMMIT END ROLLBACK ABORT SAVEPOINT RELEASE SET RESET DISCARD " +
    "PREPARE EXECUTE DEALLOCATE DECLARE FETCH MOVE CLOSE UNLISTEN"
  ).split(" "),
);

/**
 * Settings that only change how the session's own answers look, are planned or time out. Not here, because they move
 * privileges, switch off checks or load code: role, session_authorization, session_replication_role, row_security,
 * *_preload_libraries, dynamic_library_path, check_function_bodies, log_* and the like. That a transaction only reads is
 * anybody's to say, since BEGIN READ WRITE is: what may be written is decided by the statement.
 * `all` is RESET ALL, which goes back to what the session began with and moves no role. The settings that change how
 * a text is read may be set only because SQL analysis pins them to the value that changes nothing.
 */
const harmlessSettings: ReadonlySet<string> = new Set(
  (
    "all application_name array_nulls backslash_quote bytea_output client_connection_check_interval client_encoding " +
    "client_min_messages constraint_exclusion cpu_index_tuple_cost cpu_operator_cost cpu_tuple_cost " +
    "cursor_tuple_fraction datestyle deadlock_timeout default_statistics_target " +
    "default_transaction_deferrable default_transaction_isolation default_transaction_read_only effective_cache_size " +
    "effective_io_concurrency enable_async_append enable_bitmapscan enable_distinct_reordering " +
    "enable_gathermerge enable_group_by_reordering enable_hashagg enable_hashjoin enable_incremental_sort " +
    "enable_indexonlyscan enable_indexscan enable_material enable_memoize enable_mergejoin enable_nestloop " +
    "enable_parallel_append enable_parallel_hash enable_partition_pruning enable_partitionwise_aggregate " +
    "enable_partitionwise_join enable_presorted_aggregate enable_self_join_elimination enable_seqscan " +
    "enable_sort enable_tidscan extra_float_digits force_parallel_mode from_collapse_limit geqo geqo_effort " +
    "geqo_generations geqo_pool_size geqo_seed geqo_selection_bias geqo_threshold gin_fuzzy_search_limit " +
    "hash_mem_multiplier idle_in_transaction_session_timeout idle_session_timeout intervalstyle jit " +
    "jit_above_cost jit_inline_above_cost jit_optimize_above_cost join_collapse_limit lc_messages lc_monetary " +
    "lc_numeric lc_time lock_timeout maintenance_work_mem max_parallel_workers_per_gather " +
    "min_parallel_index_scan_size min_parallel_table_scan_size parallel_leader_participation " +
    "parallel_setup_cost parallel_tuple_cost plan_cache_mode quote_all_identifiers random_page_cost " +
    "search_path seed seq_page_cost standard_conforming_strings statement_timeout synchronize_seqscans tcp_keepalives_count " +
    "tcp_keepalives_idle tcp_keepalives_interval tcp_user_timeout temp_buffers timezone " +
    "timezone_abbreviations transaction_deferrable transaction_isolation transaction_read_only " +
    "transaction_snapshot transaction_timeout transform_null_equals work_mem xmlbinary xmloption"
  ).split(" "),
);

function isCatalog({ name }: ObjectRef): boolean {
  return name.startsWith("pg_catalog.") || name.startsWith("information_schema.");
}

/** Everything but what of the catalog and its extensions shows data, secrets or other people's statements. */
function isOrdinary({ name, kind, isSecret }: ObjectRef): boolean {
  if (kind === "resource") return isSecret !== true;
  return !revealingRelations.has(name.slice(name.indexOf(".") + 1));
}

function isStructuralCatalog(object: ObjectRef): boolean {
  // Functions of the reviewed list come as reads; the analyser says `execute` for every other one.
  if (object.kind === "schema" || object.kind === "type") return true;
  return isCatalog(object) && isOrdinary(object);
}

/**
 * Relations that hold values of the data, other people's statements, or secrets. By name alone, whatever the schema:
 * pg_stat_statements is installed where its owner likes. The account is the gateway's, so the server would show them.
 */
const revealingRelations: ReadonlySet<string> = new Set(
  (
    "pg_stats pg_statistic pg_stats_ext pg_stats_ext_exprs pg_statistic_ext_data pg_largeobject pg_authid pg_shadow " +
    "pg_user_mapping pg_user_mappings _pg_user_mappings user_mapping_options pg_subscription pg_hba_file_rules " +
    "pg_ident_file_mappings pg_file_settings pg_stat_activity pg_stat_statements pg_stat_statements_info"
  ).split(" "),
);
