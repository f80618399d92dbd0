/** SSH gateways that the operator places: a Deployment before a host, and a sidecar beside sshd; real ssh from a pod. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { run } from "../cluster/kubectl.ts";
import { sshd, sshdImageName } from "../image/sshd/image.ts";
import { localProvider } from "../targets/manifests.ts";
import { LocalIssuer } from "../targets/tokens.ts";
import { accessPolicy, condition, install } from "./installed.ts";
import { restrictedContainer, restrictedPod } from "./objects.ts";
import { type KubernetesObject, openScenario } from "./scenario.ts";

const scenario = openScenario("placed-ssh", { "sallyport.dev/protection": "enabled" });
const { namespace } = scenario;
const apiVersion = "sallyport.dev/v1alpha1";
const issuer = new LocalIssuer("placed-ssh", `sallyport:${namespace}/web`);
const tokenFor = (name: string, user: string) =>
  issuer.token({ user, claims: { aud: `sallyport:${namespace}/${name}` } });

let hostKey = "";

beforeAll(async () => {
  await install(scenario.cluster);
  await scenario.cluster.kubectl.apply([localProvider(issuer, {}, "placed-ssh")]);
  const folder = await mkdtemp(join(tmpdir(), "sallyport-placed-ssh-"));
  const keys: Record<string, string> = {};
  for (const name of ["host", "gateway"]) {
    const file = join(folder, name);
    await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file]);
    keys[name] = await readFile(file, "utf8");
    keys[`${name}.pub`] = (await readFile(`${file}.pub`, "utf8")).trim();
  }
  await rm(folder, { recursive: true });
  hostKey = keys["host.pub"] ?? "";
  const [boxedService, boxedHost] = host("boxed");
  await scenario.apply(
    {
      ...{ apiVersion: "v1", kind: "Secret", metadata: { name: "host" } },
      stringData: { "ssh-privatekey": keys.host, authorized_keys: `${keys["gateway.pub"]}\n` },
    },
    {
      ...{ apiVersion: "v1", kind: "Secret", metadata: { name: "login" } },
      stringData: { username: sshd.user, "ssh-privatekey": keys.gateway },
    },
    ...host("web"),
    boxedService,
    resource("web", {}),
    resource("boxed", { placement: { mode: "Sidecar", podSelector: { matchLabels: { app: "boxed" } } } }),
    accessPolicy("operators", {
      resources: { names: ["web", "boxed"] },
      subjects: [{ user: "placed-ssh:ana" }],
      profile: "ReadOnly",
      rules: [
        { name: "diagnose", match: { commands: ["exec"], objects: ["uname", "id"] }, action: "Allow" },
        {
          name: "no-env",
          match: { commands: ["exec"], objects: ["env"] },
          action: "Deny",
          message: "not here",
        },
      ],
    }),
    client(),
  );
  await scenario.ready("deployment/web", "deployment/web-gateway", "pod/client");
  await condition(scenario, "protectedresource/web", "Ready", "True");
  await condition(scenario, "protectedresource/boxed", "Programmed", "False", "NoPods");
  await scenario.apply(boxedHost);
  await scenario.ready("deployment/boxed");
  await condition(scenario, "protectedresource/boxed", "Ready", "True");
});

function resource(name: string, spec: Readonly<Record<string, unknown>>): KubernetesObject {
  return {
    ...{ apiVersion, kind: "ProtectedResource", metadata: { name } },
    spec: {
      protocol: "ssh",
      endpoint: { serviceRef: { name, port: 22 } },
      tls: { upstream: { mode: "disable" } },
      credentials: [{ name: sshd.user, secretRef: { name: "login" } }],
      identity: { providers: ["placed-ssh"] },
      options: { hostKeys: [hostKey] },
      ...spec,
    },
  };
}

function container(name: string, mount: string, secret: string | undefined) {
  return {
    spec: {
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      securityContext: { ...restrictedPod, fsGroup: sshd.userId },
      terminationGracePeriodSeconds: 0,
      containers: [
        {
          name,
          image: sshdImageName,
          imagePullPolicy: "Never",
          securityContext: restrictedContainer,
          ...(secret === undefined && { args: ["sleep", "86400"] }),
          volumeMounts: [
            { name: "tmp", mountPath: "/tmp" },
            ...(secret === undefined ? [] : [{ name: "host", mountPath: mount }]),
          ],
          ...(secret !== undefined && {
            readinessProbe: { tcpSocket: { port: sshd.port }, periodSeconds: 1 },
          }),
        },
      ],
      volumes: [
        { name: "tmp", emptyDir: {} },
        ...(secret === undefined ? [] : [{ name: "host", secret: { secretName: secret } }]),
      ],
    },
  };
}

function host(name: string): [KubernetesObject, KubernetesObject] {
  const labels = { app: name };
  return [
    {
      ...{ apiVersion: "v1", kind: "Service", metadata: { name } },
      spec: { selector: labels, ports: [{ port: 22, targetPort: sshd.port }] },
    },
    {
      ...{ apiVersion: "apps/v1", kind: "Deployment", metadata: { name } },
      spec: {
        selector: { matchLabels: labels },
        template: { metadata: { labels }, ...container("sshd", "/host", "host") },
      },
    },
  ];
}

const client = (): KubernetesObject => ({
  ...{ apiVersion: "v1", kind: "Pod", metadata: { name: "client", labels: { app: "client" } } },
  ...container("client", "", undefined),
});

const knownHosts = (name: string) =>
  scenario.kubectl("get", `protectedresource/${name}`, "-o", "jsonpath={.status.knownHosts}");

/** Runs ssh in the client's pod, which knows what the status says and nothing else. */
async function ssh(name: string, token: string, ...command: readonly string[]) {
  const script = [
    'printf "%s\\n" "$1" >/tmp/known_hosts',
    'printf "#!/bin/sh\\nprintf %s %s\\n" "$2" "" >/tmp/askpass && chmod 700 /tmp/askpass',
    "shift 2",
    "export SSH_ASKPASS=/tmp/askpass SSH_ASKPASS_REQUIRE=force",
    'exec ssh -F none -o UserKnownHostsFile=/tmp/known_hosts -o StrictHostKeyChecking=yes -o ConnectTimeout=10 "$@"',
  ].join("\n");
  const target = `${sshd.user}%${namespace}/${name}@${name}-gateway.${namespace}.svc`;
  const argv = ["-p", "2222", target, ...command];
  return scenario.exec("client", "sh", "-c", script, "sh", await knownHosts(name), token, ...argv);
}

