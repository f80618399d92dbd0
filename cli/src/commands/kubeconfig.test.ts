import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { sallyport } from "../testing.ts";

let cwd = "";
const now = Date.parse("2026-01-05T12:00:00Z");
const jwt = (seconds: number) => {
  const payload = Buffer.from(JSON.stringify({ exp: now / 1000 + seconds })).toString("base64url");
  return `e30.${payload}.c2ln`;
};

beforeAll(async () => {
  cwd = await mkdtemp(join(tmpdir(), "sallyport-kubeconfig-"));
  await writeFile(join(cwd, "ca.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  await writeFile(join(cwd, "token"), `${jwt(900)}\n`);
  await writeFile(join(cwd, "old"), jwt(5));
});
afterAll(() => rm(cwd, { recursive: true }));

const write = (...more: readonly string[]) =>
  sallyport(
    [
      ...["kubeconfig", "--resource", "access/cluster", "--server", "https://gateway:6443", "--ca", "ca.pem"],
      ...["--kubeconfig", "config", "--folder", "tokens", "--token-file", "token", ...more],
    ],
    { cwd, now },
  );
const credential = (resource: string, at = now) =>
  sallyport(["kubeconfig", "--credential", "--resource", resource, "--folder", "tokens"], { cwd, now: at });

interface Config {
  readonly "current-context": string;
  readonly clusters: readonly { name: string; cluster: Record<string, string> }[];
  readonly users: readonly { name: string; user: { exec: { command: string; args: string[] } } }[];
  readonly contexts: readonly { name: string; context: Record<string, string> }[];
}
const config = async () => parse(await readFile(join(cwd, "config"), "utf8")) as Config;

describe("sallyport kubeconfig", () => {
  test("writes a context whose plugin is this program, and no token", async () => {
    expect(await write("--namespace", "shop")).toMatchObject({ code: 0, err: "" });
    const text = await readFile(join(cwd, "config"), "utf8");
    expect(text).not.toContain(jwt(900));
    const name = "sallyport-access-cluster";
    const { clusters, contexts, users, ...rest } = await config();
    expect(rest).toMatchObject({ apiVersion: "v1", kind: "Config", "current-context": name });
    expect(clusters[0]).toMatchObject({ name, cluster: { server: "https://gateway:6443" } });
    expect(contexts).toEqual([{ name, context: { cluster: name, user: name, namespace: "shop" } }]);
    expect(users[0]?.user.exec).toMatchObject({
      apiVersion: "client.authentication.k8s.io/v1",
      command: "sallyport",
      interactiveMode: "IfAvailable",
    });
    expect((await stat(join(cwd, "config"))).mode & 0o777).toBe(0o600);
  });

  test("what else stands in the file stays, and its own entries are replaced", async () => {
    await writeFile(
      join(cwd, "config"),
      "# mine\napiVersion: v1\nkind: Config\nclusters:\n- {name: prod, cluster: {server: 'https://prod'}}\nusers: null\n",
    );
    await write();
    await write("--server", "https://other:6443");
    const { clusters, users } = await config();
    expect(clusters.map(({ name, cluster }) => [name, cluster.server])).toEqual([
      ["prod", "https://prod"],
      ["sallyport-access-cluster", "https://other:6443"],
    ]);
    expect(users).toHaveLength(1);
    expect(await readFile(join(cwd, "config"), "utf8")).toContain("# mine");
  });

  test("a file that is none is left alone", async () => {
    await writeFile(join(cwd, "config"), "clusters: {a: b}\n");
    expect(await write()).toMatchObject({ code: 2, err: expect.stringContaining("is no kubeconfig") });
    expect(await readFile(join(cwd, "config"), "utf8")).toBe("clusters: {a: b}\n");
    await rm(join(cwd, "config"));
  });

  test("plain HTTP, no authorities and an old token are refused", async () => {
    expect((await write("--server", "http://gateway")).code).toBe(2);
    expect((await write("--ca", "token")).err).toContain("holds no certificate");
    expect((await write("--token-file", "old")).err).toContain("expired");
  });
});

describe("the credential plugin", () => {
  test("gives the token that is kept, and when it ends; nobody else can read it", async () => {
    await write();
    const { code, out } = await credential("access/cluster");
    expect({ code, ...JSON.parse(out) }).toEqual({
      code: 0,
      apiVersion: "client.authentication.k8s.io/v1",
      kind: "ExecCredential",
      status: { token: jwt(900), expirationTimestamp: "2026-01-05T12:15:00Z" },
    });
    expect((await stat(join(cwd, "tokens"))).mode & 0o777).toBe(0o700);
    expect((await stat(join(cwd, "tokens/access_cluster"))).mode & 0o777).toBe(0o600);
  });

  test("gives nothing for another resource, nor when the token is over, and says what to do", async () => {
    const none = await credential("access/other");
    expect(none).toMatchObject({ code: 1, out: "", err: expect.stringContaining("there is no token") });
    const over = await credential("access/cluster", now + 895_000);
    expect(over).toMatchObject({ code: 1, out: "" });
    expect(over.err).not.toContain(jwt(900));
  });
});
