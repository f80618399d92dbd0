import { expect, test } from "vitest";
import type { SessionGuard } from "../../guard/index.ts";
import { CommandOutput } from "./command-output.ts";

/** The output of a command whose recording takes its time, and what of it was shown. */
function slowlyRecorded() {
  const shown: string[] = [];
  const recorded = Promise.withResolvers<void>();
  const guard = { recordsRows: true, masking: { patterns: [] }, stream: () => recorded.promise };
  const output = new CommandOutput({
    guard: guard as unknown as SessionGuard,
    ...{ number: 1, isText: true, hasTerminal: false, onPattern: () => undefined, isStopped: () => false },
    inTurn: (task) => void task(),
    toClient: (bytes) => void shown.push(bytes.toString()),
  });
  return { output, shown, recorded };
}

test("output is shown once it is recorded", async () => {
  const { output, shown, recorded } = slowlyRecorded();
  const done = output.push(Buffer.from("one"), undefined);
  expect(shown).toEqual([]);
  recorded.resolve();
  await done;
  expect(shown).toEqual(["one"]);
});

test("nothing follows the end of a command, also of what was being recorded then", async () => {
  const { output, shown, recorded } = slowlyRecorded();
  const done = output.push(Buffer.from("late"), undefined);
  output.end();
  recorded.resolve();
  await done;
  expect(shown).toEqual([]);
});
