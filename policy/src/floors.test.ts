import { describe, expect, test } from "vitest";
import { compilePolicies } from "./compile.ts";
import { type FlooredSpec, isRequirement, withFloors } from "./floors.ts";

const lax: FlooredSpec = {
  recording: { mode: "Off", durability: "Accepted", content: ["commands"], retention: "1d" },
  bypassProtection: { networkPolicy: "Off", exec: "Off" },
};
const strict: FlooredSpec = {
  recording: { mode: "Required", durability: "Durable", content: ["commands", "responses", "input"] },
  bypassProtection: { networkPolicy: "Enforce", exec: "Enforce" },
};
const all = {
  recording: {
    mode: "Required",
    durability: "Durable",
    content: ["responses"],
    retention: "90d",
  },
  bypassProtection: { networkPolicy: "Enforce", exec: "Enforce" },
} as const;

test("what is required is done, whatever the resource says", () => {
  expect(withFloors(lax, [all])).toEqual({
    recording: {
      mode: "Required",
      durability: "Durable",
      content: ["commands", "responses"],
      retention: "90d",
    },
    bypassProtection: { networkPolicy: "Enforce", exec: "Enforce" },
  });
});

test("a resource that does more goes on doing it", () => {
  expect(withFloors(strict, [all, { recording: { mode: "BestEffort", content: ["commands"] } }])).toEqual(
    strict,
  );
  const long = { ...lax, recording: { ...lax.recording, retention: "365d" } };
  expect(withFloors(long, [all]).recording.retention).toBe("365d");
});

test("of several the strictest holds, in any order", () => {
  const some = { recording: { mode: "BestEffort", retention: "30d" } } as const;
  expect(withFloors(lax, [some, all])).toEqual(withFloors(lax, [all, some]));
  expect(withFloors(lax, [some]).recording).toMatchObject({ mode: "BestEffort", retention: "30d" });
});

test("what is not required stays as it is", () => {
  expect(withFloors(lax, [{ bypassProtection: { exec: "Enforce" } }])).toEqual({
    ...lax,
    bypassProtection: { networkPolicy: "Off", exec: "Enforce" },
  });
  expect(withFloors(lax, [])).toBe(lax);
});

describe("a policy", () => {
  const compiled = (kind: "AccessPolicy" | "ClusterAccessPolicy", requires: unknown) =>
    compilePolicies(
      [
        {
          kind,
          ...(kind === "AccessPolicy" && { namespace: "shop" }),
          name: "floor",
          generation: 1,
          spec: {
            resources: { selector: {} },
            subjects: [{ kind: "Human" }],
            requires: requires as object,
          },
        },
      ],
      [],
    ).problems.map(({ path, reason }) => [path, reason]);
  test("of the cluster may require, one of a namespace may not", () => {
    expect(compiled("ClusterAccessPolicy", all)).toEqual([]);
    expect(compiled("AccessPolicy", all)).toEqual([["spec.requires", "UnknownField"]]);
  });
  test.each([
    [{ recording: { mode: "Off" } }],
    [{ recording: { durability: "Accepted" } }],
    [{ recording: { content: ["everything"] } }],
    [{ recording: { retention: "long" } }],
    [{ bypassProtection: { exec: "Off" } }],
    [{ backups: {} }],
    ["all"],
  ])("that requires %j is not accepted", (requires) => {
    expect(isRequirement(requires)).toBe(false);
    expect(compiled("ClusterAccessPolicy", requires)).toEqual([["spec.requires", "InvalidField"]]);
  });
});
