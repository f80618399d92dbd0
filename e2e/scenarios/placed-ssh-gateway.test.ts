/** SSH gateways as the operator places them: policy over the control stream, a shared key, Debian's sshd and ssh. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect } from "vitest";
import { waitFor } from "../cluster/processes.ts";
import { testWith } from "../drivers/test-with.ts";
import { startControlPlane, type TestControlPlane } from "../targets/control-plane.ts";
import { type GatewayProcess, spawnGateway } from "../targets/gateway.ts";
import { bundleOf, localProvider, writeSecret } from "../targets/manifests.ts";
import { type OpenSshServer, startOpenSsh } from "../targets/openssh.ts";
import { freePort } from "../targets/postgres.ts";
import { LocalIssuer } from "../targets/tokens.ts";

const resource = "default/web";
const apiVersion = "sallyport.dev/v1alpha1";
const issuer = new LocalIssuer("sallyport-test", `sallyport:${resource}`);

const found = await startOpenSsh();
const server = found as OpenSshServer;
let plane: TestControlPlane;
let folder: string;
let gateways: readonly GatewayProcess[] = [];
const ports: number[] = [];

beforeAll(async () => {
  if (found.kind !== "ready") return;
  plane = await startControlPlane();
  folder = await mkdtemp(join(tmpdir(), "sallyport-placed-ssh-"));
  await writeSecret(join(folder, "secrets/web"), {
    username: server.user,
    "ssh-privatekey": server.privateKey,
  });
  // As the operator writes it into the Secret that the gateways mount.
  await writeFile(join(folder, "masking.key"), randomBytes(32).toString("hex"), { mode: 0o600 });
  await publish();
  plane.bundles.markComplete();
  gateways = await Promise.all([place("uid-1"), place("uid-2")]);
});
afterAll(async () => {
  await Promise.all(gateways.map((gateway) => gateway.stop()));
  await plane?.stop();
  if (found.kind !== "ready") return;
  await server.stop();
  await rm(folder, { recursive: true, force: true });
});

async function place(uid: string): Promise<GatewayProcess> {
  const port = await freePort();
  ports.push(port);
  const token = await plane.gatewayPod(resource, uid);
  return spawnGateway({
    ...{ configDir: folder, stateDir: join(folder, uid), port, readyMs: 30_000 },
    args: [
      ...["--secrets", join(folder, "secrets"), "--masking-key", join(folder, "masking.key")],
      ...["--control", plane.address, "--control-ca", plane.caFile, "--control-token", token],
      ...["--resource", resource, "--protocol", "ssh", "--listen-port", String(port), "--drain", "1"],
    ],
  });
}

async function publish(): Promise<void> {
  const manifests = [
    {
      ...{ apiVersion, kind: "ProtectedResource", metadata: { name: "web", namespace: "default" } },
      spec: {
        protocol: "ssh",
        endpoint: { host: "127.0.0.1", port: server.port },
        credentials: [{ name: "app", secretRef: { name: "web" } }],
        identity: { providers: ["local"] },
        options: { hostKeys: [server.hostKey] },
      },
    },
    localProvider(issuer),
    {
      ...{ apiVersion, kind: "AccessPolicy", metadata: { name: "operators", namespace: "default" } },
      spec: {
        resources: { names: ["web"] },
        subjects: [{ user: "local:ana" }],
        rules: [{ name: "diagnose", match: { commands: ["exec"], objects: ["uname"] }, action: "Allow" }],
      },
    },
  ];
  plane.bundles.set(resource, await bundleOf(manifests));
}

/** The line that the status of the resource would show, for one gateway. */
async function hostKeys(): Promise<readonly string[]> {
  return waitFor("both gateways to say their keys", async () => {
    const told = plane.server.of(resource).flatMap(({ knownHosts }) => knownHosts ?? []);
    return told.length === 2 ? told : undefined;
  });
}

async function ssh(port: number, user: string, ...command: readonly string[]) {
  const [key = ""] = await hostKeys();
  const [known, askpass] = [join(folder, `known-${port}`), join(folder, `askpass-${port}-${user}`)];
  await writeFile(known, `[127.0.0.1]:${port} ${key}\n`);
  await writeFile(askpass, `#!/bin/sh\necho ${issuer.token({ user })}\n`);
  await chmod(askpass, 0o700);
  const options = ["-F", "none", "-p", String(port), "-o", `UserKnownHostsFile=${known}`];
  const strict = ["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=/dev/null"];
  const argv = [...options, ...strict, `app%${resource}@127.0.0.1`, ...command];
  const env = { PATH: process.env.PATH, SSH_ASKPASS: askpass, SSH_ASKPASS_REQUIRE: "force" };
  return promisify(execFile)("ssh", argv, { env, timeout: 20_000 }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({
      code,
      stdout,
      stderr,
    }),
  );
}

testWith(
  "gateways that share a key tell the same host key, and ssh meets it at each of them",
  found,
  async () => {
    const keys = await hostKeys();
    expect(new Set(keys).size).toBe(1);
    expect(keys[0]).toMatch(/^ssh-ed25519 [A-Za-z0-9+/=]+$/);
    for (const port of ports) {
      expect(await ssh(port, "ana", "uname")).toMatchObject({ code: 0, stdout: "Linux\n" });
    }
  },
);

testWith("what no policy allows is refused, and so is who none names", found, async () => {
  const [port = 0] = ports;
  expect((await ssh(port, "ana", "id")).code).toBe(126);
  expect((await ssh(port, "mallory", "uname")).code).toBe(255);
});
