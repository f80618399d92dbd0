import { expect, test } from "vitest";
import { KeptTexts } from "./kept-texts.ts";

test("a text is made something of once, until others have taken its place", () => {
  const kept = new KeptTexts<string>(10);
  const made: string[] = [];
  const get = (text: string) =>
    kept.get(text, (given) => {
      made.push(given);
      return given.toUpperCase();
    });
  expect(get("aaaa")).toBe("AAAA");
  expect(get("bbbb")).toBe("BBBB");
  expect(get("aaaa")).toBe("AAAA");
  expect(made).toEqual(["aaaa", "bbbb"]);
  // The one that was used longest ago makes place.
  get("cccc");
  get("aaaa");
  expect(made).toEqual(["aaaa", "bbbb", "cccc"]);
  get("bbbb");
  expect(made).toEqual(["aaaa", "bbbb", "cccc", "bbbb"]);
});

test("what fails and what is very long is not kept", () => {
  const kept = new KeptTexts<number>(1_000_000);
  const long = "x".repeat(20_001);
  let times = 0;
  const count = () => {
    times += 1;
    return times;
  };
  expect([kept.get(long, count), kept.get(long, count)]).toEqual([1, 2]);
  const fails = () => {
    throw new Error("no");
  };
  expect(() => kept.get("a", fails)).toThrow("no");
  expect(kept.get("a", count)).toBe(3);
});
