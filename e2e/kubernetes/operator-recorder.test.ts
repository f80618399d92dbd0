/** Recordings are kept away from gateways: without a recorder nothing runs, and who may read them RBAC decides. */
import { afterAll, expect, test } from "vitest";
import { type RecorderApi, recorderApi } from "./forwarded.ts";
import { accessPolicy, condition, gatewayAddresses, install, systemNamespace } from "./installed.ts";
import { openOrders } from "./orders.ts";

const { scenario, psql, readers, resource, through, live } = openOrders("operator-recorder", {
  spec: {
    recording: { mode: "Required", durability: "Durable", retention: "1h" },
    placement: { mode: "Shared", replicas: 2 },
  },
});
const { namespace } = scenario;
const audience = "recorder.sallyport.dev";
const sessions = `/v1/namespaces/${namespace}/sessions`;
const system = (...argv: readonly string[]) => scenario.cluster.kubectl("-n", systemNamespace, ...argv);
let api: RecorderApi | undefined;

afterAll(async () => {
  api?.close();
  await scenario.cluster.kubectl("delete", "rolebinding", "-n", "default", neighbour, "--ignore-not-found");
});

const at = (address: string) => through("ana", address);
const both = async () => {
  const addresses = await gatewayAddresses(scenario, "orders");
  expect(addresses).toHaveLength(2);
  return addresses;
};

test("while the recorder is away commands are refused with 57P03, and sessions go on once it is back", async () => {
  const session = live();
  expect(await session.ask("SELECT item FROM orders")).toBe("tea");
  await system("scale", "statefulset/sallyport-recorder", "--replicas=0");
  try {
    await scenario.eventually(
      "a refusal",
      async () => (await session.ask("SELECT 'while away'")).includes("57P03") || undefined,
      { ms: 60_000 },
    );
    // Nobody slips through the other gateway.
    for (const address of await both()) {
      const { code, stdout, stderr } = await psql("SELECT 'while away'", at(address));
      expect([code, stdout]).toEqual([2, ""]);
      expect(stderr).toContain(unrecorded);
    }
    await condition(scenario, "protectedresource/orders", "RecordingReady", "False", "RecorderUnavailable");
  } finally {
    await system("scale", "statefulset/sallyport-recorder", "--replicas=1");
    await system("rollout", "status", "statefulset/sallyport-recorder", "--timeout=120s");
  }
  const runsAgain = async () => (await session.ask("SELECT 'back'")) === "back" || undefined;
  await scenario.eventually("statements to run again", runsAgain, { ms: 60_000 });
  await bothLetIn();
  await session.close();
});

test("a quota that is used up refuses commands and is told in the status; with more of it they run again", async () => {
  try {
    await install(scenario.cluster, "--set", "recorder.quotaBytes=1");
    const isRefused = async (address: string) => {
      const { code, stdout, stderr } = await psql("SELECT 'beyond the quota'", at(address));
      expect(stdout).toBe("");
      return code !== 0 && stderr.includes(unrecorded);
    };
    // A recorder that starts anew is away at first, and what is refused then says nothing of its quota: it is asked again.
    await scenario.eventually(
      "both gateways to refuse, and the status to say why",
      async () => {
        const refused = await Promise.all((await both()).map(isRefused));
        const told = await scenario.kubectl(
          ...["get", "protectedresource/orders", "-o"],
          'jsonpath={range .status.conditions[?(@.type=="RecordingReady")]}{.status} {.reason} {.message}{end}',
        );
        return (refused.every(Boolean) && /^False RecorderFull .*quota/.test(told)) || undefined;
      },
      { ms: 120_000 },
    );
  } finally {
    await install(scenario.cluster);
  }
  await bothLetIn();
  await condition(scenario, "protectedresource/orders", "RecordingReady", "True", "Recording");
}, 240_000);

async function bothLetIn(): Promise<void> {
  await scenario.eventually(
    "both gateways to let in",
    async () => {
      const addresses = await both();
      const all = await Promise.all(addresses.map((each) => psql("SELECT item FROM orders", at(each))));
      return all.every(({ stdout }) => stdout === "tea\n") || undefined;
    },
    { ms: 60_000 },
  );
}

interface Listed {
  readonly sessionId: string;
  readonly state: string;
  readonly user: string;
  readonly resource: string;
  readonly commands: number;
}

