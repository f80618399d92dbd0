import { describe, expect, test } from "vitest";
import { stringify } from "yaml";
import { KubeconfigError, readKubeconfig } from "./kubeconfig.ts";

const pem = (what: string) =>
  Buffer.from(`-----BEGIN ${what}-----\nAAAA\n-----END ${what}-----\n`).toString("base64");

type Part = Readonly<Record<string, unknown>>;

function kubeconfig(cluster: Part = {}, user: Part = { token: "secret-token" }, more: Part = {}): string {
  return stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [
      {
        name: "c",
        cluster: {
          server: "https://api.example.com:6443",
          "certificate-authority-data": pem("CERTIFICATE"),
          ...cluster,
        },
      },
    ],
    users: [
      { name: "other", user: { exec: { command: "/bin/sh" } } },
      { name: "gateway", user },
    ],
    contexts: [{ name: "x", context: { cluster: "c", user: "gateway" } }],
    "current-context": "x",
    ...more,
  });
}

test("a token, and a client certificate with its key, are taken from the current context", () => {
  expect(readKubeconfig(kubeconfig())).toMatchObject({
    server: { host: "api.example.com", port: 6443 },
    username: "gateway",
    token: "secret-token",
    authorities: expect.stringContaining("BEGIN CERTIFICATE"),
  });
  const user = { "client-certificate-data": pem("CERTIFICATE"), "client-key-data": pem("PRIVATE KEY") };
  expect(readKubeconfig(kubeconfig({}, user))).toMatchObject({
    certificate: expect.stringContaining("BEGIN CERTIFICATE"),
    key: expect.stringContaining("BEGIN PRIVATE KEY"),
  });
  expect(readKubeconfig(kubeconfig({ server: "https://[fd00::1]" })).server).toEqual({
    host: "fd00::1",
    port: 443,
  });
});

describe("refused is what runs, points or is not checked:", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["a command", kubeconfig({}, { exec: { command: "/bin/sh", apiVersion: "v1" } })],
    ["a command beside a token", kubeconfig({}, { token: "t", exec: { command: "/bin/sh" } })],
    ["an auth provider", kubeconfig({}, { "auth-provider": { name: "gcp" } })],
    ["a token in a file", kubeconfig({}, { tokenFile: "/var/run/secrets/token" })],
    ["a key in a file", kubeconfig({}, { "client-certificate": "/c", "client-key": "/k" })],
    ["authorities in a file", kubeconfig({ "certificate-authority": "/etc/ca" })],
    ["a server that is not verified", kubeconfig({ "insecure-skip-tls-verify": true })],
    ["another name for the certificate", kubeconfig({ "tls-server-name": "attacker.example.com" })],
    ["a proxy", kubeconfig({ "proxy-url": "http://attacker.example.com" })],
    ["impersonation", kubeconfig({}, { token: "t", as: "system:admin" })],
    ["a password", kubeconfig({}, { username: "u", password: "p" })],
    ["plain HTTP", kubeconfig({ server: "http://api.example.com" })],
    ["a server with a path", kubeconfig({ server: "https://api.example.com/k8s/clusters/c" })],
    ["no authorities", kubeconfig({ "certificate-authority-data": undefined })],
    ["no credential", kubeconfig({}, {})],
    ["half a client certificate", kubeconfig({}, { "client-certificate-data": pem("CERTIFICATE") })],
    ["no current context", kubeconfig({}, { token: "t" }, { "current-context": "" })],
    ["another context", kubeconfig({}, { token: "t" }, { "current-context": "y" })],
    ["aliases", "a: &a [1]\nb: *a\n"],
    ["a list", "- 1\n"],
    ["no YAML", "{"],
    ["too much of it", `x: "${"x".repeat(300_000)}"`],
  ];
  test.each(cases)("%s", (_name, text) => {
    expect(() => readKubeconfig(text)).toThrow(KubeconfigError);
  });

  test("and no message quotes what was written", () => {
    for (const [, text] of cases) {
      try {
        readKubeconfig(text);
      } catch (error) {
        expect(String(error)).not.toMatch(/secret-token|\/bin\/sh|attacker/);
      }
    }
  });
});
