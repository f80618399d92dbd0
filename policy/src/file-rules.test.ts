import { expect, test } from "vitest";
import { compilePolicies } from "./compile.ts";
import type { PolicyRule, ResourceDocument } from "./documents.ts";
import { forSession } from "./evaluate.ts";
import { namesFiles } from "./file-rules.ts";
import type { Identity, ResourceFacts } from "./model.ts";

test.each([
  ["Deny", { objects: ["/etc/*"] }, true],
  ["RequireApproval", { objects: ["hr.x", "*.pem"] }, true],
  ["Deny", { objects: ["*"] }, false],
  ["Deny", { objects: ["create:pods/exec", "get:/metrics", "*:secrets*", "hr.*"] }, false],
  ["Deny", { commands: ["cp.put"] }, false],
  ["Allow", { objects: ["/tmp/*"] }, false],
  ["Allow", { cel: 'command.facts.file.startsWith("/tmp/")' }, true],
  ["Deny", { cel: "command.facts.fileSize > 10" }, true],
  ["Deny", { cel: 'command . facts . file == "/x"' }, true],
  ["Deny", { cel: 'command.facts["fi" + "le"] == "/x"' }, true],
  ["Deny", { cel: 'command.facts.exists(f, f == "file")' }, true],
  ["Deny", { cel: 'command.objects.exists(o, o == "/x")' }, true],
  ["Deny", { cel: 'command.facts.namespace == "prod" && command.facts.filed' }, false],
  ["Deny", { cel: 'identity.user == "a"' }, false],
])("a rule %s of %j names files: %s", (action, match, expected) => {
  expect(namesFiles({ action, match } as PolicyRule)).toBe(expected);
});

test("policies that only report are told from those that decide", () => {
  const resource: ResourceFacts = {
    ...{ namespace: "a", name: "c", labels: {}, namespaceLabels: {}, protocol: "kubernetes" },
  };
  const documents: readonly ResourceDocument[] = [{ ...resource, spec: { protocol: "kubernetes" } }];
  const identity: Identity = { provider: "p", user: "p:ann", groups: [], kind: "Human", claims: {} };
  const session = { database: "", account: "g", applicationName: "", clientAddress: "192.0.2.1" };
  const named = (modes: readonly (readonly ["Enforce" | "Audit", string])[]) => {
    const policies = modes.map(([mode, pattern], at) => ({
      ...{ kind: "AccessPolicy" as const, namespace: "a", name: `p${at}`, generation: 1 },
      spec: {
        mode,
        resources: { names: ["c"] },
        subjects: [{ user: "p:ann" }],
        profile: "Admin",
        rules: [{ name: "r", match: { objects: [pattern] }, action: "Deny" }],
      },
    }));
    const features = { masking: false, approvals: true };
    const { set, problems } = compilePolicies(policies, documents, { features });
    expect(problems).toEqual([]);
    return forSession(set, { resource, identity, session }).namesFiles;
  };
  expect(named([["Enforce", "create:pods"]])).toBeUndefined();
  expect(named([["Audit", "/etc/*"]])).toBe("Audit");
  expect(
    named([
      ["Audit", "/etc/*"],
      ["Enforce", "/etc/*"],
    ]),
  ).toBe("Enforce");
});
