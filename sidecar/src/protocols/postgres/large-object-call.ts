/**
 * FunctionCall names a function by its oid alone. The oids of the large object functions are PostgreSQL's own and never
 * change, and libpq knows no other way to large objects: those calls are judged as the SELECT that they stand for.
 *
 *     F | length | oid (4) | n (2) | n format codes (2) | n arguments: length (4), bytes | result format (2)
 */
const functions: ReadonlyMap<number, string> = new Map([
  [715, "lo_create"],
  [952, "lo_open"],
  [953, "lo_close"],
  [954, "loread"],
  [955, "lowrite"],
  [956, "lo_lseek"],
  [957, "lo_creat"],
  [958, "lo_tell"],
  [964, "lo_unlink"],
  [1004, "lo_truncate"],
  [3170, "lo_lseek64"],
  [3171, "lo_tell64"],
  [3172, "lo_truncate64"],
]);

/** The SELECT that a FunctionCall stands for; undefined for every other function and for what is malformed. */
export function largeObjectSelect(chunk: Buffer, at: number, end: number): string | undefined {
  const body = chunk.subarray(at + 5, end);
  if (body.length < 10) return undefined;
  const name = functions.get(body.readUInt32BE(0));
  const start = 6 + 2 * body.readUInt16BE(4);
  if (name === undefined || start + 2 > body.length) return undefined;
  const values: string[] = [];
  let position = start + 2;
  for (let left = body.readUInt16BE(start); left > 0; left--) {
    if (position + 4 > body.length) return undefined;
    const length = body.readInt32BE(position);
    if (length < -1 || position + 4 + Math.max(0, length) > body.length) return undefined;
    values.push(shown(body.subarray(position + 4, position + 4 + Math.max(0, length))));
    position += 4 + Math.max(0, length);
  }
  return position + 2 === body.length ? `SELECT pg_catalog.${name}(${values.join(", ")})` : undefined;
}

/** Numbers are told, as they name the object; data is not. */
function shown(value: Buffer): string {
  if (value.length === 4) return String(value.readUInt32BE(0));
  return value.length === 8 ? String(value.readBigInt64BE(0)) : "'…'";
}
