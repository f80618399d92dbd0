/** A gateway that the operator places before its own cluster's API server: kubectl with sallyport as credential plugin. */
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createKubectl, type Kubectl, run } from "../cluster/kubectl.ts";
import { postgresImageName } from "../image/postgres/image.ts";
import { localProvider } from "../targets/manifests.ts";
import { LocalIssuer } from "../targets/tokens.ts";
import { accessPolicy, condition, gatewayAddresses, install } from "./installed.ts";
import { restrictedContainer, restrictedPod } from "./objects.ts";
import { openScenario } from "./scenario.ts";
import { going } from "./shell-pod.ts";

const scenario = openScenario("placed-kubernetes");
const apps = openScenario("placed-kubernetes-apps", { "sallyport.dev/protect-exec": "true" });
const { namespace } = scenario;
const issuer = new LocalIssuer("placed-kubernetes", `sallyport:${namespace}/cluster`);
const prefix = "placed-kubernetes";
const sallyport = join(import.meta.dirname, "../../cli/bin/sallyport.mjs");
/** A person, a job that looks, and one that delivers. */
const users = ["ana", "health", "deploy"];
const speaksFor = users.map((name) => `${prefix}:${name}`);
const values = `kubernetes.namespaces={${namespace}},kubernetes.impersonation.users={${speaksFor.join(",")}}`;
const lead = "lea@example.com";

/** A gateway before its own cluster's API server. */
const cluster = {
  apiVersion: "sallyport.dev/v1alpha1",
  kind: "ProtectedResource",
  metadata: { name: "cluster" },
  spec: {
    protocol: "kubernetes",
    placement: { mode: "Shared", replicas: 2 },
    endpoint: { host: "kubernetes.default.svc", port: 443 },
    tls: { upstream: { mode: "verify-full", caRef: { name: "own" } } },
    credentials: [{ name: "gateway", secretRef: { name: "own" } }],
    identity: { providers: [prefix] },
    options: { ownCluster: true },
  },
};

interface Session {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly startedAt: string };
  readonly status?: { readonly state?: string; readonly counts?: { readonly refused?: number } };
}

let folder = "";
let ana: Kubectl;
let health: Kubectl;
let deploy: Kubectl;
let lea: Kubectl;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sallyport-placed-kubernetes-"));
  await install(scenario.cluster, "--set", values);
  // Only who has a name in the cluster can ask.
  const provider = localProvider(issuer, { kubernetesUsername: "claims.sub" }, prefix);
  await scenario.cluster.kubectl.apply([provider]);
  await scenario.apply(
    cluster,
    accessPolicy("operators", {
      resources: { names: ["cluster"] },
      subjects: [{ user: `${prefix}:ana` }],
      profile: "Admin",
      rules: [
        {
          name: "no-environment",
          match: { commands: ["pods/exec"], cel: '"env" in command.argv' },
          action: "Deny",
          message: "the environment is not shown",
        },
        {
          name: "asked-about",
          match: { commands: ["pods/exec"], cel: '"asked" in command.argv' },
          action: "RequireApproval",
          message: "somebody else must agree",
          approval: { required: 1, timeout: "2m" },
        },
      ],
    }),
    accessPolicy("checks", {
      resources: { names: ["cluster"] },
      subjects: [{ user: `${prefix}:health` }],
      profile: "ReadOnly",
    }),
    accessPolicy("deliveries", {
      resources: { names: ["cluster"] },
      subjects: [{ user: `${prefix}:deploy` }],
      profile: "ReadWrite",
      rules: [
        {
          name: "secrets",
          match: { objects: ["create:secrets", "update:secrets", "patch:secrets"] },
          action: "RequireApproval",
          message: "a person looks at what is secret",
          approval: { required: 1, timeout: "2m" },
        },
      ],
    }),
    {
      ...{ apiVersion: "rbac.authorization.k8s.io/v1", kind: "RoleBinding", metadata: { name: "approver" } },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "sallyport-approver" },
      subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: lead }],
    },
  );
  const pod = {
    automountServiceAccountToken: false,
    securityContext: restrictedPod,
    terminationGracePeriodSeconds: 0,
    containers: [
      {
        name: "web",
        image: postgresImageName,
        imagePullPolicy: "Never",
        args: ["sleep", "86400"],
        securityContext: restrictedContainer,
      },
    ],
  };
  const labels = { app: "site" };
  await apps.apply(
    { apiVersion: "v1", kind: "Pod", metadata: { name: "web" }, spec: pod },
    {
      ...{ apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "site" } },
      spec: { selector: { matchLabels: labels }, template: { metadata: { labels }, spec: pod } },
    },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "RoleBinding",
      metadata: { name: "users" },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "admin" },
      subjects: speaksFor.map((name) => ({ apiGroup: "rbac.authorization.k8s.io", kind: "User", name })),
    } as never,
  );
  await scenario.ready("deployment/cluster-gateway");
  await apps.ready("pod/web");
  await apps.ready("deployment/site");
  await condition(scenario, "protectedresource/cluster", "Ready", "True");
  await condition(scenario, "protectedresource/cluster", "ApprovalsGuarded", "True");
  [ana, health, deploy] = [await contextOf("ana"), await contextOf("health"), await contextOf("deploy")];
  lea = await scenario.cluster.user(lead);
  // The API server counts a new binding some moments after it was made.
  await scenario.eventually("the gateway to speak for people", async () => {
    const { code } = await ana.try(undefined, "auth", "whoami");
    return code === 0 || undefined;
  });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** What a person does: the bundle of authorities from the status, and one call of sallyport. */
