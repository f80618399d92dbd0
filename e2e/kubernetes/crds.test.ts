/** The kinds as the API server reads them: what must be accepted is, what must be refused is, at the field that is wrong. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
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

describe("kubectl finds", () => {
  interface Kind {
    readonly spec: {
      readonly names: {
        readonly kind: string;
        readonly plural: string;
        readonly shortNames: readonly string[];
      };
      readonly versions: readonly {
        readonly selectableFields?: readonly { readonly jsonPath: string }[];
        readonly additionalPrinterColumns: readonly { readonly name: string; readonly priority?: number }[];
      }[];
    };
  }
  const read = kinds.map((path) => parse(readFileSync(path, "utf8")) as Kind);

  beforeAll(async () => {
    for (const name of yamlIn("examples/good"))
      await api.kubectl("apply", "--server-side", "-f", join(crds, "examples/good", name));
    await api.kubectl.apply([
      {
        ...{
          apiVersion: "sallyport.dev/v1alpha1",
          kind: "Session",
          metadata: { name: "s", namespace: "shop" },
        },
        spec: {
          ...{ sessionId: "1", resource: "shop", protocol: "postgres", startedAt: "2026-01-01T00:00:00Z" },
          subject: { user: "okta:ana", kind: "Human" },
        },
      },
    ]);
  });

  test.each(read.map(({ spec }) => [spec.names.kind, spec] as const))(
    "%s by its short name, by its fields, and shows its columns",
    async (_, { names, versions: [version] }) => {
      expect(names.shortNames.length).toBeGreaterThan(0);
      const wide = (version?.additionalPrinterColumns ?? []).map(({ name }) => name.toUpperCase());
      const narrow = (version?.additionalPrinterColumns ?? [])
        .filter(({ priority = 0 }) => priority === 0)
        .map(({ name }) => name.toUpperCase());
      expect([narrow.at(-1), wide.at(-1)]).toEqual(["AGE", "AGE"]);
      expect(narrow.length).toBeLessThanOrEqual(6);
      for (const name of [names.plural, ...names.shortNames]) {
        for (const [flags, columns] of [
          [[], narrow],
          [["-o", "wide"], wide],
        ] as const) {
          const [header = ""] = (await api.kubectl("get", name, "-A", ...flags)).split("\n");
          expect(header.trim().split(/ +/)).toEqual(expect.arrayContaining(["NAME", ...columns]));
        }
      }
      for (const { jsonPath } of version?.selectableFields ?? []) {
        const selection = ["get", names.plural, "-A", "-o", "name", `--field-selector=${jsonPath.slice(1)}`];
        const all = await api.kubectl(...selection.slice(0, -1));
        const [none, others] = [`${selection.at(-1)}=nobody`, `${selection.at(-1)}!=nobody`];
        expect(await api.kubectl(...selection.slice(0, -1), none)).toBe("");
        expect(await api.kubectl(...selection.slice(0, -1), others)).toBe(all);
      }
      expect(await api.kubectl("get", "sallyport", "-A", "-o", "name")).toContain(
        `${names.kind.toLowerCase()}.sallyport.dev/`,
      );
    },
  );
});

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
  test.each(yamlIn("examples/bad"))("%s", async (name) => {
    const path = join(crds, "examples/bad", name);
    const field = /^# expect: ([^ ]*): /m.exec(readFileSync(path, "utf8"))?.[1] ?? "";
    const { code, stderr } = await api.kubectl.try(undefined, ...apply, path);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(beforeTheSchema[name] ?? atField(field));
  });
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
