/** How results are written: aligned columns for people, JSON for programs; recorded text never steers a terminal. */
import { type Command, Option } from "commander";
import type { Terminal } from "./terminal.ts";

/** For people, or for programs. */
export type OutputFormat = "text" | "json";

/** Adds `--output`, which every command with a result has. */
export function withOutput(command: Command): Command {
  const option = new Option("-o, --output <format>", "how to write the result");
  return command.addOption(option.choices(["text", "json"]).default("text"));
}

/** Writes one JSON document. */
export function writeJson(terminal: Terminal, value: unknown): void {
  terminal.out(`${jsonText(value, 2)}\n`);
}

/** JSON whose strings hold no character that a terminal would act on. */
export function jsonText(value: unknown, indent?: number): string {
  const text = JSON.stringify(value, undefined, indent) ?? "null";
  // JSON itself escapes C0; line feeds here are its own indentation.
  return text.replaceAll(steering, (character) =>
    character === "\n" ? character : unicodeEscape(character),
  );
}

/** Aligns rows under their headings; the last column is not padded, and on a terminal not longer than the line. */
export function table(
  headings: readonly string[],
  rows: readonly (readonly string[])[],
  columns?: number,
): string {
  const cells = [headings, ...rows.map((row) => row.map(printable))];
  const widths = headings.map((_, column) => Math.max(...cells.map((row) => lengthOf(row[column] ?? ""))));
  const lines = cells.map((row) => {
    const line = row
      .map((cell, column) => (column === row.length - 1 ? cell : pad(cell, widths[column] ?? 0)))
      .join("  ")
      .trimEnd();
    return columns === undefined ? line : cut(line, columns);
  });
  return `${lines.join("\n")}\n`;
}

/** Writes control characters, bidirectional overrides and invisible separators as escapes. */
export function printable(text: string): string {
  return text.replaceAll(steering, (character) => namedEscapes[character] ?? unicodeEscape(character));
}

/** Green, red or yellow where the terminal has colours. */
export function coloured(terminal: Terminal, colour: "green" | "red" | "yellow", text: string): string {
  return terminal.hasColours ? `\u001b[${colourCodes[colour]}m${text}\u001b[0m` : text;
}

/** `1 session`, `2 sessions`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

const colourCodes = { green: 32, red: 31, yellow: 33 } as const;
const namedEscapes: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
// Cc: C0, DEL and C1. Cf: bidirectional controls, zero-width characters. Zl, Zp: separators. Cs: lone surrogates.
const steering = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

const unicodeEscape = (character: string): string => {
  let escaped = "";
  for (const unit of character.split("")) escaped += `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return escaped;
};
const lengthOf = (text: string): number => [...text].length;
const pad = (text: string, width: number): string => text + " ".repeat(Math.max(0, width - lengthOf(text)));
const cut = (text: string, width: number): string =>
  lengthOf(text) <= width ? text : `${[...text].slice(0, Math.max(1, width - 1)).join("")}…`;
