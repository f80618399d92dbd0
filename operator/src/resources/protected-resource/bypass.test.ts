import type { ProtectedResourceSpec } from "@sallyport/crds";
import { describe, expect, test } from "vitest";
import { testResource, testSettings } from "../../placement/testing.ts";
import { decideResource, type ResourceFacts } from "./decide.ts";

const facts = (spec: Partial<ProtectedResourceSpec>, more: Partial<ResourceFacts>): ResourceFacts => ({
  resource: testResource(spec),
  namespaceLabels: { "sallyport.dev/protection": "enabled" },
  service: {
    metadata: { name: "orders-db", namespace: "shop" },
    spec: { selector: { app: "db" }, ports: [{ port: 5432 }] },
  },
  ...{ providers: [], neighbours: [], policies: [], owned: [], pods: [], reports: [] },
  ...{ reach: { isAllowed: true }, existing: new Map(), settings: testSettings, controlCa: "" },
  probe: "unknown",
  exec: { closed: [], open: [], unknown: [] },
  ...more,
});
const bypass = (more: Partial<ResourceFacts>, spec: Partial<ProtectedResourceSpec> = {}) => {
  const { conditions } = decideResource(facts(spec, more));
  const found = conditions.find(({ type }) => type === "BypassProtected");
  return `${found?.status} ${found?.reason}`;
};
const said = (...reasons: string[]) => [
  { podUid: "1", isCurrent: true, problems: reasons.map((reason) => ({ reason, message: "" })) },
];

describe("Shared", () => {
  test.each([
    ["refused", said(), "True Refused"],
    ["connected", said(), "False NetworkPolicyNotEnforced"],
    ["unknown", said(), "Unknown NotProbed"],
    ["refused", said("UpstreamUnreachable"), "Unknown NotProbed"],
    ["connected", said("UpstreamUnreachable"), "False NetworkPolicyNotEnforced"],
  ] as const)("a probe that was %s is told", (probe, reports, expected) => {
    expect(bypass({ probe, reports })).toBe(expected);
  });

  test("an open way counts more than a closed one", () => {
    const off = { bypassProtection: { networkPolicy: "Off", exec: "Enforce" } } as const;
    expect(bypass({ probe: "refused" }, off)).toBe("False Off");
    expect(bypass({ probe: "refused", namespaceLabels: {} })).toBe("False ExecOpen");
  });
});

describe("Sidecar", () => {
  const sidecar: Partial<ProtectedResourceSpec> = {
    placement: { mode: "Sidecar", podSelector: { matchLabels: { app: "db" } } },
  };
  test.each([
    [said(), "True Refused"],
    [said("LoopbackNotProbed"), "Unknown LoopbackNotProbed"],
    [said("LoopbackTrust"), "False LoopbackTrust"],
    [[], "Unknown LoopbackNotProbed"],
    [[...said(), ...said("LoopbackTrust")], "False LoopbackTrust"],
  ] as const)("what gateways say of the loopback counts as well", (reports, expected) => {
    expect(bypass({ probe: "refused", reports }, sidecar)).toBe(expected);
  });

  test("a server that trusts its loopback is open, whatever other pods meet", () => {
    expect(bypass({ probe: "unknown", reports: said("LoopbackTrust") }, sidecar)).toBe("False LoopbackTrust");
  });
});

describe("before its own cluster", () => {
  const none = { closed: [], open: [], unknown: [] };
  const own = (exec: ResourceFacts["exec"], asked: "Enforce" | "Off" = "Enforce") => {
    const resource = testResource({
      protocol: "kubernetes",
      endpoint: { host: "kubernetes.default.svc", port: 443 },
      options: { ownCluster: true },
      bypassProtection: { networkPolicy: "Enforce", exec: asked },
    });
    const { conditions } = decideResource({ ...facts({}, { exec }), resource });
    return conditions.find(({ type }) => type === "BypassProtected")!;
  };

  test.each([
    [none, "Unknown ApiServerOpen"],
    [{ ...none, closed: ["a", "b"] }, "True ExecClosed"],
    [{ ...none, closed: ["a"], open: ["b"] }, "False ExecOpen"],
    [{ closed: ["a"], open: ["b"], unknown: ["c"] }, "False ExecOpen"],
    [{ ...none, closed: ["a"], unknown: ["c"] }, "Unknown NotProbed"],
  ])("%j is told as %s", (exec, expected) => {
    const { status, reason, message } = own(exec);
    expect(`${status} ${reason}`).toBe(expected);
    expect(message).toContain("sallyport audit rbac");
  });

  test("five namespaces are named, and how many there are", () => {
    const open = ["n1", "n2", "n3", "n4", "n5", "n6"];
    expect(own({ ...none, open }).message).toContain("open in 6 namespaces (n1, n2, n3, n4, n5, …)");
  });

  test("where no protection of exec is asked for, what was found says nothing", () => {
    expect(own({ ...none, closed: ["a"] }, "Off")).toMatchObject({ status: "False", reason: "Off" });
  });
});
