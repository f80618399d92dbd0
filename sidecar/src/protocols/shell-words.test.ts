import { spawnSync } from "node:child_process";
import fc from "fast-check";
import { expect, test } from "vitest";
import { plainCommands } from "./shell-words.ts";

/** Which commands of these names a shell itself runs, with their words; undefined where it has none of it. */
function ranBy(shell: string, line: string): readonly (readonly string[])[] | undefined {
  // One write each, as both sides of a pipe run at once; no other program is found.
  const functions = ["a", "b"].map((name) => `${name}() { printf '%s\\0' ${name} "$@" '(end)' >&3; }\n`);
  const { status, output } = spawnSync(shell, ["-c", `${functions.join("")}${line}`], {
    env: { PATH: "/nonexistent", LC_ALL: "C.UTF-8" },
    stdio: ["ignore", "ignore", "ignore", "pipe"],
    timeout: 20_000,
  });
  if (status === null) return undefined;
  const commands: string[][] = [[]];
  for (const word of String(output[3]).split("\0").slice(0, -1)) {
    if (word === "(end)") commands.push([]);
    else commands.at(-1)?.push(word);
  }
  return commands.slice(0, -1);
}

const pieces = fc.array(
  fc.constantFrom(
    ..."a,b, ,;,\n,|,||,&&,&,',\",\\,é,中,x,\t,\r,\u00a0,\u3000,\f,#,=,~,-,{,}".split(","),
    ...[" a", "; a", "\nb ", "| b", "'a b'", '"a', "\\;", "\\ ", "''", "a ", "a ", "b "],
  ),
  { minLength: 1, maxLength: 12 },
);

test.each(["/bin/sh", "/bin/bash"])("what is read in a line is what %s runs of it", (shell) => {
  let compared = 0;
  const runs = 1_500;
  fc.assert(
    fc.property(pieces, (parts) => {
      const line = parts.join("");
      const commands = plainCommands(line);
      const known = commands?.every(([name]) => name === "a" || name === "b");
      if (commands === undefined || known !== true || compared > runs / 20) return;
      compared += 1;
      const ran = ranBy(shell, line);
      const text = (all: readonly (readonly string[])[] = []) => all.map((one) => JSON.stringify(one)).sort();
      // Behind `||` nothing runs, since what stands before it succeeds.
      if (line.includes("||")) expect(text(commands)).toEqual(expect.arrayContaining(text(ran)));
      else expect(text(ran)).toEqual(text(commands));
    }),
    { numRuns: runs },
  );
  expect(compared).toBeGreaterThan(20);
});
