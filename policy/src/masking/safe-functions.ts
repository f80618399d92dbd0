/**
 * Functions of pg_catalog that may take a masked value: they never fail because of it, never return more or fewer
 * rows because of it, and say nothing of it but in their result, which is masked whole. Everything else given a
 * masked value counts as inference: an error, a count or a delay could tell of the value. Where a unit, a zone, an encoding or
 * a fraction is asked for, the value must not be it: `date_trunc(ssn, …)` fails for all but a few words. Nor may an array
 * lose elements, or a text grow without bound.
 */

import type { FunctionInfo } from "../sql/names.ts";
import type { Flow } from "./flow.ts";

const words = (text: string): ReadonlySet<string> => new Set(text.trim().split(/\s+/));

/** Safe in every argument. */
const anyArgument = words(`
  concat concat_ws lower upper initcap length char_length character_length octet_length bit_length reverse md5
  sha224 sha256 sha384 sha512 ascii quote_ident quote_literal quote_nullable hashtext btrim ltrim rtrim
  to_json to_jsonb row_to_json array_to_json json_agg jsonb_agg json_agg_strict jsonb_agg_strict
  json_build_array jsonb_build_array array_agg string_agg max min count bool_and bool_or every any_value
  first_value last_value lag lead json_strip_nulls jsonb_strip_nulls jsonb_pretty json_typeof jsonb_typeof
  array_to_string cardinality array_length array_ndims row mode sum avg starts_with strpos position`);

/** Safe in the first argument; the others must be the asker's own values. */
const firstArgument = words(`
  substr substring left right split_part translate to_char age round trunc abs ceil ceiling
  floor sign encode nth_value lag lead jsonb_extract_path jsonb_extract_path_text json_extract_path
  json_extract_path_text`);

/** Safe in the second argument; the first is a unit or a zone. */
const secondArgument = words("date_part extract date_trunc timezone");

/** Safe in all but the first, which is a format. */
const butFirst = words("format");

/** Safe for the values of one column; with a value of the asker's beside them they fail where the two exceed a limit. */
const sums = words("sum avg percentile_cont");

/** Safe as what is sorted in WITHIN GROUP. */
const sorted = words("mode percentile_disc percentile_cont");

/** Of the safe ones: NULL because of what the value is, and not only where the value is NULL. */
const nullByValue = words(`
  substring array_length array_ndims date_part extract to_char jsonb_extract_path jsonb_extract_path_text
  json_extract_path json_extract_path_text`);

/** Of the safe ones: those that fail where the collation of what they are given is undecided, or is none for searching. */
const byCollation = words(
  "lower upper initcap hashtext starts_with strpos position max min mode percentile_disc",
);

/** One argument of a call: which of how many, from 0, and what it is. */
export interface Argument {
  readonly index: number;
  readonly count: number;
  readonly flow: Flow;
}

/** True where the argument may be a masked value. */
export function mayTakeMasked(name: string, { index, count, flow }: Argument): boolean {
  if (sums.has(name) && !flow.isExact) return false;
  // With an encoding, it fails for bytes that are none of its characters.
  if (name === "length" && count > 1) return false;
  if (mayFailByCollation(name, flow)) return false;
  if (anyArgument.has(name)) return true;
  // Of the others the asker's own arguments can be wrong, which shows only where the function is called: not for NULL.
  if (flow.tellsByNull === true) return false;
  if (firstArgument.has(name)) return index === 0;
  if (secondArgument.has(name)) return index === 1;
  return butFirst.has(name) && index > 0;
}

/** True where WITHIN GROUP (ORDER BY …) of that aggregate may take this masked value. */
export function maySortMasked(name: string, flow: Flow): boolean {
  return sorted.has(name) && (flow.isExact || !sums.has(name)) && !mayFailByCollation(name, flow);
}

/** It is not called for NULL: that it fails would tell that the value is none. */
function mayFailByCollation(name: string, { tellsByNull, mixesCollations }: Flow): boolean {
  return tellsByNull === true && mixesCollations === true && byCollation.has(name);
}

/** True for functions that make their argument a row of any type, whose checks may be anybody's code. */
export function makesRows(name: string): boolean {
  return /^jsonb?_populate_record/.test(name);
}

/** True where the result is NULL only with the argument at `index`, or for reasons that are not in its value. */
export function isNullWithArgument(name: string, index: number): boolean {
  if (name === "lag" || name === "lead") return index === 0;
  return !nullByValue.has(name);
}

/** Of `to_char`: a format without `V`, which multiplies, and `RN`: servers before 18 fail there for large numbers. */
export function isSafeNumberFormat(text: string | undefined): boolean {
  return text !== undefined && !/v|rn/i.test(text);
}

/** Of `format`: directives that fail for no value. */
export function isSafeFormat(text: string | undefined): boolean {
  return text !== undefined && /^(?:[^%]|%[sL%])*$/.test(text);
}

/** Operators that never fail and compare nothing: concatenation and the fields of JSON. */
export function isSafeOperator(name: string): boolean {
  return name === "||" || name === "->" || name === "->>";
}

/** Of citext: with it installed the names mean nothing that fails for a value, as they do not without. */
const safeAggregates = words("max min");

/** Of hstore, behind `||` and `->`. Not ltree's `||`, which fails for a text that is no label. */
const safeOperators = words("hs_concat fetchval slice_array");

/** True for an aggregate of a reviewed extension that may take what the server's own of that name may take. */
export function isSafeAggregate({ name, isReviewed }: FunctionInfo): boolean {
  return isReviewed === true && safeAggregates.has(name);
}

/** True for a function of a reviewed extension behind an operator that may take what the server's own may take. */
export function isSafeBehindOperator({ name, isReviewed }: FunctionInfo): boolean {
  return isReviewed === true && isNameBehindOperator(name);
}

/** True for the names by which those are known, which nothing else may be given. */
export function isNameBehindOperator(name: string): boolean {
  return safeOperators.has(name);
}

/** Types that any value of a text can be cast to without an error that tells of it. */
export const textTypes: ReadonlySet<string> = words("text varchar bpchar name char");
