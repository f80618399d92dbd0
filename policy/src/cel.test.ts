import { describe, expect, test } from "vitest";
import {
  type CelBindings,
  celBounds,
  celCommand,
  celIdentity,
  celTime,
  compileCel,
  regexProblem,
} from "./cel.ts";
import type { Command, CommandPart, Identity } from "./model.ts";

const identity: Identity = {
  provider: "okta",
  user: "okta:alice",
  groups: ["okta:ops"],
  kind: "Human",
  claims: { duty: ["oncall"], nested: { level: 3 }, empty: null },
};
const part: CommandPart = {
  operation: "read",
  words: ["SELECT"],
  objects: [{ name: "public.a", kind: "relation", direct: true }],
  unbounded: false,
  enforcement: "authoritative",
};
const command = (text: string): Command => ({ protocol: "postgres", text, parts: [part] });
const bindings = (given: Partial<CelBindings> = {}): CelBindings => ({
  identity: celIdentity(identity),
  resource: new Map(),
  session: new Map(),
  command: celCommand(command("SELECT 1"), part),
  time: celTime(Date.UTC(2026, 0, 5, 12)),
  ...given,
});

function evaluated(source: string, given: Partial<CelBindings> = {}): boolean | undefined {
  const compilation = compileCel(source);
  if (compilation.kind === "invalid") throw new Error(compilation.message);
  return compilation.program.evaluate(bindings(given));
}

function refused(source: string): string {
  const compilation = compileCel(source);
  return compilation.kind === "invalid" ? `${compilation.reason}: ${compilation.message}` : "compiled";
}

describe("an expression", () => {
  test.each([
    ['"oncall" in identity.claims.duty', true],
    ["identity.claims.nested.level >= 3", true],
    ["identity.claims.empty == null", true],
    ["has(identity.onBehalfOf)", false],
    ['identity.groups.exists(g, g.endsWith(":ops"))', true],
    ['command.words == ["SELECT"] && !command.unbounded', true],
    ['command.text.matches("^SELECT")', true],
    ['time.getDayOfWeek() == 1 && time < timestamp("2027-01-01T00:00:00Z")', true],
    ["size(command.objects) == 1 ? true : false", true],
    ['command["text"] == "SELECT 1"', true],
    ['type(identity.user) == string && int("3") == 3', true],
  ])("%s is %s", (source, result) => expect(evaluated(source)).toBe(result));

  test.each([
    "identity.claims.absent == 1",
    "identity.claims.constructor == 1",
    "identity.claims.__proto__ == 1",
    "identity.user",
    "1 / 0 == 1",
    "command.argv[0] == 'ls'",
    "identity.claims.duty > 3",
  ])("%s is an error, and no exception", (source) => expect(evaluated(source)).toBeUndefined());
});

describe("the cost of an expression is bounded when it is compiled", () => {
  const tens = "[1,2,3,4,5,6,7,8,9,10]";
  const nested = (depth: number): string =>
    depth === 0 ? "true" : `${tens}.all(x${depth}, ${nested(depth - 1)})`;

  test("six nested comprehensions over ten elements are refused", () => {
    expect(refused(nested(6))).toMatch(/nests comprehensions deeper than 2/);
    expect(refused(nested(3))).toMatch(/nests comprehensions deeper than 2/);
    expect(refused(nested(2))).toBe("compiled");
  });

  test("a comprehension inside the range of another counts as well", () => {
    const chained = `${tens}${".map(x, x + 1)".repeat(5)}.size() == 10`;
    expect(refused(chained)).toMatch(/more than 4 comprehensions/);
  });

  test("a map inside a map inside a filter is refused", () => {
    const source = `${tens}.filter(a, ${tens}.map(b, ${tens}.map(c, c))[0][0] == 1).size() > 0`;
    expect(refused(source)).toMatch(/nests comprehensions/);
  });

  test.each([
    ["brackets", `${"(".repeat(400)}true${")".repeat(400)}`, /nests brackets/],
    ["a chain of conditionals", `${"true ? true : ".repeat(250)}true`, /nests deeper/],
    ["a chain of sums", `1${" + 1".repeat(600)} == 3`, /nests deeper|terms/],
    ["a list literal", `1 in [${"1,".repeat(200)}1]`, /more than 128 elements/],
    ["terms", `[${"[1,2,3,4,5],".repeat(120)}[1]] == []`, /more than 512 terms/],
    ["a long text", `"${"x".repeat(5_000)}" == "x"`, /longer than/],
    ["nothing", " ", /must be a CEL expression/],
    ["an unfinished one", "identity.user ==", /InvalidCel/],
    ["an unknown name", "user == 'x'", /unknown name "user"/],
    ["an unknown field", "command.txt == 'x'", /no field "txt"/],
    ["an unknown function", "identity.user.exec()", /unknown function "exec"/],
    ["a message", "google.protobuf.Duration{seconds: 1} == duration('1s')", /unknown message/],
    ["a bad pattern", 'command.text.matches("(")', /InvalidRegex/],
    [
      "adding lists in the range of a comprehension",
      "(identity.groups + identity.groups).all(g, g != '')",
      /range of a comprehension/,
    ],
    [
      "adding lists in the range of a range",
      "[identity.groups + identity.groups].all(g, g.all(h, h != ''))",
      /range of a comprehension/,
    ],
    [
      "matching inside nested comprehensions",
      "identity.groups.all(a, identity.groups.all(b, b.matches('x')))",
      /matches inside nested/,
    ],
    ["a pattern from data", "command.text.matches(identity.claims.pattern)", /InvalidRegex.*literal/],
    ["a back-reference", 'command.text.matches("(a)\\\\1")', /InvalidRegex/],
  ])("%s is refused", (_, source, message) => expect(refused(source)).toMatch(message));
});

