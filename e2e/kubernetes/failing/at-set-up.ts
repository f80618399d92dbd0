/** A scenario that never gets to its tests. */
import { beforeAll, test } from "vitest";
import { openScenario } from "../scenario.ts";

const scenario = openScenario("failing-at-set-up");

beforeAll(async () => {
  await scenario.apply({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "half-way" }, data: {} });
  throw new Error("it cannot be set up");
});

test("is never run", () => undefined);
