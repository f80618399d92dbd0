import fc from "fast-check";
import { expect, test } from "vitest";
import { PatternScanner, patternNames } from "./patterns.ts";

const scanner = new PatternScanner(patternNames);

/** The text with each match in brackets, and what they were. */
function marked(text: string): string {
  const bytes = Buffer.from(text);
  let result = "";
  let done = 0;
  for (const { start, end, pattern } of scanner.scan(bytes)) {
    result += `${bytes.subarray(done, start)}[${pattern}:${bytes.subarray(start, end)}]`;
    done = end;
  }
  return result + bytes.subarray(done).toString();
}

test.each([
  ["mail alice@example.com now", "mail [email:alice@example.com] now"],
  ["<o'neil+x@mail.example.co.uk>.", "<[email:o'neil+x@mail.example.co.uk]>."],
  ['{"e":"bob@example.org"}', '{"e":"[email:bob@example.org]"}'],
  ["müller@exämple.de", "[email:müller@exämple.de]"],
  ["4111 1111 1111 1111.", "[creditCard:4111 1111 1111 1111]."],
  ["4111111111111111", "[creditCard:4111111111111111]"],
  ["378282246310005", "[creditCard:378282246310005]"],
  ["ssn 123-45-6789,", "ssn [ssn:123-45-6789],"],
  ["123 45 6789", "[ssn:123 45 6789]"],
  ["+49 30 901820", "[phone:+49 30 901820]"],
  ["+4930901820", "[phone:+4930901820]"],
  ["(555) 123-4567", "[phone:(555) 123-4567]"],
  ["555-123-4567", "[phone:555-123-4567]"],
  ["1-555-123-4567", "[phone:1-555-123-4567]"],
  ["from 10.0.12.254:80", "from [ipv4:10.0.12.254]:80"],
  ["2001:db8::ff00:42:8329", "[ipv6:2001:db8::ff00:42:8329]"],
  ["fe80::1%eth0", "[ipv6:fe80::1]%eth0"],
  ["1:2:3:4:5:6:7:8", "[ipv6:1:2:3:4:5:6:7:8]"],
  ["::ffff:10.0.0.1", "[ipv6:::ffff:10.0.0.1]"],
  ["eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln", "[jwt:eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln]"],
  ["key AKIAIOSFODNN7EXAMPLE.", "key [awsKey:AKIAIOSFODNN7EXAMPLE]."],
  [
    "x\n-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\ny",
    "x\n[privateKey:-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----]\ny",
  ],
  ["-----BEGIN PRIVATE KEY-----\nabc", "[privateKey:-----BEGIN PRIVATE KEY-----\nabc]"],
])("finds what is there: %s", (text, expected) => {
  expect(marked(text)).toBe(expected);
});

test.each([
  "4111 1111 1111 1112",
  "0000000000000000",
  "000-45-6789",
  "666-45-6789",
  "923-45-6789",
  "123-00-6789",
  "123-45-67890",
  "x@y",
  "@example.com",
  "a@b.1c",
  "256.1.1.1",
  "1.2.3.4.5",
  "12:34:56",
  "2026-11-21 10:18:33",
  "5551234567",
  "1234567890123456789012345",
  "eyJhbGciOiJub25lIn0",
  "AKIAIOSFODNN7EXAMPL",
  "xAKIAIOSFODNN7EXAMPLE",
  "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----",
  "::",
  "a::b::c",
])("takes nothing else for one: %s", (text) => {
  expect(marked(text)).toBe(text);
});

test("only what was asked for is looked for", () => {
  const only = new PatternScanner(["ipv4"]);
  expect(only.scan(Buffer.from("a@b.com 10.0.0.1"))).toEqual([{ start: 8, end: 16, pattern: "ipv4" }]);
});

test("matches lie in order, inside the range, and never overlap, whatever the bytes", () => {
  const pieces = fc.constantFrom(
    ..."a@b.com 4111111111111111 123-45-6789 +4930901820 10.0.0.1 ::1 eyJ .eyJ AKIA - -----BEGIN : . ( ) é".split(
      " ",
    ),
    " ",
    "-",
    "7",
  );
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 40 }), fc.nat(10), (parts, skip) => {
      const bytes = Buffer.from(parts.join(""));
      let last = Math.min(skip, bytes.length);
      for (const { start, end } of scanner.scan(bytes, last)) {
        expect(start).toBeGreaterThanOrEqual(last);
        expect(end).toBeGreaterThan(start);
        expect(end).toBeLessThanOrEqual(bytes.length);
        last = end;
      }
    }),
  );
});

test("a secret is found wherever it stands between other bytes", () => {
  const secrets = ["bob@example.org", "4111111111111111", "123-45-6789", "10.20.30.40"];
  fc.assert(
    fc.property(
      fc.constantFrom(...secrets),
      fc.stringMatching(/^[ ,;"'\n<>|/]{1,12}$/),
      fc.stringMatching(/^[ ,;"\n<>|]{1,12}$/),
      (secret, before, after) => {
        const text = before + secret + after;
        const covered = scanner.scan(Buffer.from(text)).some(({ start, end }) => {
          return start <= before.length && end >= before.length + secret.length;
        });
        expect(covered).toBe(true);
      },
    ),
  );
});
