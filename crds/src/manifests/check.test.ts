import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { anyCharacter } from "../testing.ts";
import { checkManifests, hasErrors } from "./check.ts";
import { documentsOf } from "./loaded.ts";
import { formatProblem } from "./problem.ts";

const provider = `
apiVersion: sallyport.dev/v1alpha1
kind: IdentityProvider
metadata: {name: local}
spec:
  type: local
  prefix: "local:"
  local: {jwks: {keys: [{kty: OKP, crv: Ed25519, x: 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo}]}}
---`;

const resource = `
apiVersion: sallyport.dev/v1alpha1
kind: ProtectedResource
metadata: {name: shop, labels: {tier: gold}}
spec:
  protocol: postgres
  endpoint: {host: db.example.com, port: 5432}
  credentials: [{name: default, secretRef: {name: shop-db}}]
  identity: {providers: [local]}
---`;

const policy = (spec: string, kind = "AccessPolicy"): string => `
apiVersion: sallyport.dev/v1alpha1
kind: ${kind}
metadata: {name: p}
spec:
  profile: ReadOnly
${spec}
`;

const check = (text: string, options = {}) => checkManifests([{ file: "m.yaml", text }], options);
const lines = (text: string, options = {}) => check(text, options).problems.map(formatProblem);

describe("places", () => {
  test("a problem names the line and column of its field, also in a later document", () => {
    const text = [
      "# a comment", // 1
      "apiVersion: sallyport.dev/v1alpha1",
      "kind: AccessPolicy",
      "metadata:",
      "  name: first", // 5
      "spec:",
      "  resources: {selector: {}}",
      "  subjects:",
      "    - kind: Human",
      "    - kind: Robot", // 10
      "  profile: ReadOnly",
      "---",
      "apiVersion: sallyport.dev/v1alpha1",
      "kind: AccessPolicy",
      "metadata: {name: second}", // 15
      "spec:",
      "  resources: {selector: {}}",
      "  subjects: [{kind: Human}]",
      "  rules:",
      "    - name: one", // 20
      "      action: Permit",
      "      match:",
      "        operations: [read,",
      "                     select]",
    ].join("\n");
    expect(lines(text)).toEqual([
      "m.yaml:10:7: error: spec.subjects[1].kind: must be one of Human, Workload, Agent",
      "m.yaml:21:7: error: spec.rules[0].action: must be one of Deny, RequireApproval, Allow",
      expect.stringMatching(
        /^m\.yaml:24:22: error: spec\.rules\[0\]\.match\.operations\[1\]: must be one of read/,
      ),
    ]);
  });

  test("a missing field is placed at what should hold it", () => {
    expect(
      lines(
        "apiVersion: sallyport.dev/v1alpha1\nkind: AccessPolicy\nmetadata:\n  labels: {}\nspec:\n  subjects: []\n",
      ),
    ).toEqual([
      "m.yaml:3:1: error: metadata.name: is required",
      "m.yaml:5:1: error: spec.resources: is required",
      "m.yaml:5:1: error: spec: the policy says nothing: set a profile, rules, masking or limits",
      "m.yaml:6:3: error: spec.subjects: must have at least 1 entry",
    ]);
  });

  test("a field behind an alias is found where it is written", () => {
    const text = `${provider}${resource}${policy("  resources: &r {selector: {}, oops: 1}\n  subjects: [{kind: Human}]")}`;
    expect(lines(text)).toEqual([expect.stringContaining("spec.resources.oops: unknown field")]);
    const aliased = text
      .replace("&r {selector: {}, oops: 1}", "&r {selector: {}}")
      .concat(
        policy("  resources: {selector: {}}\n  subjects: [{kind: Human}]").replace("\napi", "\n---\napi"),
      );
    expect(lines(aliased)).toEqual([expect.stringContaining("is there already, at m.yaml:")]);
  });

  test("problems come in the order of the files and lines", () => {
    const bad = "kind: 1\napiVersion: sallyport.dev/v1alpha1\n---\nkind: 2\napiVersion: v1\n";
    const sources = ["b.yaml", "a.yaml"].map((file) => ({ file, text: bad }));
    const places = checkManifests(sources).problems.map(({ file, line }) => `${file}:${line}`);
    expect(places).toEqual(["a.yaml:1", "a.yaml:4", "b.yaml:1", "b.yaml:4"]);
  });
});