const recorder = async () => {
  // The recorder was started anew meanwhile: a way that was opened before would lead nowhere.
  api ??= await recorderApi(
    scenario,
    await scenario.kubectl("get", "configmap", "orders-gateway-ca", "-o", "jsonpath={.data.ca\\.crt}"),
  );
  return api;
};

/** An ended session whose recording is whole. */
async function recorded(auditor: string): Promise<Listed> {
  const { ask } = await recorder();
  expect((await psql("SELECT item FROM orders")).stdout).toBe("tea\n");
  return scenario.eventually("a session that has ended", async () => {
    const { status, body } = await ask("GET", sessions, auditor);
    expect([status, body]).toEqual([200, body]);
    const { sessions: listed } = JSON.parse(body) as { readonly sessions: readonly Listed[] };
    return listed.findLast(({ state, commands }) => state === "closed" && commands > 0);
  });
}

async function tokenOf(name: string, ...flags: readonly string[]): Promise<string> {
  await scenario.apply({ apiVersion: "v1", kind: "ServiceAccount", metadata: { name } });
  return (await scenario.kubectl("create", "token", name, ...flags)).trim();
}

/** psql shows no SQLSTATE of a login that fails. */
const unrecorded = "nothing runs unrecorded";
const neighbour = "e2e-neighbour";
const auditorOf = (inNamespace: string, binding: string, account: string) => ({
  apiVersion: "rbac.authorization.k8s.io/v1",
  kind: "RoleBinding",
  metadata: { name: binding, namespace: inNamespace },
  roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "sallyport-auditor" },
  subjects: [{ kind: "ServiceAccount", name: account, namespace }],
});

test("who may get sessions/recording replays and verifies", async () => {
  await scenario.cluster.kubectl.apply([auditorOf(namespace, "auditor", "auditor")]);
  const auditor = await tokenOf("auditor", `--audience=${audience}`);
  const { ask } = await recorder();
  const one = await recorded(auditor);
  expect(one).toMatchObject({ user: "operator-recorder:ana", resource: "orders" });
  const recording = await ask("GET", `${sessions}/${one.sessionId}/recording`, auditor);
  expect(recording.status).toBe(200);
  expect(recording.body).toContain("SELECT item FROM orders");
  const verified = await ask("POST", `/v1/namespaces/${namespace}/verify`, auditor);
  expect([verified.status, JSON.parse(verified.body)]).toMatchObject([200, { ok: true }]);
});

test("a foreign replay is refused: no right, a right elsewhere, a token for another door, none", async () => {
  await scenario.cluster.kubectl.apply([auditorOf("default", neighbour, neighbour)]);
  const { ask } = await recorder();
  const auditor = await tokenOf("auditor", `--audience=${audience}`);
  const stranger = await tokenOf("stranger", `--audience=${audience}`);
  const beside = await tokenOf(neighbour, `--audience=${audience}`);
  const one = await recorded(auditor);
  const questions = [
    ["GET", sessions],
    ["GET", `${sessions}/${one.sessionId}/recording`],
    ["GET", `${sessions}/no-such-session/recording`],
    ["POST", `/v1/namespaces/${namespace}/verify`],
  ] as const;
  const answers = async (token: string | undefined) => {
    const all = await Promise.all(questions.map(([method, path]) => ask(method, path, token)));
    expect(all.filter(({ body }) => body.includes("SELECT") || body.includes(one.sessionId))).toEqual([]);
    return all.map(({ status }) => status);
  };
  // Whether a session exists cannot be told from a refusal.
  expect(await answers(stranger)).toEqual([403, 403, 403, 403]);
  expect(await answers(beside)).toEqual([403, 403, 403, 403]);
  expect(await answers(await tokenOf("auditor"))).toEqual([401, 401, 401, 401]);
  expect(await answers(undefined)).toEqual([401, 401, 401, 401]);
  // In the namespace where the right was given it counts, and shows nothing of this one.
  const elsewhere = await ask("GET", "/v1/namespaces/default/sessions", beside);
  expect(elsewhere.status).toBe(200);
  expect(elsewhere.body).not.toContain(one.sessionId);
  const hidden = await ask("GET", `/v1/namespaces/default/sessions/${one.sessionId}/recording`, beside);
  expect(hidden.status).toBe(404);
});

