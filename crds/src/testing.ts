import fc from "fast-check";

const beforeSurrogates = 0xd800;
const surrogates = 0x800;

/**
 * Any character that is no half of another: a `unit` for strings. That of the library's own, `binary`, takes a second and
 * a hundred megabytes to be made.
 */
export const anyCharacter: fc.Arbitrary<string> = fc
  .integer({ min: 0, max: 0x10ffff - surrogates })
  .map((n) => String.fromCodePoint(n < beforeSurrogates ? n : n + surrogates));
