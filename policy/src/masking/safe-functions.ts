/**
 * Functions of pg_catalog that may take a masked value: they never fail because of it, never return more or fewer
 * rows because of it, and say nothing of it but in their result, which is masked whole. Everything else given a
 * masked value counts as inference: an error, a count or a delay could tell of the value.
 */

const words = (text: string): ReadonlySet<string> => new Set(text.trim().split(/\s+/));

/** Safe in every argument. */
const anyArgument = words(`
  concat concat_ws lower upper initcap length char_length character_length octet_length bit_length reverse md5
  sha224 sha256 sha384 sha512 ascii quote_ident quote_literal quote_nullable hashtext btrim ltrim rtrim
  to_json to_jsonb row_to_json array_to_json json_agg jsonb_agg json_agg_strict jsonb_agg_strict
  json_build_array jsonb_build_array array_agg string_agg max min count bool_and bool_or every any_value
  first_value last_value lag lead json_strip_nulls jsonb_strip_nulls jsonb_pretty json_typeof jsonb_typeof
  array_to_string cardinality array_length array_ndims row mode percentile_disc sum avg date_part extract
  make_tid starts_with strpos position`);

/** Safe in the first argument; the others must be the asker's own values. */
const firstArgument = words(`
  substr substring left right split_part replace translate to_char date_trunc age round trunc abs ceil ceiling
  floor sign encode nth_value lag lead jsonb_extract_path jsonb_extract_path_text json_extract_path
  json_extract_path_text percentile_cont array_remove timezone convert_to`);

/** Safe in all but the first, which is a format. */
const butFirst = words("format");

/** True where the argument at `index`, from 0, may be a masked value. */
export function mayTakeMasked(name: string, index: number): boolean {
  if (anyArgument.has(name)) return true;
  if (firstArgument.has(name)) return index === 0;
  return butFirst.has(name) && index > 0;
}

/** Operators that never fail and compare nothing: concatenation and the fields of JSON. */
export function isSafeOperator(name: string): boolean {
  return name === "||" || name === "->" || name === "->>";
}

/** Types that any value of a text can be cast to without an error that tells of it. */
export const textTypes: ReadonlySet<string> = words("text varchar bpchar name char");
