import { expect, test } from "vitest";
import { mayLeadSomewhere } from "./forwarding.ts";

test.each([
  [5432, ["10.0.0.5:5432"], true],
  [5433, ["10.0.0.5:5432"], false],
  [443, [], false],
  [443, ["10.1.*:443"], true],
  [80, ["10.1.*:443", "*:8*"], true],
  [22, ["10.1.*:443", "*:8*"], false],
  [22, ["10.1.*"], true],
  [22, ["[fd00::*"], true],
  [80, ["[fd00::1]:80"], true],
])("whether port %i may lead anywhere of %j is known without asking for a name", (port, offered, may) => {
  expect(mayLeadSomewhere(port, offered)).toBe(may);
});
