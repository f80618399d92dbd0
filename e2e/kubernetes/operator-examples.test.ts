/** What no object shows by itself, and so no API server refuses: the operator tells it, in a condition and an event. */
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ApiServer } from "../cluster/api-server.ts";
import { waitFor } from "../cluster/processes.ts";
import { startApiServerWithKinds, startOperator, type TestOperator } from "../targets/operator.ts";

const examples = join(import.meta.dirname, "../../crds/examples/bad-together");
let api: ApiServer;
let running: TestOperator;
beforeAll(async () => {
  api = await startApiServerWithKinds();
  running = await startOperator(api);
});
afterAll(async () => {
  await running?.stop();
  await api?.close();
});

interface Observed {
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly reason: string }[] };
}

/** Waits until a condition of the object has the reason, and an event says the same. */
async function told(object: string, namespace: string, type: string, reason: string): Promise<void> {
  await waitFor(`${object} to have ${type} ${reason}`, async () => {
    const { status } = await api.kubectl.json<Observed>(object, "-n", namespace);
    return status?.conditions?.some((one) => one.type === type && one.reason === reason) || undefined;
  });
  const [kind = "", name = ""] = object.split("/");
  await waitFor(`an event ${reason}`, async () => {
    const path = `{range .items[?(@.regarding.name=="${name}")]}{.regarding.kind} {.reason};{end}`;
    const events = await api.kubectl("get", "events.events.k8s.io", "-A", "-o", `jsonpath=${path}`);
    return events.toLowerCase().includes(`${kind} ${reason.toLowerCase()};`) || undefined;
  });
}

test.each([
  ["masking-unknown-tag", "accesspolicy/analysts", "Accepted", "UnknownReference"],
  ["prefix-taken", "identityprovider/okta", "Accepted", "PrefixTaken"],
  ["unknown-option", "protectedresource/shop", "Accepted", "UnknownOption"],
  ["unknown-provider", "protectedresource/shop", "Accepted", "ProviderNotFound"],
])("%s", async (name, object, type, reason) => {
  await api.kubectl.apply([{ apiVersion: "v1", kind: "Namespace", metadata: { name } }]);
  await api.kubectl("apply", "-n", name, "-f", join(examples, `${name}.yaml`));
  await told(object, name, type, reason);
  if (object.startsWith("protectedresource/"))
    expect(await api.kubectl("get", "deploy", "-n", name, "-o", "name")).toBe("");
  // They are the cluster's, and each example brings its own.
  await api.kubectl("delete", "identityproviders", "--all");
});

test("a policy about people of no provider says so, and stops saying so once there is one", async () => {
  const policy = (name: string, spec: object) => ({
    ...{
      apiVersion: "sallyport.dev/v1alpha1",
      kind: "AccessPolicy",
      metadata: { name, namespace: "default" },
    },
    spec: { resources: { selector: {} }, ...spec },
  });
  const approval = { required: 1, breakGlass: { group: "corp:oncall" } };
  await api.kubectl("apply", "-n", "default", "-f", join(examples, "unknown-provider.yaml"));
  await api.kubectl.apply([
    policy("named", { subjects: [{ user: "local:ana" }, { group: "corp:dba" }], profile: "ReadOnly" }),
    policy("glass", {
      subjects: [{ kind: "Human" }],
      rules: [{ name: "asks", match: { operations: ["define"] }, action: "RequireApproval", approval }],
    }),
    policy("known", { subjects: [{ user: "local:ana" }], profile: "ReadOnly" }),
  ]);
  for (const name of ["named", "glass"])
    await told(`accesspolicy/${name}`, "default", "Ready", "ProviderNotFound");
  await told("accesspolicy/known", "default", "Ready", "InForce");
  const { status } = await api.kubectl.json<Observed>("accesspolicy/named", "-n", "default");
  expect(JSON.stringify(status)).toContain("corp:dba");
  expect(JSON.stringify(status)).not.toContain("local:ana");
  await api.kubectl.apply([
    {
      ...{ apiVersion: "sallyport.dev/v1alpha1", kind: "IdentityProvider", metadata: { name: "corp" } },
      spec: { type: "oidc", prefix: "corp:", oidc: { issuer: "https://id.example.com" } },
    },
  ]);
  for (const name of ["named", "glass"]) await told(`accesspolicy/${name}`, "default", "Ready", "InForce");
  await api.kubectl("delete", "identityprovider", "corp");
  await told("accesspolicy/named", "default", "Ready", "ProviderNotFound");
});