test.each(["web", "boxed"])(
  "ssh runs an allowed command on %s, and a denied one ends with the reason",
  async (name) => {
    await scenario.reachable("client", `${name}-gateway.${namespace}.svc`, 2222);
    expect(await ssh(name, tokenFor(name, "ana"), "uname")).toMatchObject({ code: 0, stdout: "Linux\n" });
    const denied = await ssh(name, tokenFor(name, "ana"), "env");
    expect(denied).toMatchObject({ code: 126, stdout: "" });
    expect(denied.stderr).toContain("not here");
  },
);

test("who no policy names, and who shows another resource's token, stays outside", async () => {
  expect((await ssh("web", tokenFor("web", "mallory"), "uname")).code).toBe(255);
  expect((await ssh("web", tokenFor("boxed", "ana"), "uname")).code).toBe(255);
});

test("the host is reached from nowhere but the gateway", async () => {
  const { code } = await scenario.exec("client", "nc", "-w", "3", `web.${namespace}.svc`, "22");
  expect(code).not.toBe(0);
});

test("all gateways show one host key, which the status tells, and a rollout keeps it", async () => {
  const before = await knownHosts("web");
  expect(before).toMatch(/^\[web-gateway\.[a-z0-9-]+\.svc\]:2222 ssh-ed25519 [A-Za-z0-9+/=]+$/);
  expect(before).not.toContain(hostKey.split(" ")[1]);
  expect(before.split(" ").at(-1)).not.toBe((await knownHosts("boxed")).split(" ").at(-1));
  await scenario.kubectl("rollout", "restart", "deployment/web-gateway");
  await scenario.ready("deployment/web-gateway");
  await condition(scenario, "protectedresource/web", "Ready", "True");
  expect(await ssh("web", tokenFor("web", "ana"), "uname")).toMatchObject({ code: 0, stdout: "Linux\n" });
  expect(await knownHosts("web")).toBe(before);
});