describe("what is read", () => {
  test("documents come with their defaults", () => {
    const { documents, problems } = check(provider + resource);
    expect(problems).toEqual([]);
    const [shop] = documentsOf(documents, "ProtectedResource");
    expect(shop?.object.metadata.namespace).toBe("default");
    expect(shop?.object.spec.recording).toEqual({
      mode: "Required",
      durability: "Accepted",
      content: ["commands"],
    });
    expect(shop?.line).toBe(10);
  });

  test("a document with an error is not passed on, and the others are", () => {
    const { documents } = check(provider + resource.replace("5432", "0"));
    expect(documents.map(({ object }) => object.kind)).toEqual(["IdentityProvider"]);
  });

  test("every problem of every document is told at once", () => {
    const broken = resource
      .replace("port: 5432", "port: none")
      .replace("protocol: postgres", "protocol: Postgres");
    const text = provider + broken + policy("  resources: {}\n  subjects: [{}]\n  limit: {}");
    expect(
      check(text)
        .problems.map(({ path }) => path)
        .sort(),
    ).toEqual(["spec.endpoint.port", "spec.limit", "spec.protocol", "spec.resources", "spec.subjects[0]"]);
  });

  test("kinds of other groups are ignored, but not what was meant for us", () => {
    expect(lines("apiVersion: apps/v1\nkind: Deployment\nspec: 1\n")).toEqual([]);
    expect(lines("apiVersion: other.example.com/v1\nkind: AccessPolicy\n")).toEqual([
      "m.yaml:1:1: warning: apiVersion: is not of the group sallyport.dev: ignored",
    ]);
    for (const group of ["sallyport.dev", "salyport.dev", "sallyport.io", "x.sallyport.dev"]) {
      const found = check(`apiVersion: ${group}/v1beta1\nkind: AccessPolicy\n`);
      expect(hasErrors(found), group).toBe(true);
    }
  });

  test("a protocol that the build does not speak is refused", () => {
    const text = provider + resource.replace("postgres", "gopher");
    expect(lines(text)).toEqual([]);
    expect(lines(text, { protocols: ["postgres"] })).toEqual([
      "m.yaml:14:3: error: spec.protocol: is not spoken by this build, which speaks postgres",
    ]);
  });

  test("a word that kubectl would read as a boolean is warned about, in our kinds only", () => {
    const text = provider + resource.replace("identity:", "recording: {mode: Off}\n  identity:");
    expect(lines(text)).toEqual([expect.stringMatching(/^m\.yaml:17:21: warning: quote it: kubectl reads/)]);
    expect(lines(text.replace("Off", '"Off"'))).toEqual([]);
    expect(lines("apiVersion: apps/v1\nkind: Deployment\nspec: off\n")).toEqual([]);
  });

  test("no problem shows a value of a Secret", () => {
    const text =
      'apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {password: "hunter2!"}\nstringData: [hunter2]\n';
    const found = lines(text);
    expect(found).toHaveLength(2);
    expect(found.join("\n")).not.toContain("hunter2");
  });

  test("keys of JavaScript's own objects are no way in", () => {
    for (const key of ["__proto__", "constructor", "toString"]) {
      const text =
        provider +
        resource +
        policy(`  resources: {selector: {}}\n  subjects: [{kind: Human}]\n  ${key}: {}`);
      expect(check(text).problems.map(({ path }) => path)).toContain(`spec.${key}`);
      expect(lines(`apiVersion: sallyport.dev/v1alpha1\nkind: ${key}\n`)).toEqual([
        expect.stringContaining("unknown kind"),
      ]);
    }
  });
});

