import { expect, it } from "vitest";
import { RepeatedText } from "./repeated-text.ts";

it("gives each text as it stands there, whatever stood there before", () => {
  const texts = new RepeatedText();
  const long = "l".repeat(65);
  for (const text of ["a", "a", "b", "", "ab", "ä", "ä", long, long, "a", ""]) {
    const chunk = Buffer.from(`<${text}>`);
    expect(texts.read(chunk, 1, chunk.length - 1)).toBe(text);
  }
});

it("keeps no slice of what it reads", () => {
  const texts = new RepeatedText();
  const chunk = Buffer.from("SELECT 1");
  expect(texts.read(chunk, 0, chunk.length)).toBe("SELECT 1");
  chunk.write("INSERT 2");
  expect(texts.read(chunk, 0, chunk.length)).toBe("INSERT 2");
});
