/**
 * SASLprep (RFC 4013) of a password as PostgreSQL does it: where it fails, the password is used as it is.
 * https://www.postgresql.org/docs/18/sasl-authentication.html#SASL-SCRAM-SHA-256
 */

/** The bytes that SCRAM derives its key from. */
export function saslPrepared(password: string): Buffer {
  // ASCII needs no preparation, control characters included: PostgreSQL takes the same short way.
  if (/^[\0-\x7f]*$/.test(password)) return Buffer.from(password);
  const mapped = password.replace(mappedToSpace, " ").replace(mappedToNothing, "");
  const prepared = mapped.normalize("NFKC");
  return Buffer.from(prepared !== "" && isAllowed(prepared) ? prepared : password);
}

/** RFC 3454 table C.1.2, with ZERO WIDTH SPACE as PostgreSQL has it. */
const mappedToSpace = /[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/gu;

/** RFC 3454 table B.1. */
// biome-ignore lint/suspicious/noMisleadingCharacterClass: the joiners and selectors themselves are meant
const mappedToNothing = /[\u00ad\u034f\u1806\u180b-\u180d\u200c\u200d\u2060\ufe00-\ufe0f\ufeff]/gu;

/** RFC 3454 tables C.2 to C.9, and code points that nobody has assigned. */
const prohibited =
  /[\p{Cc}\p{Co}\p{Cs}\p{Cn}\u06dd\u070f\u180e\u2028\u2029\u200e\u200f\u202a-\u202e\u2061-\u2063\u206a-\u206f\ufff9-\uffff\u{1d173}-\u{1d17a}\u2ff0-\u2ffb\u{e0001}\u{e0020}-\u{e007f}]|\u0340|\u0341/u;

/** RFC 3454 table D.1, right-to-left characters. */
const rightToLeft =
  /[\u05be\u05c0\u05c3\u05d0-\u05ea\u05f0-\u05f4\u061b\u061f\u0621-\u063a\u0640-\u064a\u066d-\u066f\u0671-\u06d5\u06dd\u06e5\u06e6\u06fa-\u06fe\u0700-\u070d\u0710\u0712-\u072c\u0780-\u07a5\u07b1\u200f\ufb1d\ufb1f-\ufb28\ufb2a-\ufb36\ufb38-\ufb3c\ufb3e\ufb40\ufb41\ufb43\ufb44\ufb46-\ufbb1\ufbd3-\ufd3d\ufd50-\ufd8f\ufd92-\ufdc7\ufdf0-\ufdfc\ufe70-\ufe74\ufe76-\ufefc]/u;

function isAllowed(text: string): boolean {
  if (prohibited.test(text)) return false;
  if (!rightToLeft.test(text)) return true;
  // RFC 3454 section 6: right-to-left text holds no left-to-right letter, and begins and ends right-to-left.
  const characters = [...text];
  const hasLeftToRight = characters.some((one) => /\p{L}/u.test(one) && !rightToLeft.test(one));
  return (
    !hasLeftToRight && rightToLeft.test(characters[0] ?? "") && rightToLeft.test(characters.at(-1) ?? "")
  );
}