async function contextOf(user: string): Promise<Kubectl> {
  const [file, ca, token] = ["config", "ca.pem", "token"].map((name) => join(folder, `${user}-${name}`)) as [
    ...[string, string, string],
  ];
  const status = (path: string) =>
    scenario.kubectl("get", "protectedresource/cluster", "-o", `jsonpath={.status.${path}}`);
  await writeFile(ca, await status("caBundle"));
  await writeFile(token, issuer.token({ user }), { mode: 0o600 });
  const address = await scenario.kubectl("get", "svc/cluster-gateway", "-o", "jsonpath={.spec.clusterIP}");
  const { code, stderr } = await run(process.execPath, [
    ...[sallyport, "kubeconfig", "--resource", `${namespace}/cluster`, "--server", `https://${address}:6443`],
    ...["--tls-server-name", `cluster-gateway.${namespace}.svc`, "--ca", ca, "--token-file", token],
    ...["--kubeconfig", file, "--folder", join(folder, `${user}-tokens`), "--namespace", apps.namespace],
    ...["--command", sallyport],
  ]);
  expect([code, stderr]).toEqual([0, ""]);
  return createKubectl(scenario.cluster.kubectl.program, file);
}

test("kubectl works by the credential plugin, as the person that the token names", async () => {
  expect(await ana("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")).toBe(`${prefix}:ana`);
  expect(await ana("get", "pods", "-o", "name")).toContain("pod/web");
  // RBAC goes on to decide: the gateway's own account is never who asks.
  const { stderr } = await ana.try(undefined, "get", "pods", "-n", "kube-system");
  expect(stderr).toContain(`User "${prefix}:ana" cannot list`);
});

test("exec is decided at the gateway, and runs where the way around it is closed", async () => {
  const allowed = await ana.try(undefined, "exec", "web", "--", "id", "-u");
  expect(allowed).toEqual({ code: 0, stdout: "999\n", stderr: "" });
  const denied = await ana.try(undefined, "exec", "web", "--", "env");
  expect(denied.code).not.toBe(0);
  expect(denied.stderr).toContain("the environment is not shown");
  const around = await apps.exec("web", "true");
  expect(around.code).not.toBe(0);
  expect(around.stderr).toContain("connect through the Sallyport gateway");
  // The operator has tried it, too.
  await condition(scenario, "protectedresource/cluster", "BypassProtected", "True", "ExecClosed", 90_000);
});

/** Leads each connection to the next of some gateways: what kubectl asks for twice never reaches the same one. */
class Spread {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** The place of the gateway that each connection reached. */
  readonly reached: number[] = [];

