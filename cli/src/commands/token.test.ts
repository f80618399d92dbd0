import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createAuthenticator } from "@sallyport/sidecar";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sallyport } from "../testing.ts";

let cwd = "";
const now = Date.parse("2026-01-05T12:00:00Z");

beforeAll(async () => {
  cwd = await mkdtemp(join(tmpdir(), "sallyport-token-"));
  const { code } = await sallyport(["token", "--new-key", "ci.key"], { cwd });
  expect(code).toBe(0);
});
afterAll(() => rm(cwd, { recursive: true }));

async function authenticate(token: string, audience: string) {
  const publicKeys = [await readFile(join(cwd, "ci.key.pub"), "utf8")];
  const provider = {
    metadata: { name: "ci" },
    spec: { type: "local", prefix: "ci:", local: { publicKeys } },
  } as const;
  const authenticator = createAuthenticator({ providers: [provider], clock: () => now + 60_000 });
  return authenticator.authenticate({ kind: "token", token }, { audience, providers: ["ci"] });
}

describe("sallyport token", () => {
  test("a token of a new key lets its user in, at its resource only", async () => {
    const argv =
      "token --key ci.key --user alice --group analysts --group oncall --resource shop/orders --kind Agent";
    const { code, out, err } = await sallyport(argv.split(" "), { cwd, now });
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const accepted = await authenticate(out.trim(), "sallyport:shop/orders");
    expect(accepted).toMatchObject({
      kind: "authenticated",
      identity: { user: "ci:alice", groups: ["ci:analysts", "ci:oncall"], kind: "Agent" },
    });
    expect(await authenticate(out.trim(), "sallyport:shop/other")).toMatchObject({ kind: "refused" });
  });

  test("json tells when a token ends, and lifetimes are bounded", async () => {
    const argv = "token --key ci.key --user alice --audience x --lifetime 1h30m -o json".split(" ");
    const { out } = await sallyport(argv, { cwd, now });
    expect(JSON.parse(out)).toMatchObject({ audiences: ["x"], expiresAt: "2026-01-05T13:30:00.000Z" });
    for (const lifetime of ["25h", "0s", "-5m", "forever", ""]) {
      const refused = await sallyport([...argv.slice(0, 7), `--lifetime=${lifetime}`], { cwd, now });
      expect(refused.code, lifetime).toBe(2);
      expect(refused.out, lifetime).toBe("");
    }
  });

  test("the private key is the owner's alone, and no key is overwritten", async () => {
    const { mode } = await stat(join(cwd, "ci.key"));
    expect(mode & 0o777).toBe(0o600);
    const before = await readFile(join(cwd, "ci.key"), "utf8");
    const { code, err } = await sallyport(["token", "--new-key", "ci.key"], { cwd });
    expect(code).toBe(1);
    expect(err).toContain("no key is ever overwritten");
    expect(await readFile(join(cwd, "ci.key"), "utf8")).toBe(before);
  });

  test("a key that cannot sign is refused without a word of it", async () => {
    const argv = ["token", "--key", "ci.key.pub", "--user", "alice", "--resource", "shop/orders"];
    const { code, out, err } = await sallyport(argv, { cwd });
    expect({ code, out }).toEqual({ code: 2, out: "" });
    const [, secret = ""] = (await readFile(join(cwd, "ci.key.pub"), "utf8")).split("\n");
    expect(err).not.toContain(secret);
    expect(err).toContain("not the .pub file");
  });

  test("what is missing is named, with what to give", async () => {
    for (const [argv, next] of [
      [["--user", "alice"], "--key FILE"],
      [["--key", "ci.key", "--user", "alice"], "--resource namespace/name"],
      [["--key", "none.key", "--user", "alice", "--resource", "a/b"], "--new-key FILE"],
      [["--key", "ci.key", "--user", "alice", "--resource", "shop"], "namespace/name"],
    ] as const) {
      const { code, err } = await sallyport(["token", ...argv], { cwd });
      expect(code).toBe(2);
      expect(err).toContain(next);
    }
  });
});
