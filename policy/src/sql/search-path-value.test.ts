import { expect, test } from "vitest";
import { parseSearchPath } from "./search-path-value.ts";

test.for([
  ['"$user", public', ["$user", "public"]],
  ["", []],
  ["  ", []],
  ["Public,SHOP", ["public", "shop"]],
  ['"Public" , "a""b","x, y"', ["Public", 'a"b', "x, y"]],
  ['""', [""]],
  ["a b", undefined],
  ["a,", undefined],
  [",a", undefined],
  ['"a', undefined],
  ['a"b"', undefined],
  ["É", undefined],
  ['"É"', ["É"]],
  ["a\u00a0,b", undefined],
  ["\ufeffa", undefined],
  ["a\v", undefined],
  [' a\t,\n"b" ', ["a", "b"]],
  ['"x,a,y", b', ["x,a,y", "b"]],
  ["x".repeat(70), ["x".repeat(63)]],
  [`"${"é".repeat(40)}"`, ["é".repeat(31)]],
] as const)("%s is read as the server reads it", ([value, names]) => {
  expect(parseSearchPath(value)).toEqual(names);
});
