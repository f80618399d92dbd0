/** Shows a recording as text. A recording holds what a client chose to send, so nothing of it reaches a terminal raw. */
import type { Recorded } from "./model.ts";

/** Renders records as lines of text, each without a newline at its end. */
export async function* renderReplay(
  records: AsyncIterable<Recorded> | Iterable<Recorded>,
): AsyncGenerator<string, void, undefined> {
  let startedAt: number | undefined;
  for await (const record of records) {
    if ("at" in record) startedAt ??= record.at;
    const at = "at" in record ? offset(record.at - (startedAt ?? record.at)) : " ".repeat(12);
    for (const line of renderable(record)) yield `${at}  ${line}`;
  }
}

/** Makes text safe to print: control, bidirectional and invisible characters become visible escapes. */
export function printable(text: unknown): string {
  return String(text).replace(unprintable, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return `\\u{${code.toString(16)}}`;
  });
}

/** Controls, formats (bidirectional ones among them), surrogates, private and unassigned characters, separators. */
const unprintable = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** A changed recording may hold records of any form: they are shown as that, and the rest still is. */
function renderable(record: Recorded): readonly string[] {
  try {
    return render(record);
  } catch {
    return ["(a record that no recorder wrote: run verify)"];
  }
}

function render(record: Recorded): readonly string[] {
  switch (record.kind) {
    case "opening":
      return [
        `session ${printable(record.sessionId)} on ${printable(record.namespace)}/${printable(record.resource)}`,
        `${printable(record.user)} (${printable(record.subject)}, ${printable(record.provider)}) as ` +
          `${printable(record.account)} to ${printable(record.database)} from ${printable(record.clientAddress)}, ` +
          new Date(Number(record.at) || 0).toISOString(),
      ];
    case "command":
      return renderCommand(record);
    case "response": {
      const outcome = record.sqlstate === undefined ? (record.tag ?? "done") : `error ${record.sqlstate}`;
      const { rows, bytes, ms } = record;
      return [
        `${number(record.n)} < ${printable(outcome)} (${printable(rows)} rows, ${printable(bytes)} bytes, ${printable(ms)} ms)`,
      ];
    }
    case "rows": {
      const lines = record.text === undefined ? [`base64 ${record.base64}`] : String(record.text).split("\n");
      const shown = lines.map((line) => `${number(record.n)} | ${printable(line)}`);
      return record.cut ? [...shown, `${number(record.n)} | (the rest was not recorded)`] : shown;
    }
    case "stream": {
      const bytes = record.text === undefined ? Buffer.from(String(record.base64), "base64") : undefined;
      const lines = (bytes?.toString("utf8") ?? String(record.text)).split("\n");
      if (lines.length > 1 && lines.at(-1) === "") lines.pop();
      const mark = streamMarks[record.stream] ?? "?";
      const shown = lines.map((line) => `${number(record.n)} ${mark} ${printable(line)}`);
      return record.cut ? [...shown, `${number(record.n)} ${mark} (the rest was not recorded)`] : shown;
    }
    case "event":
      return [`* ${printable(record.name)} ${printable(JSON.stringify(record.fields))}`];
    case "closing":
      return [
        `closed: ${printable(record.reason)} (${printable(record.commands)} commands, ${printable(record.refused)} refused)`,
      ];
  }
}

const streamMarks: Readonly<Record<string, string>> = { o: "o|", e: "e|", i: "i|" };

function renderCommand(record: Extract<Recorded, { kind: "command" }>): readonly string[] {
  const { verdict } = record;
  const rule = verdict.rule === undefined ? "no rule" : `${verdict.policy}/${verdict.rule}`;
  const message = verdict.message === undefined ? "" : `: ${verdict.message}`;
  const lines = String(record.sql).split(/\r?\n/);
  const shown = lines.map(
    (line, index) =>
      `${number(record.n)} ${index === 0 ? ">" : " "} ${line.split("\t").map(printable).join("    ")}`,
  );
  const parameters = (record.parameters ?? []).map((parameter, index) => {
    const value =
      typeof parameter === "string"
        ? `'${parameter}'`
        : parameter === null
          ? "NULL"
          : `binary ${parameter.binary}`;
    return `${number(record.n)}   $${index + 1} = ${printable(value)}`;
  });
  const decided = `${number(record.n)}   ${verdict.action} by ${rule} (${verdict.enforcement})${message}`;
  return [...shown, ...parameters, printable(decided)];
}

function number(n: number): string {
  return `#${printable(n)}`;
}

function offset(ms: number): string {
  const safe = Number.isFinite(ms) ? Math.max(0, ms) : 0;
  const hours = Math.floor(safe / 3_600_000);
  const rest = new Date(safe % 3_600_000).toISOString().slice(14, 23);
  return `${String(hours).padStart(2, "0")}:${rest}`;
}
