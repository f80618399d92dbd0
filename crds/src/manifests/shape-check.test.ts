import { Ajv, type ValidateFunction } from "ajv";
import formats from "ajv-formats";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { StructuralSchema } from "../schema.ts";
import { kindSchemas } from "../schemas.generated.ts";
import { shapeFindings } from "./shape-check.ts";

/** The oracle does not know what Kubernetes adds to OpenAPI. */
function plain(schema: StructuralSchema): object {
  const { properties, items, additionalProperties, ...rest } = schema;
  return {
    ...rest,
    ...(schema["x-kubernetes-int-or-string"] ? { type: ["integer", "string"] } : {}),
    ...(properties && {
      properties: Object.fromEntries(Object.entries(properties).map(([key, value]) => [key, plain(value)])),
    }),
    ...(items && { items: plain(items), uniqueItems: schema["x-kubernetes-list-type"] === "set" }),
    ...(additionalProperties !== undefined && {
      additionalProperties: additionalProperties && plain(additionalProperties),
    }),
  };
}

function oracle(schema: StructuralSchema): ValidateFunction {
  const ajv = new Ajv({ useDefaults: true, strict: false, allErrors: false });
  formats.default(ajv, ["date-time", "int32", "int64"]);
  return ajv.compile(plain(schema));
}

/** Values that mostly fit, so that the differences are at the edges and not at the first field. */
function valuesOf(schema: StructuralSchema): fc.Arbitrary<unknown> {
  const odd = fc.constantFrom<unknown>(null, "", 0, -1, 1.5, true, [], {}, "x", 2 ** 31, "a".repeat(600));
  return fc.oneof({ weight: 100, arbitrary: fitting(schema) }, { weight: 1, arbitrary: odd });
}

function fitting(schema: StructuralSchema): fc.Arbitrary<unknown> {
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  const { minItems = 0, maxItems = 4, required = [] } = schema;
  switch (schema.type) {
    case "object": {
      const entries = Object.entries(schema.properties ?? {}).filter(([key]) => key !== "metadata");
      const fields = Object.fromEntries(entries.map(([key, value]) => [key, valuesOf(value)]));
      const known = fc.record(fields, { requiredKeys: required.filter((key) => key in fields) });
      if (!schema.additionalProperties) return known;
      return fc.dictionary(fc.constantFrom("a", "b", "app"), valuesOf(schema.additionalProperties));
    }
    case "array":
      return fc.array(valuesOf(schema.items ?? {}), {
        minLength: minItems,
        maxLength: Math.min(maxItems, 2),
      });
    case "integer":
      return fc.integer({ min: schema.minimum ?? 0, max: Math.min(schema.maximum ?? 10, 100_000) });
    case "boolean":
      return fc.boolean();
    default: {
      const fits = texts.filter((text) => shapeFindings(schema, text).length === 0);
      return fits.length === 0 ? fc.constantFrom(...texts) : fc.constantFrom(...fits);
    }
  }
}

const texts = [
  ...[
    "a",
    "okta:",
    "a.b.c",
    "10m",
    "0s",
    "1h30m",
    "https://id.example.com",
    "2026-01-01T00:00:00Z",
    "10.0.0.0/8",
  ],
  ...[
    "-----BEGIN CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----",
    "100m",
    "db.example.com",
    "postgres",
    "A_b",
  ],
];

describe("the shape check says what ajv says", () => {
  test.each(Object.keys(kindSchemas))("%s", (kind) => {
    const spec = kindSchemas[kind]?.schema.properties?.spec ?? {};
    const accepts = oracle(spec);
    let accepted = 0;
    fc.assert(
      fc.property(valuesOf(spec), (value) => {
        const [ours, theirs] = [structuredClone(value), structuredClone(value)];
        const findings = shapeFindings(spec, ours);
        const verdict = accepts(theirs);
        // Lists keyed by a field are the one thing that ajv cannot say.
        const told = findings.filter(({ path, message }) => message !== "is there twice" || /\]$/.test(path));
        expect(told.length === 0, JSON.stringify([told, accepts.errors])).toBe(verdict);
        if (verdict) expect(ours).toEqual(theirs);
        if (verdict) accepted++;
      }),
      { numRuns: 400 },
    );
    expect(accepted).toBeGreaterThan(0);
  });
});

describe("edges", () => {
  const said = (schema: StructuralSchema, value: unknown) =>
    shapeFindings(schema, value).map(({ message }) => message);

  test("length is counted in characters, as an API server does", () => {
    expect(said({ type: "string", maxLength: 3 }, "😀😀😀")).toEqual([]);
    expect(said({ type: "string", maxLength: 3 }, "😀😀😀😀")).toEqual(["must have at most 3 characters"]);
  });

  test("a number that JSON cannot carry exactly is not an integer", () => {
    expect(said({ type: "integer" }, 2 ** 53)).toEqual(["must be integer"]);
    expect(said({ type: "integer" }, Number.NaN)).toEqual(["must be integer"]);
  });

  test.each([
    ["2026-02-28T23:59:59Z", true],
    ["2026-02-28T23:59:59.123+02:00", true],
    ["2024-02-29T00:00:00Z", true],
    ["2026-02-29T00:00:00Z", false],
    ["2026-13-01T00:00:00Z", false],
    ["2026-01-01T24:00:00Z", false],
    ["2026-01-01", false],
    ["2026-01-01T00:00:00", false],
  ])("%s: a date and time, %s", (text, valid) => {
    expect(said({ type: "string", format: "date-time" }, text).length === 0).toBe(valid);
  });

  test("a mapping full of unknown fields is told quickly", () => {
    const fields = Object.fromEntries(Array.from({ length: 100_000 }, (_, index) => [`field${index}`, 1]));
    const found = said({ type: "object", properties: { field: {} }, additionalProperties: false }, fields);
    expect(found).toHaveLength(51);
    expect(found.at(-1)).toBe("has 100000 unknown fields");
  });

  test("two documents do not share a default", () => {
    const schema: StructuralSchema = { type: "object", properties: { list: { type: "array", default: [] } } };
    const [one, two]: [{ list?: unknown[] }, { list?: unknown[] }] = [{}, {}];
    shapeFindings(schema, one);
    shapeFindings(schema, two);
    one.list?.push("x");
    expect(two.list).toEqual([]);
  });
});
