import { expect, test } from "vitest";
import { commandOf, noFacts } from "./command.ts";
import { onlyContainer } from "./facts.ts";
import { masked, selectsByHidden } from "./object-mask.ts";
import { readProtobuf } from "./protobuf.ts";
import { type ApiRequest, readRequest } from "./request.ts";

const read = (method: string, target: string) => readRequest(method, target) as ApiRequest;
const inA = "/api/v1/namespaces/a";

test.each(["constructor", "__proto__", "toString", "hasOwnProperty", "get", "CONNECT", "TRACE", ""])(
  "K30: the method %j, which HTTP/2 lets a client send, is not served",
  (method) => {
    expect(readRequest(method, `${inA}/pods`)).toHaveProperty("refused");
  },
);

test.each([
  ["services/web/proxy/x", "web", 0],
  ["services/web:8080/proxy/x", "web", 8080],
  ["services/https:web:8443/proxy/", "web", 8443],
  ["services/http:web:/proxy/x", "web", 0],
  ["services/web:metrics/proxy/x", "web", 0],
  ["pods/https:db-0:5432/proxy", "db-0", 5432],
])("K6: %s reaches %s, whatever scheme and port it names", (path, name, port) => {
  const { facts, text } = commandOf(read("DELETE", `${inA}/${path}`));
  expect(facts).toMatchObject({ name, port, verb: "create", method: "DELETE" });
  // Whoever decides about it sees what the server behind it is asked to do.
  expect(text).toContain(` a/${name} DELETE ${inA}/`);
});

test.each(["a:b:c:d", "ftp:web:21", ":80", "https::443"])("K6: a proxied server %s is none", (name) => {
  expect(readRequest("GET", `${inA}/services/${name}/proxy/`)).toHaveProperty("refused");
});

test.each([
  ["labelSelector=!none", true],
  ["labelSelector=a!=b", true],
  ["labelSelector=a notin (b,c)", true],
  ["labelSelector=a notin (b),!c", true],
  ["fieldSelector=metadata.name!=x", true],
  ["fieldSelector=metadata.namespace=a", true],
  ["fieldSelector=", true],
  ["labelSelector=a in (b,c)", false],
  ["labelSelector=!none,a=b", false],
  ["fieldSelector=metadata.name=x", false],
  ["fieldSelector=metadata.namespace=a,status.phase==Failed", false],
])("a deletion by %s is unbounded: %j", (query, unbounded) => {
  expect(commandOf(read("DELETE", `${inA}/pods?${encodeURI(query)}`)).parts[0]?.unbounded).toBe(unbounded);
});

test("K27: a server-side apply needs the right to create what it may create", () => {
  const request = read("PATCH", "/apis/apps/v1/namespaces/a/deployments/d?fieldManager=m");
  const names = (mayCreate: boolean) =>
    commandOf(request, { ...noFacts, mayCreate }).parts.map(({ objects }) => objects[0]?.name);
  expect(names(false)).toEqual(["patch:deployments.apps"]);
  expect(names(true)).toEqual(["patch:deployments.apps", "create:deployments.apps"]);
});

test("K6: whoever may write is not whoever says who may do what", () => {
  const operation = (path: string) =>
    commandOf(read("POST", `/apis/sallyport.dev/v1alpha1/${path}`)).parts[0]?.operation;
  for (const kind of ["accesspolicies", "protectedresources", "resourcegrants"])
    expect(operation(`namespaces/a/${kind}`)).toBe("privilege");
  for (const kind of ["clusteraccesspolicies", "identityproviders"])
    expect(operation(kind)).toBe("privilege");
  // Deciding a request is what approvers do with kubectl.
  expect(
    commandOf(read("PATCH", "/apis/sallyport.dev/v1alpha1/namespaces/a/approvals/x")).parts[0],
  ).toMatchObject({ operation: "write" });
});

test("a container that nobody names is the only one, as the server chooses it", () => {
  expect(onlyContainer({ containers: [{ name: "db" }] })).toBe("db");
  expect(onlyContainer({ containers: [{ name: "a" }, { name: "b" }] })).toBe("");
  const facts = { ...noFacts, container: "db" };
  expect(commandOf(read("POST", `${inA}/pods/p/exec?command=id`), facts).facts?.container).toBe("db");
  expect(commandOf(read("POST", `${inA}/pods/p/exec?container=`), facts).facts?.container).toBe("db");
  expect(commandOf(read("POST", `${inA}/pods/p/exec?container=x`), facts).facts?.container).toBe("x");
});

test("K27: a volume of the node's own is found in protobuf as in JSON", () => {
  const field = (number: number, bytes: Buffer) =>
    Buffer.concat([Buffer.from([number * 8 + 2, bytes.length]), bytes]);
  const type = Buffer.concat([field(1, Buffer.from("v1")), field(2, Buffer.from("PersistentVolume"))]);
  const source = field(2, field(3, field(1, Buffer.from("/"))));
  const body = Buffer.concat([Buffer.from("k8s\0"), field(1, type), field(2, field(2, source))]);
  expect(readProtobuf(body)).toHaveProperty("spec.source.hostPath");
});

test.each([
  ["spec.nodeName=n", true],
  ["metadata.name=x, spec.nodeName!=n", true],
  ["status.phase=Running", false],
  ["metadata.name=spec.x", false],
  ["specific=x", false],
])("K27: the selector %s tells of a masked spec: %j", (selector, tells) => {
  const request = read("GET", `${inA}/pods?fieldSelector=${encodeURIComponent(selector)}`);
  expect(selectsByHidden(request, { fields: ["spec"], deniesWrites: true, mayBeQuoted: true })).toBe(tells);
});

test("K27: managed fields and refusals show no value of a masked spec", () => {
  const hidden = { fields: ["spec"], deniesWrites: false, mayBeQuoted: true };
  const object = {
    kind: "Service",
    metadata: {
      managedFields: [{ manager: "m", fieldsV1: { "f:spec": { 'k:{"port":5432}': {} }, "f:metadata": {} } }],
    },
    spec: { ports: [{ port: 5432 }] },
  };
  expect(JSON.stringify(masked(object, hidden))).not.toContain("5432");
  expect(masked(object, hidden)).toHaveProperty("metadata.managedFields.0.fieldsV1.f:metadata");
  const message = 'Service "s" is invalid: spec: 5432';
  const status = { kind: "Status", reason: "Invalid", message, details: { causes: ["5432"] } };
  expect(JSON.stringify(masked(status, hidden))).not.toContain("5432");
  // The keys of a Secret are no secret, and its values are not in such messages.
  expect(masked(status, { ...hidden, fields: ["data", "stringData"] })).toEqual(status);
});