describe("references", () => {
  const subject = '\n  subjects: [{group: "local:analysts"}]';

  test("a policy that names or selects nothing is warned about", () => {
    expect(lines(provider + resource + policy(`  resources: {names: [shop, shpo]}${subject}`))).toEqual([
      expect.stringContaining("warning: spec.resources.names[1]: there is no ProtectedResource shpo"),
    ]);
    const selector = "  resources: {selector: {matchLabels: {tier: silver}}}";
    expect(lines(provider + resource + policy(selector + subject))).toEqual([
      expect.stringContaining("warning: spec.resources.selector: selects no ProtectedResource"),
    ]);
  });

  test("a policy does not reach the resources of another namespace; a cluster policy does", () => {
    const elsewhere = provider + resource.replace("name: shop,", "name: shop, namespace: shop,");
    const spec = `  resources: {names: [shop]}${subject}`;
    expect(lines(elsewhere + policy(spec))).toEqual([
      expect.stringContaining("there is no ProtectedResource shop"),
    ]);
    expect(lines(elsewhere + policy(spec, "ClusterAccessPolicy"))).toEqual([]);
    const selecting = `${spec}\n  namespaceSelector: {matchLabels: {stage: live}}`;
    expect(lines(elsewhere + policy(selecting, "ClusterAccessPolicy"))).toHaveLength(1);
    const labelled = `${elsewhere}\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {stage: live}}\n---`;
    expect(lines(labelled + policy(selecting, "ClusterAccessPolicy"))).toEqual([]);
  });

  test("a subject of a prefix that nobody has is warned about, break-glass groups too", () => {
    const rules = `
  rules:
    - {name: r, match: {operations: [write]}, action: RequireApproval, approval: {breakGlass: {group: "okta:x"}}}`;
    const text = policy(
      `  resources: {names: [shop]}\n  subjects: [{user: "okta:a"}, {kind: Human}]${rules}`,
    );
    expect(
      check(provider + resource + text).problems.map(({ severity, path }) => `${severity} ${path}`),
    ).toEqual(["warning spec.subjects[0].user", "warning spec.rules[0].approval.breakGlass.group"]);
  });

  test("what is broken is not reported as missing", () => {
    const broken = provider.replace("type: local", "type: locl");
    const paths = check(
      broken + resource.replace("5432", "0") + policy(`  resources: {names: [shop]}${subject}`),
    );
    expect(paths.problems.map(({ path }) => path)).toEqual(
      expect.arrayContaining(["spec.type", "spec.endpoint.port"]),
    );
    expect(paths.problems.some(({ message }) => message.startsWith("there is no"))).toBe(false);
  });

  test("an empty list of providers is warned about", () => {
    expect(lines(resource.replace("[local]", "[]"))).toEqual([
      expect.stringContaining("warning: spec.identity.providers: is empty: nobody gets in"),
    ]);
  });
});

describe("checks of others", () => {
  const text = provider + resource + policy("  resources: {names: [shop]}\n  subjects: [{kind: Human}]");

  test("their findings get the place of their field", () => {
    const checkPolicy = [
      ({ object }: { object: { kind: string } }) =>
        object.kind === "AccessPolicy"
          ? [{ severity: "error" as const, path: "spec.resources.names[0]", message: "no" }]
          : [],
    ];
    const { problems } = check(text, { checkPolicy });
    expect(problems).toEqual([
      {
        severity: "error",
        path: "spec.resources.names[0]",
        message: "no",
        file: "m.yaml",
        line: 24,
        column: 23,
        document: "AccessPolicy default/p",
      },
    ]);
  });

  test("a check that throws refuses the document, and its reason is not shown", () => {
    const checkPolicy = [
      () => {
        throw new Error("hunter2");
      },
    ];
    const found = check(text, { checkPolicy });
    expect(hasErrors(found)).toBe(true);
    expect(JSON.stringify(found.problems)).not.toContain("hunter2");
  });
});