describe("what a client makes large is an error, which fails closed", () => {
  test("a text that is too long is not given to an expression", () => {
    const long = celCommand(command("x".repeat(celBounds.textChars + 1)), part);
    expect(evaluated('command.text.contains("drop")', { command: long })).toBeUndefined();
    expect(evaluated('identity.user == "okta:alice"', { command: long })).toBe(true);
  });

  test("claims without end are not", () => {
    const claims = { list: Array.from({ length: 5_000 }, () => 1) };
    expect(
      evaluated("size(identity.claims.list) > 1", { identity: celIdentity({ ...identity, claims }) }),
    ).toBe(undefined);
    let deep: Record<string, unknown> = {};
    for (let depth = 0; depth < 50; depth++) deep = { deep };
    expect(celIdentity({ ...identity, claims: deep })).toBeUndefined();
  });

  test("lists under two nested comprehensions are short ones", () => {
    const source = "identity.groups.all(a, identity.groups.exists(b, a == b))";
    const groups = (count: number) =>
      celIdentity({ ...identity, groups: Array.from({ length: count }, (_, index) => `g${index}`) });
    expect(evaluated(source, { identity: groups(celBounds.nestedInputElements) })).toBe(true);
    expect(evaluated(source, { identity: groups(celBounds.nestedInputElements + 1) })).toBeUndefined();
  });

  test("what a pattern meets inside a comprehension is short", () => {
    const source = "command.objects.all(o, command.text.matches('^SELECT'))";
    const text = (length: number) => celCommand(command("SELECT".padEnd(length)), part);
    expect(evaluated(source, { command: text(celBounds.loopedRegexChars) })).toBe(true);
    expect(evaluated(source, { command: text(celBounds.loopedRegexChars + 1) })).toBeUndefined();
  });

  test("the worst expression that is let in ends soon", () => {
    const claims = { list: Array.from({ length: celBounds.nestedInputElements }, (_, index) => index) };
    const inner = "identity.claims.list.all(b, a + b >= 0)";
    const source = `identity.claims.list.all(a, ${inner}) && identity.claims.list.all(a, ${inner})`;
    const started = process.cpuUsage();
    expect(evaluated(source, { identity: celIdentity({ ...identity, claims }) })).toBe(true);
    expect(process.cpuUsage(started).user).toBeLessThan(1_000_000);
  });

  test("a pattern that makes other engines backtrack for ever ends at once", () => {
    const started = process.cpuUsage();
    const text = celCommand(command("a".repeat(celBounds.textChars)), part);
    expect(evaluated('command.text.matches("^(a+)+$x")', { command: text })).toBe(false);
    expect(process.cpuUsage(started).user).toBeLessThan(2_000_000);
  });
});

test("what an expression reads is known, and says what may be cached", () => {
  const reads = (source: string) => {
    const compilation = compileCel(source);
    if (compilation.kind === "invalid") throw new Error(compilation.message);
    const entries = Object.entries(compilation.program.reads);
    return entries.filter(([, isRead]) => isRead).map(([key]) => key);
  };
  expect(reads("identity.kind == 'Human'")).toEqual(["identity"]);
  expect(reads("command.words.exists(w, w == 'X')")).toEqual(["command"]);
  expect(reads("command.text == ''")).toEqual(["command", "text"]);
  expect(reads('command["te" + "xt"] == ""')).toEqual(["command", "text"]);
  expect(reads("time.getHours() == 1")).toEqual(["time"]);
  expect(reads("session.database == 'a'")).toEqual(["session"]);
  expect(reads("session.applicationName == 'a'")).toEqual(["session", "claimedByClient"]);
  expect(reads("[command].all(c, c.text == '')")).toEqual(["command", "text"]);
});

test("regular expressions of masks are checked with the engine that runs them", () => {
  expect(regexProblem("[0-9]{3}-[0-9]{2}")).toBeUndefined();
  expect(regexProblem("(")).toMatch(/missing/);
  expect(regexProblem("(?=x)")).toBeDefined();
  expect(regexProblem("x".repeat(2_000))).toMatch(/longer/);
  const started = process.cpuUsage();
  expect(regexProblem("((a{1000}){1000}){1000}")).toBeDefined();
  expect(process.cpuUsage(started).user).toBeLessThan(1_000_000);
});
