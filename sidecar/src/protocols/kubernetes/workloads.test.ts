import { expect, test } from "vitest";
import { type ApiRequest, readRequest } from "./request.ts";
import { memberAt, patchedPodSpec } from "./workloads.ts";

const asked = (target: string, method = "PATCH") => readRequest(method, target) as ApiRequest;
const deployment = asked("/apis/apps/v1/namespaces/a/deployments/d");
const pod = asked("/api/v1/namespaces/a/pods/p");
const template = ["spec", "template", "spec"];

test.each([
  { metadata: { labels: { a: "b" } } },
  { spec: { replicas: 3 } },
  { spec: { template: { metadata: { annotations: { restartedAt: "now" } } } } },
  [{ op: "test", path: "/spec/template/spec/containers/0/image", value: "a" }],
  [{ op: "replace", path: "/spec/replicas", value: 1 }],
  [{ op: "add", path: "/spec/template/metadata/labels/a", value: "b" }],
  [{ op: "add", path: "/metadata/annotations/spec", value: "b" }],
  [],
])("K25: %j leaves what pods run as it is", (patch) => {
  expect(patchedPodSpec(deployment, patch)).toBeUndefined();
});

test.each([
  { spec: { template: { spec: { containers: [] } } } },
  { spec: { template: { spec: null } } },
  { spec: { template: null } },
  { spec: "odd" },
  [{ op: "replace", path: "", value: {} }],
  [{ op: "add", path: "/spec/template", value: {} }],
  [{ op: "add", path: "/spec/template/spec", value: {} }],
  [{ op: "replace", path: "/spec/template/spec/containers/0/image", value: "a" }],
  [{ op: "remove", path: "/spec/template/spec/containers/0/command" }],
  // Servers take what stands before the first slash for nothing.
  [{ op: "replace", path: "odd/spec/template/spec/hostname", value: "a" }],
  [{ op: "replace", path: "/metadata/name", value: "a" }, { op: "add" }],
  undefined,
  null,
  "text",
])("K25: %j changes what pods run", (patch) => {
  expect(patchedPodSpec(deployment, patch)).toEqual(template);
});

test("K25: only a patch of the object itself is one of the pods that it makes", () => {
  const image = { spec: { containers: [{ name: "c", image: "i" }] } };
  expect(patchedPodSpec(pod, image)).toEqual(["spec"]);
  expect(
    patchedPodSpec(asked("/apis/batch/v1/namespaces/a/cronjobs/c"), { spec: { jobTemplate: null } }),
  ).toEqual(["spec", "jobTemplate", ...template]);
  // An update says the whole of it; what a subresource takes holds no pod.
  for (const other of [
    asked("/api/v1/namespaces/a/pods/p", "PUT"),
    asked("/api/v1/namespaces/a/pods/p/status"),
    asked("/apis/apps/v1/namespaces/a/deployments/d/scale"),
    asked("/apis/example.org/v1/namespaces/a/deployments/d"),
    asked("/api/v1/namespaces/a/services/s"),
  ])
    expect(patchedPodSpec(other, image)).toBeUndefined();
});

test("what an object does not hold is nothing, whatever stands on the way to it", () => {
  expect(memberAt({ spec: { template: { spec: { hostPID: true } } } }, template)).toEqual({ hostPID: true });
  for (const value of [undefined, null, "text", [], { spec: null }, { spec: { template: [] } }])
    expect(memberAt(value, template)).toBeUndefined();
});
