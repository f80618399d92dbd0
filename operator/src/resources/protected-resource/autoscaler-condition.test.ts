import { describe, expect, test } from "vitest";
import { testResource } from "../../placement/testing.ts";
import { autoscalerCondition } from "./autoscaler-condition.ts";

const scaled = testResource({
  placement: {
    mode: "Shared",
    autoscaling: { minReplicas: 2, maxReplicas: 3, targetCPUUtilizationPercentage: 70 },
  },
});
const told = (...conditions: readonly object[]) => {
  const autoscaler = { metadata: { name: "orders-gateway" }, status: { conditions } };
  const [condition] = autoscalerCondition(scaled, autoscaler);
  return `${condition?.type} ${condition?.status} ${condition?.reason}: ${condition?.message}`;
};
const able = { type: "AbleToScale", status: "True", reason: "SucceededGetScale", message: "" };
const active = { type: "ScalingActive", status: "True", reason: "ValidMetricFound", message: "" };
const blind = {
  ...{ type: "ScalingActive", status: "False", reason: "FailedGetResourceMetric" },
  message: "unable to fetch metrics from resource metrics API",
};

describe("what the autoscaler says of itself is told with the resource", () => {
  test("that it scales", () => {
    expect(told(able, active)).toMatch(/^Autoscaling True Active: /);
  });

  test("why it cannot", () => {
    expect(told(able, blind)).toBe(
      "Autoscaling False FailedGetResourceMetric: The autoscaler scales nothing: unable to fetch metrics from resource metrics API",
    );
    const unable = { type: "AbleToScale", status: "False", reason: "FailedGetScale", message: "no" };
    expect(told(unable)).toBe("Autoscaling False FailedGetScale: The autoscaler scales nothing: no");
  });

  test("that it has not looked yet, whatever else its status holds", () => {
    const unknown = /^Autoscaling Unknown NotLookedYet: /;
    expect(told()).toMatch(unknown);
    expect(told(able)).toMatch(unknown);
    expect(autoscalerCondition(scaled, undefined)).toMatchObject([{ reason: "NotLookedYet" }]);
    for (const status of [undefined, null, "", [], { conditions: null }, { conditions: [null, 7, {}] }])
      expect(
        autoscalerCondition(scaled, { metadata: { name: "orders-gateway" }, status } as never),
      ).toMatchObject([{ reason: "NotLookedYet" }]);
  });

  test("in no more words than a condition takes", () => {
    const [condition] = autoscalerCondition(scaled, {
      metadata: { name: "orders-gateway" },
      status: { conditions: [{ ...blind, message: "x".repeat(40_000) }] },
    });
    expect(condition?.message).toHaveLength(1024);
  });
});

test("nothing is told of a resource that asks for no autoscaler", () => {
  expect(
    autoscalerCondition(testResource({ placement: { mode: "Shared", replicas: 2 } }), undefined),
  ).toEqual([]);
});
