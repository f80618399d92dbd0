import { expect, it } from "vitest";
import { backend, errorFrame, readErrorFields } from "./frames.ts";
import { SkipProbe } from "./skip-probe.ts";

const query = 0x51;
const idle = 0x49;

function asked(answers: string): SkipProbe | undefined {
  const probe = new SkipProbe(query, 3);
  for (const letter of answers) {
    const isReady = letter === "Z";
    if (!probe.take(isReady ? backend.readyForQuery : backend.closeComplete, isReady ? idle : 0))
      return undefined;
  }
  return probe;
}

it("tells a server that skips from one that has answered Syncs, and how many", () => {
  expect(asked("Z33")).toMatchObject({ isOver: true, isSkipped: true, answered: [] });
  expect(asked("Z3Z33")).toMatchObject({ isOver: true, isSkipped: false, answered: [idle] });
  expect(asked("ZZZ3Z33")).toMatchObject({ isOver: true, isSkipped: false, answered: [idle, idle, idle] });
});

it.each(["", "Z", "Z3", "Z3Z", "Z3Z3", "ZZ", "ZZ3", "ZZ3Z3"])("is not over after %j", (answers) => {
  expect(asked(answers)).toMatchObject({ isOver: false, isSkipped: false });
});

it.each(["3", "ZZ33", "Z3ZZ", "Z333", "Z33Z", "Z3Z333", "Z3Z3Z", "ZZZZ"])(
  "believes no server that says %s",
  (answers) => {
    expect(asked(answers)).toBeUndefined();
  },
);

it("names the client's message where the server names the probe's, and changes nothing else", () => {
  const probe = new SkipProbe(query, 1);
  const message = "unexpected message type 0x43 during COPY from stdin";
  const told = probe.told(errorFrame({ severity: "ERROR", sqlstate: "08P01", message, detail: "0x43" }));
  const fields = readErrorFields(told.subarray(5));
  expect(fields.get("M")).toBe("unexpected message type 0x51 during COPY from stdin");
  expect(fields.get("D")).toBe("0x43");
  const others = [
    errorFrame({ severity: "ERROR", sqlstate: "22P02", message: 'invalid input: "0x43"' }),
    errorFrame({ severity: "ERROR", sqlstate: "08P01", message: "lost", detail: "0x43" }),
  ];
  for (const other of others) expect(probe.told(other)).toEqual(other);
});
