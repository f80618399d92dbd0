import { expect, it } from "vitest";
import { requestPath } from "./request-path.ts";

it.each([
  ["/pods?timeout=5s", "/pods"],
  ["/healthz", "/healthz"],
  ["", ""],
  [undefined, "/"],
  // Node's HTTP parser lets these through, and URL throws on them.
  ["//", "//"],
  ["//pods", "//pods"],
  ["http://[", "http://["],
])("reads %j as the path %j", (target, path) => {
  expect(requestPath(target)).toBe(path);
});
