/** Values of search_path, read as PostgreSQL reads them (SplitIdentifierString), and what it adds to them. */

/** The names of a search_path value, unquoted and folded; undefined where PostgreSQL would not take the value. */
export function parseSearchPath(value: string): readonly string[] | undefined {
  if (/^[ \t\n\r\f]*$/.test(value)) return [];
  const names: string[] = [];
  // White space is ASCII's alone, and \v is some from PostgreSQL 16 on. Outside of quotes what is beyond ASCII may be folded, in
  // databases of one byte a character.
  const element = /[ \t\n\r\f]*(?:"((?:[^"]|"")*)"|([!#-+\--~]+))[ \t\n\r\f]*(,|$)/y;
  for (;;) {
    const found = element.exec(value);
    if (found === null) return undefined;
    const [, quoted, bare, end] = found;
    const name = quoted?.replaceAll('""', '"') ?? bare?.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
    if (name === undefined) return undefined;
    names.push(truncated(name));
    if (end === "") return names;
    // A comma must be followed by another name.
    if (element.lastIndex >= value.length) return undefined;
  }
}

/** The schemas that names are looked up in: PostgreSQL looks in pg_temp and pg_catalog first unless the path lists them. */
export function withImplicitSchemas(listed: readonly string[]): readonly string[] {
  const path = new Set(listed);
  const implicit = ["pg_temp", "pg_catalog"].filter((schema) => !path.has(schema));
  return [...implicit, ...path];
}

const nameBytesMax = 63;

// Longer names are cut at a character, as the server does.
function truncated(name: string): string {
  if (Buffer.byteLength(name) <= nameBytesMax) return name;
  let cut = "";
  let bytes = 0;
  for (const character of name) {
    bytes += Buffer.byteLength(character);
    if (bytes > nameBytesMax) break;
    cut += character;
  }
  return cut;
}
