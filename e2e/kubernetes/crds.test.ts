/** The kinds as the API server reads them: what must be accepted is, what must be refused is, at the field that is wrong. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";

const crds = join(import.meta.dirname, "../../crds");
const yamlIn = (folder: string) => readdirSync(join(crds, folder)).filter((name) => name.endsWith(".yaml"));
const kinds = yamlIn(".").map((name) => join(crds, name));

let api: ApiServer;
beforeAll(async () => {
  api = await startApiServer();
  await api.kubectl("apply", "--server-side", ...kinds.flatMap((path) => ["-f", path]));
  await api.kubectl("wait", "--for=condition=Established", ...kinds.flatMap((path) => ["-f", path]));
  const examples = yamlIn("examples/good").map((name) =>
    readFileSync(join(crds, "examples/good", name), "utf8"),
  );
  const named = [...examples.join("\n").matchAll(/\bnamespace: ([a-z0-9-]+)/g)].map(([, name]) => name);
  await api.kubectl.apply(
    [...new Set([...named, "shop"])].map((name) => ({
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name },
    })),
  );
});
afterAll(() => api?.close());

test("the API server finds no fault with the kinds", async () => {
  const list = await api.kubectl.json<{ items: readonly { status: { conditions: readonly Condition[] } }[] }>(
    "crd",
  );
  const conditions = list.items.flatMap(({ status }) => status.conditions);
  expect(list.items).toHaveLength(kinds.length);
  expect(conditions.filter(({ type }) => type === "NonStructuralSchema")).toEqual([]);
  expect(conditions.filter(({ type, status }) => type === "NamesAccepted" && status !== "True")).toEqual([]);
});

interface Condition {
  readonly type: string;
  readonly status: string;
}

test("O62 applying the kinds twice changes nothing", async () => {
  const versions = async () => api.kubectl("get", "crd", "-o", "jsonpath={.items[*].metadata.generation}");
  const before = await versions();
  await api.kubectl("apply", "--server-side", ...kinds.flatMap((path) => ["-f", path]));
  expect(await versions()).toBe(before);
});

describe("examples that must be accepted", () => {
  test.each(yamlIn("examples/good"))("%s", async (name) => {
    const path = join(crds, "examples/good", name);
    expect(await api.kubectl.try(undefined, ...apply, path)).toMatchObject({ code: 0 });
  });
});

describe("examples that must be refused, at the field that is wrong", () => {
  const bad = yamlIn("examples/bad").filter((name) => !(name in seenTogether));
  test.each(bad)("%s", async (name) => {
    const path = join(crds, "examples/bad", name);
    const field = /^# expect: ([^ ]*): /m.exec(readFileSync(path, "utf8"))?.[1] ?? "";
    const { code, stderr } = await api.kubectl.try(undefined, ...apply, path);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(beforeTheSchema[name] ?? atField(field));
  });

  test.each(Object.keys(seenTogether))(
    "%s is right by itself: only the others show what is wrong",
    async (name) => {
      const path = join(crds, "examples/bad", name);
      expect(await api.kubectl.try(undefined, ...apply, path)).toMatchObject({ code: 0 });
    },
  );
});

const apply = ["apply", "--server-side", "--dry-run=server", "-f"];

/** The same field as the API server writes it: `spec.rules[1].name`, `.spec.rules[name="one"]`, or the list's key. */
function atField(field: string): RegExp {
  const escaped = field.replaceAll(/[.^$*+?()|{}]/g, "\\$&");
  const anyIndex = escaped.replaceAll(/\[\d+\]/g, "\\[[^\\]]+\\]");
  const list = escaped.replace(/\[\d+\][^[\]]*$/, "");
  return new RegExp(`${anyIndex}(?![\\w])|\\.${list}: duplicate entries for key`);
}

/** What no server reads because the client, or the choice of the kind, comes first; and how that is said. */
const beforeTheSchema: Readonly<Record<string, RegExp>> = {
  "group-unknown.yaml": /no matches for kind "AccessPolicy" in version "sallyport\.io/,
  "version-unknown.yaml": /no matches for kind "AccessPolicy" in version "sallyport\.dev\/v1"/,
  "kind-unknown.yaml": /no matches for kind/,
  "list.yaml": /no objects passed to apply/,
  "not-an-object.yaml": /invalid object to validate/,
  "name-missing.yaml": /resource name may not be empty/,
};

/** Wrong beside other objects, or for one protocol: admission sees one object at a time, so the operator says it. */
const seenTogether: Readonly<Record<string, string>> = {
  "masking-unknown-tag.yaml": "the tag is defined by a ProtectedResource",
  "name-taken.yaml": "applying twice is an update",
  "namespace-on-cluster-kind.yaml": "kubectl leaves it out",
  "prefix-taken.yaml": "another IdentityProvider has it",
  "subject-of-two-providers.yaml": "the prefixes of two IdentityProviders",
  "unknown-option.yaml": "the options of a protocol are open",
  "unknown-provider.yaml": "no such IdentityProvider",
};