  constructor(addresses: readonly string[]) {
    this.#server = createServer((client) => {
      const place = this.reached.length % addresses.length;
      this.reached.push(place);
      const gateway = connect(6443, addresses[place]);
      for (const [socket, other] of [
        [client, gateway],
        [gateway, client],
      ] as const) {
        this.#sockets.add(socket);
        socket.on("error", () => other.destroy());
        socket.on("close", () => this.#sockets.delete(socket));
        socket.pipe(other);
      }
    });
  }

  async listen(): Promise<string> {
    await once(this.#server.listen(0, "127.0.0.1"), "listening");
    return `https://127.0.0.1:${(this.#server.address() as { readonly port: number }).port}`;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}

/** Requests for approval so far. */
const asked = async () =>
  (
    await scenario.kubectl.json<{
      readonly items: readonly { readonly metadata: { readonly name: string }; readonly spec: unknown }[];
    }>("approvals")
  ).items;

/** Decides as the approver does, by a patch, once the operator takes decisions. */
const decide = (name: string, decision: object) =>
  scenario.eventually("the decision to be taken", async () => {
    const patch = JSON.stringify([
      { op: "add", path: "/spec/decisions/-", value: { approver: lead, ...decision } },
    ]);
    const argv = ["-n", namespace, "patch", "approval", name, "--type=json", "-p", patch];
    const { code, stderr } = await lea.try(undefined, ...argv);
    // Its client knows of it a moment before the API server does, and the operator looks at it before it is decided.
    if (code !== 0 && !/NotFound|has not found out yet/.test(stderr)) throw new Error(stderr);
    return code === 0 || undefined;
  });

describe("K3, K4: where each connection of kubectl reaches another replica,", () => {
  let spread: Spread;
  let server: readonly string[];
  beforeAll(async () => {
    const addresses = await scenario.eventually("both gateways", async () => {
      const found = await gatewayAddresses(scenario, "cluster");
      return found.length === 2 ? found : undefined;
    });
    spread = new Spread(addresses);
    // kubectl forgets the name of a server whose address it is given.
    const name = `cluster-gateway.${namespace}.svc`;
    server = ["--server", await spread.listen(), "--tls-server-name", name];
  });
  afterAll(() => spread?.close());

  const exec = (...command: readonly string[]) => [...server, "exec", "web", "--", ...command];

  test("a denied exec is told once, with one id, and is one record, though the SPDY request meets the other one", async () => {
    const begun = new Date().toISOString();
    /** How many refusals sessions that began since then have recorded. */
    const refused = async () => {
      const { items } = await scenario.kubectl.json<{ readonly items: readonly Session[] }>("sessions");
      return items
        .filter(({ spec }) => spec.startedAt >= begun)
        .reduce((sum, { status }) => sum + (status?.counts?.refused ?? 0), 0);
    };
    const rounds = 4;
    for (let round = 1; round <= rounds; round += 1) {
      const before = spread.reached.length;
      const { code, stderr } = await ana.try(undefined, ...exec("env"));
      expect([code, stderr.match(/the environment is not shown/g)]).toEqual([1, [expect.any(String)]]);
      const [, id] = /\(([0-9a-f]{12})\)/.exec(stderr) ?? [];
      expect(id).toBeDefined();
      // The last two are the upgrade and its second try.
      expect(spread.reached.slice(before).length).toBeGreaterThanOrEqual(2);
      expect(new Set(spread.reached.slice(-2)).size).toBe(2);
      // What the second try of this round would have recorded is told before the next round is.
      await scenario.eventually("the record", async () => (await refused()) >= round || undefined);
    }
    expect(await refused()).toBe(rounds);
  });

  test("a held exec is one request, approved by patch it runs, denied it has not run and is not asked for again", async () => {
    const known = new Set((await asked()).map(({ metadata }) => metadata.name));
    const isNew = async () => (await asked()).filter(({ metadata }) => !known.has(metadata.name));
    for (const decision of [{ decision: "Approved" }, { decision: "Denied", comment: "not on a Friday" }]) {
      const isApproved = decision.decision === "Approved";
      const file = `/dev/shm/asked-${decision.decision}`;
      const script = `echo ran | tee "$1"`;
      const { child, text } = going(ana, {}, ...exec("sh", "-c", script, "asked", file));
      const ended = once(child, "exit");
      const name = await scenario.eventually(
        "the notice",
        async () => /held for approval ([^ :]+):/.exec(text())?.[1],
      );
      // Its client knows of it a moment before the API server does.
      await scenario.eventually("the request", async () => (await isNew()).length > 0 || undefined);
      expect((await isNew()).map(({ metadata }) => metadata.name)).toEqual([name]);
      await decide(name, decision);
      expect((await ended)[0] === 0, text()).toBe(isApproved);
      expect(text()).toContain(isApproved ? "ran" : "not on a Friday");
      // Nothing that its client asked for anew when it was refused has become another request.
      expect(await isNew()).toHaveLength(1);
      const { stdout } = await ana.try(undefined, "exec", "web", "--", "cat", file);
      expect(stdout).toBe(isApproved ? "ran\n" : "");
      known.add(name);
    }
  });
});

test("a health check reads status, and its rollout restart is refused", async () => {
  expect(await health("get", "deployment", "site", "-o", "jsonpath={.status.readyReplicas}")).toBe("1");
  const { code, stderr } = await health.try(undefined, "rollout", "restart", "deployment/site");
  expect(code).toBe(1);
  expect(stderr).toMatch(/forbidden.*no policy allows patch on patch:deployments\.apps/);
  // RBAC alone would have let it.
  expect(await apps.kubectl("get", "deployment", "site", "-o", "jsonpath={.metadata.generation}")).toBe("1");
});

test("a deploy job's Secret waits for a person: approved it is written as it was asked, denied it is not", async () => {
  await deploy("set", "env", "deployment/site", "RELEASE=2");
  for (const decision of [{ decision: "Approved" }, { decision: "Denied", comment: "not today" }]) {
    const isApproved = decision.decision === "Approved";
    const known = new Set((await asked()).map(({ metadata }) => metadata.name));
    const name = `for-${decision.decision.toLowerCase()}`;
    const { child, text } = going(
      deploy,
      {},
      "create",
      "secret",
      "generic",
      name,
      "--from-literal=a=hunter2secret",
    );
    const ended = once(child, "exit");
    const request = await scenario.eventually("the request", async () =>
      (await asked()).find(({ metadata }) => !known.has(metadata.name)),
    );
    // Who approves sees what is to be made, and nothing of what is secret.
    expect(JSON.stringify(request.spec)).not.toContain(Buffer.from("hunter2secret").toString("base64"));
    const before = await apps.kubectl("get", "secrets", "-o", "name");
    expect(before).not.toContain(name);
    await decide(request.metadata.name, decision);
    expect([(await ended)[0] === 0, text()]).toEqual([
      isApproved,
      expect.stringContaining(isApproved ? `secret/${name} created` : "not today"),
    ]);
    const argv = ["get", "secret", name, "--ignore-not-found", "-o", "jsonpath={.data.a}"];
    expect(await apps.kubectl(...argv)).toBe(
      isApproved ? Buffer.from("hunter2secret").toString("base64") : "",
    );
  }
});

test("whose session is deleted hears why in a terminal, and kubectl ends with a failure", async () => {
  const active = async () => {
    const { items } = await scenario.kubectl.json<{ readonly items: readonly Session[] }>("sessions");
    return items.filter(({ status }) => status?.state === "Active").map(({ metadata }) => metadata.name);
  };
  for (const environment of [{}, { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: "false" }]) {
    await scenario.eventually(
      "no session to be left",
      async () => (await active()).length === 0 || undefined,
    );
    // A session that was asked about has an object at once, others once they last.
    const script = "echo begun; sleep 600";
    const { child, text } = going(ana, environment, "exec", "web", "--", "sh", "-c", script, "asked");
    const ended = once(child, "exit");
    const name = await scenario.eventually(
      "the notice",
      async () => /held for approval ([^ :]+):/.exec(text())?.[1],
    );
    await decide(name, { decision: "Approved" });
    await scenario.eventually("the command to run", async () => text().includes("begun") || undefined);
    const session = await scenario.eventually("the session", async () => (await active())[0]);
    await scenario.kubectl("delete", "session", session, "--wait=false");
    expect((await ended)[0], text()).toBeGreaterThan(0);
    expect(text()).toMatch(/session/);
  }
});

test("one of a tenant's own, outside the listed namespaces, is refused and gets nothing", async () => {
  await apps.apply({ ...cluster, metadata: { name: "mine" } });
  await condition(apps, "protectedresource/mine", "Accepted", "False", "NamespaceNotListed");
  const made = ["deployments,services,secrets", "-l", "sallyport.dev/gateway", "-o", "name"];
  expect(await apps.kubectl("get", ...made)).toBe("");
  const bound = ["clusterrolebindings", "-l", "sallyport.dev/impersonation", "-o", "name"];
  expect(await scenario.cluster.kubectl("get", ...bound)).not.toContain(apps.namespace);
});

test("the gateway's account reads nothing for itself", async () => {
  const as = `--as=system:serviceaccount:${namespace}:cluster-gateway`;
  for (const what of ["secrets", "configmaps", "pods"]) {
    const argv = ["get", what, "-n", apps.namespace, as];
    expect((await scenario.cluster.kubectl.try(undefined, ...argv)).stderr).toContain("Forbidden");
  }
});

test("nobody steps into the gateway's pods", async () => {
  const { code, stderr } = await scenario.exec("deployment/cluster-gateway", "true");
  expect(code).not.toBe(0);
  expect(stderr).toContain("holds a gateway");
});

test("without the resource the account speaks for nobody", async () => {
  await scenario.kubectl("delete", "protectedresource", "cluster", "--timeout=30s");
  await scenario.eventually("the binding to go", async () => {
    const argv = ["get", "clusterrolebindings", "-l", "sallyport.dev/impersonation", "-o", "name"];
    return (await scenario.cluster.kubectl(...argv)) === "" || undefined;
  });
});
