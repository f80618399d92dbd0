import { expect, test } from "vitest";
import { ReportedPath, samePath, TrackedPath } from "./search-path.ts";

test("an unknown path is like no other", () => {
  expect(samePath(undefined, undefined)).toBe(false);
  expect(samePath(["a"], ["a"])).toBe(true);
  expect(samePath(["a", "b"], ["a"])).toBe(false);
});

test("without reports a change that is no literal makes the path unknown until it is taken back", () => {
  const path = new TrackedPath(["public"]);
  path.set(undefined, false);
  expect(path.current).toBeUndefined();
  path.end(false);
  expect(path.current).toEqual(["public"]);
  path.set(undefined, false);
  path.end(true);
  expect(path.current).toBeUndefined();
  path.reset();
  expect(path.current).toEqual(["public"]);
});

test("a server that reports nothing goes back to the first path at a reset, and a rollback takes that back", () => {
  const path = new TrackedPath(["public"]);
  path.set(["shop"], false);
  path.savepoint("a");
  path.setInitial(true);
  expect(path.current).toEqual(["public"]);
  path.rollbackTo("a");
  expect(path.current).toEqual(["shop"]);
  path.setInitial(false);
  path.end(true);
  expect(path.current).toEqual(["public"]);
});

test("a server that reports is believed alone on where a reset leads", () => {
  const path = new ReportedPath(["public"]);
  path.setInitial();
  expect(path.current).toBeUndefined();
  path.report(["other"]);
  expect(path.current).toEqual(["other"]);
});

test("a report outranks what effects said, and nothing is known between a rollback and its report", () => {
  const path = new ReportedPath(["public"]);
  path.set(["shop"]);
  expect(path.current).toEqual(["shop"]);
  path.report(["other"]);
  expect(path.current).toEqual(["other"]);
  path.set(["shop"]);
  path.rollbackTo();
  expect(path.current).toBeUndefined();
  path.ready();
  expect(path.current).toEqual(["other"]);
});