describe("bad input", () => {
  test.each([
    ["an alias without its anchor", "a: *nowhere\n"],
    ["a cycle", "a: &a [*a]\n"],
    [
      "aliases that multiply",
      `a: &a [1,1,1,1,1,1,1,1,1,1]\n${"bcdefghij"
        .split("")
        .map((k, i) => `${k}: &${k} [${`*${"abcdefghij"[i]},`.repeat(10)}]`)
        .join("\n")}\n`,
    ],
    ["nesting without end", "[".repeat(100_000)],
    ["maps without end", "{a: ".repeat(20_000)],
    ["tabs", "\tapiVersion: v1\n"],
    ["NUL", "a: \0\n"],
    ["a key that is a list", "? [a, b]\n: c\n"],
    ["an unknown tag", "!!js/function a\n"],
  ])("%s is a problem, not a crash", (_, text) => {
    expect(hasErrors(check(text))).toBe(true);
  });

  test("one broken document does not hide the problems of the next", () => {
    expect(lines("a: [\n---\nkind: AccessPolicy\napiVersion: sallyport.dev/v9\n").at(-1)).toContain(
      "unknown version",
    );
  });

  test("100,000 keys are read in linear time", () => {
    const keys = Array.from({ length: 100_000 }, (_, index) => `  key${index}: 1\n`).join("");
    const found = lines(
      `apiVersion: sallyport.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: x}\nspec:\n${keys}`,
    );
    expect(found).toContain("m.yaml:4:1: error: spec: has 100000 unknown fields");
  });

  test("the list of problems is bounded, errors first", () => {
    const text = `${"---\na: 1\n".repeat(2000)}`;
    expect(check(text).problems).toHaveLength(1000);
  });

  test("no text makes it throw, and every problem has a place in the file", () => {
    const words = fc.constantFrom(
      ...[
        "apiVersion: sallyport.dev/v1alpha1\n",
        "kind: AccessPolicy\n",
        "metadata: ",
        "{name: x}\n",
        "spec:\n",
      ],
      ...[
        "  rules: ",
        "[{",
        "}]",
        "- ",
        "a: &a ",
        "*a",
        "\n---\n",
        "'",
        '"',
        ": ",
        "  ",
        "\n",
        "|",
        "null",
        "!!x ",
      ],
    );
    const yaml = fc.array(fc.oneof(words, fc.string({ maxLength: 5, unit: anyCharacter })), {
      maxLength: 40,
    });
    fc.assert(
      fc.property(yaml, (parts) => {
        const text = parts.join("");
        const count = text.split("\n").length;
        for (const { line, column } of check(text).problems) {
          expect(line).toBeGreaterThanOrEqual(1);
          expect(line).toBeLessThanOrEqual(count + 1);
          expect(column).toBeGreaterThanOrEqual(1);
        }
      }),
      { numRuns: 500 },
    );
  });

  test("no value in any field makes it throw, and what passes has the shape of its kind", () => {
    const fields = fc.constantFrom(
      ...[
        "mode",
        "resources",
        "subjects",
        "profile",
        "rules",
        "masking",
        "limits",
        "inference",
        "x",
        "__proto__",
      ],
    );
    const kind = fc.constantFrom(
      "AccessPolicy",
      "ClusterAccessPolicy",
      "ProtectedResource",
      "IdentityProvider",
    );
    const spec = fc.dictionary(fields, fc.jsonValue({ maxDepth: 4 }), { maxKeys: 6 });
    fc.assert(
      fc.property(kind, fc.oneof(spec, fc.jsonValue()), (name, value) => {
        const text = JSON.stringify({
          apiVersion: "sallyport.dev/v1alpha1",
          kind: name,
          metadata: { name: "x" },
          spec: value,
        });
        const found = check(text);
        expect(found.documents.length === 1 || hasErrors(found)).toBe(true);
      }),
      { numRuns: 400 },
    );
  });
});
