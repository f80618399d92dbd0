import { expect, test } from "vitest";
import { AsciicastWriter } from "./asciicast.ts";
import { OutputMask } from "./output-mask.ts";
import { TerminalSanitiser } from "./sanitise.ts";

test("a character that is cut between chunks is recorded whole, and bytes that are no text as base64", () => {
  const writer = new AsciicastWriter({ width: 80, height: 24, nowMs: 1000 });
  const euro = Buffer.from("€");
  expect(writer.output("o", euro.subarray(0, 1), 1000)).toBe("");
  const [header, event] = writer.output("o", euro.subarray(1), 1250).trim().split("\n");
  expect(JSON.parse(header ?? "")).toMatchObject({ version: 2, width: 80, height: 24, timestamp: 1 });
  expect(JSON.parse(event ?? "")).toEqual([0.25, "o", "€"]);
  expect(JSON.parse(writer.output("e", Buffer.from([0xff, 0x41]), 1500))).toEqual([0.5, "eb", "/0E="]);
  expect(JSON.parse(writer.resized(100, 50, 2000))).toEqual([1, "r", "100x50"]);
});

test("a value is hidden wherever a chunk is cut, and the length of the output stays", () => {
  const text = "mail alice@example.com now\r\nbye\r\n";
  for (let cut = 1; cut < text.length; cut += 1) {
    const mask = new OutputMask([{ patterns: ["email"], customPatterns: [] }]);
    const shown = Buffer.concat([
      mask.push(Buffer.from(text.slice(0, cut))),
      mask.push(Buffer.from(text.slice(cut))),
      mask.flush(),
    ]).toString();
    expect(shown).not.toContain("alice@example");
    expect(shown.length).toBe(text.length);
    expect(shown).toContain("bye");
  }
});

test.each([
  ["a title", "\u001b]0;owned\u0007"],
  ["the clipboard", "\u001b]52;c;cm0gLXJmIC8=\u001b\\"],
  ["a device status query", "\u001b[6n"],
  ["a device attributes query", "\u001b[>c"],
  ["a window report", "\u001b[21t"],
  ["a device control string", '\u001bP$q"p\u001b\\'],
  ["8-bit controls", "\u009d0;owned\u009c"],
  ["a bidirectional override", "\u202e"],
  ["media copy", "\u001b[5i"],
  ["mouse reports", "\u001b[?1003h"],
  ["bracketed paste", "\u001b[?2004h"],
  ["an application's answerback", "\u0005"],
])("replay drops %s, however it is cut", (_name, dangerous) => {
  for (let cut = 0; cut <= dangerous.length; cut += 1) {
    const sanitiser = new TerminalSanitiser();
    const shown = sanitiser.push(`a${dangerous.slice(0, cut)}`) + sanitiser.push(`${dangerous.slice(cut)}b`);
    expect(shown).toBe("ab");
  }
});

test("replay keeps colours, cursor moves and wide characters", () => {
  const text = "\u001b[1;31mred\u001b[0m \u001b[2J\u001b[H日本\r\n\u001b[?25l\u001b[?1049h";
  expect(new TerminalSanitiser().push(text)).toBe(text);
});

test("a value is hidden where escape sequences stand in it, and where it is longer than what is held of a line", () => {
  const mask = new OutputMask([
    { patterns: ["email"], customPatterns: [{ name: "key", regex: "key-[0-9]{300}" }] },
  ]);
  const key = `key-${"7".repeat(300)}`;
  const shown = Buffer.concat([
    mask.push(Buffer.from("b\u001b[1mob@exam")),
    mask.push(Buffer.from("ple.com\n")),
    mask.push(Buffer.from(`${"x".repeat(4_000)} ${key.slice(0, 200)}`)),
    mask.push(Buffer.from(`${key.slice(200)} end`)),
    mask.flush(),
  ]).toString();
  expect(shown).not.toMatch(/ob@|example|key-/);
  expect(shown).toContain(" end");
});

test.each(["\u001bP", "\u001b]0;", "\u001b_", "\u0090", "\u001b[?1049h"])(
  "a value behind %j, which a terminal may not show, is hidden from programs that read the output",
  (before) => {
    const mask = new OutputMask([{ patterns: ["email"], customPatterns: [] }]);
    const bytes = Buffer.from(`${before} zoe@example.com\r\n`);
    const shown = Buffer.concat([mask.push(bytes), mask.flush()]);
    expect(shown.toString()).not.toContain("zoe@example");
    expect(shown.length).toBe(bytes.length);
  },
);
