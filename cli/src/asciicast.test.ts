import type { Recorded } from "@sallyport/sidecar";
import { expect, test } from "vitest";
import { asciicastLines } from "./asciicast.ts";

const stream = (n: number, at: number, bytes: string): Recorded => ({
  kind: "stream",
  n,
  at,
  stream: "o",
  base64: Buffer.from(bytes).toString("base64"),
});

test("a recorded terminal becomes an asciicast, without sequences that reach beyond the screen", async () => {
  const fields = { command: 2, term: "xterm", width: 100, height: 30 };
  const records: Recorded[] = [
    { kind: "event", at: 1000, name: "terminal", fields },
    stream(1, 1500, "another command"),
    stream(2, 2000, "\u001b[31mred\u001b]52;c;bWFya2Vy"),
    stream(2, 2500, "\u0007\u001b[0m done"),
    { kind: "event", at: 3000, name: "resized", fields: { command: 2, width: 50, height: 10 } },
  ];
  const lines: string[] = [];
  for await (const text of asciicastLines(records, 2)) lines.push(...text.split("\n"));
  const [header, ...events] = lines.map((line) => JSON.parse(line));
  expect(header).toMatchObject({ version: 2, width: 100, height: 30, timestamp: 2, env: { TERM: "xterm" } });
  expect(events).toEqual([
    [0, "o", "\u001b[31mred"],
    [0.5, "o", "\u001b[0m done"],
    [1, "r", "50x10"],
  ]);
});

test("a terminal that says its size after it was opened has that size from the start", async () => {
  const records: Recorded[] = [
    { kind: "event", at: 900, name: "terminal", fields: { command: 1, tty: true, pod: "a/b" } },
    { kind: "event", at: 950, name: "resized", fields: { command: 1, width: 101, height: 33 } },
    stream(1, 1000, "hello"),
  ];
  const lines: string[] = [];
  for await (const text of asciicastLines(records, undefined)) lines.push(...text.split("\n"));
  expect(JSON.parse(lines[0] ?? "")).toMatchObject({ width: 101, height: 33 });
  expect(lines).toHaveLength(2);
});
