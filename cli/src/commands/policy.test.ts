import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { sallyport, testdata } from "../testing.ts";

const explain = (sql: string, ...more: readonly string[]) =>
  sallyport(["policy", "explain", sql, "--resource", "demo/shop", "--manifests", "manifests", ...more]);
const analyst = ["--as", "local:alice", "-g", "local:analysts"];

/** Runs a case file that differs from the good one. */
async function testCases(change: (text: string) => string, ...more: readonly string[]) {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-cases-"));
  try {
    const text = await readFile(join(testdata, "cases.yaml"), "utf8");
    const file = join(folder, "cases.yaml");
    await writeFile(
      file,
      change(text.replace("manifests: manifests", `manifests: ${join(testdata, "manifests")}`)),
    );
    return await sallyport(["policy", "test", file, ...more]);
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe("sallyport policy test", () => {
  test("cases that hold pass, with the policies of the folder that the file names", async () => {
    const { code, out } = await sallyport(["policy", "test", "cases.yaml"]);
    expect(out).toContain("5 passed, 0 failed");
    expect(code).toBe(0);
  });

  test("a case that does not hold fails, with what was expected and what was decided", async () => {
    const change = (text: string) =>
      text.replace("expect: {action: Allow, rule", "expect: {action: Deny, rule");
    const { code, out } = await testCases(change);
    expect(code).toBe(1);
    expect(out).toContain('FAIL  an analyst reads\n          action: expected "Deny", got "Allow"');
    expect(out).toContain("4 passed, 1 failed");
    const json = JSON.parse((await testCases(change, "-o", "json")).out);
    expect(json).toMatchObject({
      ok: false,
      files: [{ results: expect.arrayContaining([expect.objectContaining({ passed: false })]) }],
    });
  });

  test("a file that is no case file, and manifests that are not accepted, are told apart from failures", async () => {
    const wrong = await testCases((text) => text.replace("cases:", "casse:"));
    expect(wrong.code).toBe(2);
    expect(wrong.err).toContain("casse");
    const absent = await testCases((text) => text.replace("/manifests", "/nowhere"));
    expect(absent.code).toBe(2);
    expect(absent.err).toContain("nowhere");
    const broken = await testCases((text) => text.replace(/manifests: .*/, `manifests: ${badExample}`));
    expect(broken).toMatchObject({ code: 1, out: "" });
    expect(broken.err).toContain("sallyport validate");
  });
});

const masks = `apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: masks, namespace: demo}
spec:
  resources: {names: [shop]}
  subjects: [{group: "local:analysts"}]
  masking:
  - {columns: [public.customers.email], with: Redact}
  - {columns: [public.customers.ssn], with: Partial, format: "***-**-{last4}"}
  - {patterns: [creditCard], with: Redact}
`;

const badExample = new URL("../../../crds/examples/bad/unknown-field.yaml", import.meta.url).pathname;

describe("sallyport policy explain", () => {
  test("names the policies that applied, the rules that matched, and why", async () => {
    const { code, out } = await explain("SELECT * FROM orders, hr.salaries", ...analyst);
    expect(code).toBe(1);
    expect(out).toMatch(/^Deny \(authoritative\)\n {2}rule: analysts\/salaries-are-closed\n/);
    expect(out).toMatch(/^no +Enforce +AccessPolicy demo\/admins +its subjects do not name local:alice$/m);
    expect(out).toMatch(/^yes +Deny +analysts\/salaries-are-closed +authoritative +every key matches$/m);
    expect(out).toContain("Taken to be plain tables: public.orders, hr.salaries;");
  });

  test("an allowed statement ends with 0, and json holds the whole explanation", async () => {
    const { code, out } = await explain("SELECT id FROM orders", ...analyst, "-o", "json");
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({
      verdict: { action: "Allow", rule: { policy: "analysts", rule: "profile/ReadOnly" } },
      policies: [
        { policy: "admins", applies: false },
        { policy: "analysts", applies: true },
      ],
      parts: [{ operation: "read", objects: ["public.orders"] }],
      assumedTables: ["public.orders"],
    });
  });

  test("a declared view is judged by what it reads", async () => {
    const view = [
      "--table",
      "hr.salaries(id, amount)",
      "--table",
      "view public.open(id) as SELECT id FROM hr.salaries",
    ];
    const { code, out } = await explain("SELECT * FROM open", ...analyst, ...view);
    expect(code).toBe(1);
    expect(out).toContain("hr.salaries (indirect)");
    expect(out).not.toContain("Taken to be");
  });

  test("who is named by nothing is denied, and every part must be allowed", async () => {
    const stranger = await explain("SELECT 1", "--as", "local:mallory");
    expect(stranger.code).toBe(1);
    expect(stranger.out).toContain("no policy names local:mallory for shop");
    const both = await explain("SELECT 1; DELETE FROM orders", "--as", "local:root", "-g", "local:admins");
    expect(both.code).toBe(1);
    expect(both.out).toContain("rule: admins/no-unbounded-writes");
  });

  test("manifests that a gateway would not take explain nothing", async () => {
    const argv = [
      "policy",
      "explain",
      "SELECT 1",
      ...analyst,
      "--resource",
      "default/shop",
      "--manifests",
      badExample,
    ];
    const { code, out, err } = await sallyport(argv);
    expect({ code, out }).toEqual({ code: 1, out: "" });
    expect(err).toContain("sallyport validate");
  });

  test("what would be masked is told for each column: how, by which entry, and because of which column", async () => {
    const folder = await mkdtemp(join(tmpdir(), "sallyport-masks-"));
    try {
      await cp(join(testdata, "manifests"), folder, { recursive: true });
      await writeFile(join(folder, "masks.yaml"), masks);
      const declared = ["--table", "public.customers(id, email, ssn)"];
      const asked = (sql: string, ...more: readonly string[]) =>
        sallyport([
          ...["policy", "explain", sql, ...analyst, ...declared, "--resource", "demo/shop"],
          ...["--manifests", folder, ...more],
        ]);
      const { code, out } = await asked("SELECT id, upper(email) AS e, ssn FROM customers");
      expect(code).toBe(0);
      const shown = out.slice(out.indexOf("\nMasks\n"));
      expect(shown).toMatch(/^1 +1 +shown as it is *$/m);
      expect(shown).toMatch(/^1 +2 +Redact +masks\/\S+ +public\.customers\.email$/m);
      expect(shown).toMatch(/^1 +3 +Partial +masks\/\S+ +public\.customers\.ssn$/m);
      expect(shown).toMatch(/^In every value: creditCard, by masks\/\S+\.$/m);

      const refused = await asked("SELECT id FROM customers WHERE ssn LIKE '1%'");
      expect(refused.code).toBe(1);
      expect(refused.out).toMatch(/^1 +- +refused +masks\//m);
      const json = JSON.parse((await asked("SELECT ssn FROM customers", "-o", "json")).out);
      expect(json.masks).toMatchObject([
        { columns: [{ with: "Partial", columns: ["public.customers.ssn"] }] },
      ]);

      // Who is not named sees what is there, and is told of no masks.
      const admin = ["--as", "local:root", "-g", "local:admins", "--resource", "demo/shop"];
      const plain = await sallyport(["policy", "explain", "SELECT 1", ...admin, "--manifests", folder]);
      expect(plain.out).not.toContain("Masks");
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test("a resource that only audits says so", async () => {
    const folder = await mkdtemp(join(tmpdir(), "sallyport-audit-"));
    try {
      await cp(join(testdata, "manifests"), folder, { recursive: true });
      const shop = await readFile(join(folder, "shop.yaml"), "utf8");
      await writeFile(
        join(folder, "shop.yaml"),
        shop.replace("protocol: postgres", "protocol: postgres\n  enforcement: Audit"),
      );
      const argv = [
        "policy",
        "explain",
        "DELETE FROM orders",
        ...analyst,
        "--resource",
        "demo/shop",
        "--manifests",
        folder,
      ];
      const { code, out } = await sallyport(argv);
      expect(code).toBe(1);
      expect(out).toContain("nothing is held back");
      expect(JSON.parse((await sallyport([...argv, "-o", "json"])).out)).toMatchObject({
        enforcement: "Audit",
      });
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test("what does not parse is rejected in the server's words", async () => {
    const { code, out } = await explain("SELEC 1", ...analyst);
    expect(code).toBe(1);
    expect(out).toMatch(/^rejected: 42601 syntax error/);
  });

  test("an unknown resource lists those that there are", async () => {
    const argv = [
      "policy",
      "explain",
      "SELECT 1",
      "--as",
      "x",
      "--resource",
      "demo/other",
      "--manifests",
      "manifests",
    ];
    const { code, err } = await sallyport(argv);
    expect(code).toBe(2);
    expect(err).toBe("sallyport: there is no resource demo/other in these manifests\nThere are: demo/shop\n");
  });
});