test("what the cluster requires holds, whatever the namespace says: a policy that allows more, a resource that asks for less", async () => {
  const floor = "operator-recorder-floor";
  const loose = [{ name: "anything", match: { operations: ["write"] }, action: "Allow" }];
  try {
    await scenario.cluster.kubectl.apply([
      {
        ...{ apiVersion: "sallyport.dev/v1alpha1", kind: "ClusterAccessPolicy", metadata: { name: floor } },
        spec: {
          namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } },
          resources: { names: ["orders"] },
          subjects: [{ kind: "Human" }],
          profile: "None",
          rules: [
            {
              name: "no-deletes",
              match: { commands: ["DELETE"] },
              action: "Deny",
              message: "the floor says no",
            },
          ],
          requires: { recording: { mode: "Required" }, bypassProtection: { networkPolicy: "Enforce" } },
        },
      },
    ]);
    await condition(scenario, `clusteraccesspolicy/${floor}`, "Ready", "True", "InForce");
    await scenario.apply(
      resource({
        recording: { mode: "Off" },
        bypassProtection: { networkPolicy: "Off", exec: "Off" },
        placement: { mode: "Shared", replicas: 2 },
      }),
      readers("Admin"),
      accessPolicy("looser", {
        resources: { names: ["orders"] },
        subjects: [{ user: "operator-recorder:ana" }],
        profile: "Admin",
        rules: loose,
      }),
    );
    // The namespace's own policies are in force: what they allow is done, and the floor's Deny stays.
    await scenario.eventually("the looser policies", async () => {
      const { code } = await psql("UPDATE orders SET item = 'tea' WHERE id = 1");
      return code === 0 || undefined;
    });
    const refused = await psql("DELETE FROM orders WHERE id = 1");
    expect(refused.stderr).toContain("42501");
    expect(refused.stderr).toContain("the floor says no");
    // The resource asks for no recording and no network policy, and gets both.
    await condition(scenario, "protectedresource/orders", "RecordingReady", "True", "Recording");
    await scenario.kubectl("get", "networkpolicy", "orders-server");
    const auditor = await tokenOf("auditor", `--audience=${audience}`);
    const { ask } = await recorder();
    await scenario.eventually("the recording of what was refused", async () => {
      const { sessions: listed } = JSON.parse((await ask("GET", sessions, auditor)).body) as {
        readonly sessions: readonly Listed[];
      };
      const newest = listed.findLast(({ state, commands }) => state === "closed" && commands > 0);
      const { body } = await ask("GET", `${sessions}/${newest?.sessionId}/recording`, auditor);
      return body.includes("DELETE FROM orders WHERE id =") || undefined;
    });
  } finally {
    await scenario.cluster.kubectl("delete", "clusteraccesspolicy", floor, "--ignore-not-found");
  }
  // Nobody requires it any longer: what the resource says counts again.
  await condition(scenario, "protectedresource/orders", "RecordingReady", "True", "Off");
  await scenario.apply(resource(), readers("ReadOnly"));
  await scenario.kubectl("delete", "accesspolicy", "looser");
  await condition(scenario, "protectedresource/orders", "RecordingReady", "True", "Recording");
});

test("a removed session is found by verify", async () => {
  const { ask } = await recorder();
  const auditor = await tokenOf("auditor", `--audience=${audience}`);
  const one = await recorded(auditor);
  // Who holds the volume takes one recording away: that it was there stands in the log.
  const remove =
    "const fs = require('node:fs'); const root = '/var/lib/sallyport/recordings/';" +
    "const all = fs.readdirSync(root, { recursive: true });" +
    "const own = all.filter((one) => one.endsWith(process.argv[1] + '.journal'));" +
    "for (const one of own) fs.unlinkSync(root + one); console.log(own.length);";
  const node = ["/usr/local/bin/node", "-e", remove, one.sessionId];
  expect((await system("exec", "sallyport-recorder-0", "--", ...node)).trim()).toBe("1");
  const { status, body } = await ask("POST", `/v1/namespaces/${namespace}/verify`, auditor);
  expect(status).toBe(200);
  const found = JSON.parse(body) as {
    readonly ok: boolean;
    readonly sessions: readonly { readonly sessionId: string; readonly status: string }[];
  };
  expect(found.ok).toBe(false);
  const bad = found.sessions.filter((session) => session.status !== "ok" && session.status !== "open");
  expect(bad).toMatchObject([{ sessionId: one.sessionId, status: "missing" }]);
  const replayed = await ask("GET", `${sessions}/${one.sessionId}/recording`, auditor);
  expect(replayed.status).toBe(410);
  expect(replayed.body).not.toContain("SELECT");
});
