import { describe, expect, it } from "vitest";
import { Link } from "./link.ts";

type Answers = { readonly double: (value: number) => number; readonly fail: (none: null) => never };

function pair() {
  const told: number[] = [];
  const here: Link<Answers> = new Link<Answers>({ send: (message) => there.receive(message) }, {});
  const answers = {
    double: (value: number) => {
      told.push(value);
      return value * 2;
    },
    fail: () => {
      throw new Error("it cannot");
    },
  };
  const there: Link<Answers> = new Link<Answers>({ send: (message) => here.receive(message) }, answers);
  return { here, there, told };
}

describe("a link between processes", () => {
  it("brings answers to whoever asked, however many ask", async () => {
    const { here } = pair();
    expect(await Promise.all([1, 2, 3].map((value) => here.ask("double", value)))).toEqual([2, 4, 6]);
  });

  it("brings failures as failures, and unknown questions too", async () => {
    const { here, there } = pair();
    await expect(here.ask("fail", null)).rejects.toThrow("it cannot");
    await expect(there.ask("double", 1)).rejects.toThrow("an unknown question");
  });

  it("tells without waiting", async () => {
    const { here, told } = pair();
    here.tell("double", 7);
    expect(told).toEqual([7]);
  });

  it("lets nobody wait for a process that has ended", async () => {
    const silent = new Link<Answers>({ send: () => undefined }, {});
    const waiting = silent.ask("double", 1);
    silent.close();
    await expect(waiting).rejects.toThrow("the other process has ended");
  });

  it.each([null, 1, "ask", {}, { link: "other" }, { link: "answer", id: 99 }])(
    "leaves %j alone",
    (message) => {
      expect(() => pair().here.receive(message)).not.toThrow();
    },
  );
});
