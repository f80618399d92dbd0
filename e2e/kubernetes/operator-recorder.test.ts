/**
 * Recordings are kept away from gateways: without a recorder nothing runs, and who may read them RBAC decides. There are two
 * recorders, and a namespace beside the scenario's own whose recordings the other one keeps.
 */
import { recorderFor } from "@sallyport/control";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RecorderApi, recorderApi } from "./forwarded.ts";
import { accessPolicy, condition, gatewayAddresses, install, systemNamespace } from "./installed.ts";
import type { LivePsql } from "./live-psql.ts";
import { database } from "./objects.ts";
import { connection, openOrders, ordersSql } from "./orders.ts";
import { openScenario } from "./scenario.ts";

const values = ["--set", "recorder.replicas=2"];
const { scenario, issuer, psql, readers, resource, through, live } = openOrders("operator-recorder", {
  spec: {
    recording: { mode: "Required", durability: "Durable", retention: "1h" },
    placement: { mode: "Shared", replicas: 2 },
  },
  values,
});
const { namespace } = scenario;
const beside = openScenario("operator-recorder-other", { "sallyport.dev/protection": "enabled" });
const audience = "recorder.sallyport.dev";
const sessionsOf = (inNamespace: string) => `/v1/namespaces/${inNamespace}/sessions`;
const sessions = sessionsOf(namespace);
const system = (...argv: readonly string[]) => scenario.cluster.kubectl("-n", systemNamespace, ...argv);
const apis: RecorderApi[] = [];

beforeAll(async () => {
  const spec = {
    recording: { mode: "Required", durability: "Durable" },
    placement: { mode: "Shared", replicas: 1 },
  };
  await beside.apply(...database("orders", ordersSql), resource(spec), readers("ReadOnly"));
  await beside.ready("statefulset/orders", "deployment/orders-gateway");
  await condition(beside, "protectedresource/orders", "Ready", "True");
  await scenario.reachable("client", besideService, 5432);
});
afterAll(async () => {
  for (const api of apis) api.close();
  // The number of recorders was set by hand: the next installation may change it again.
  await install(scenario.cluster, "--force-conflicts");
  await scenario.cluster.kubectl("delete", "rolebinding", "-n", "default", neighbour, "--ignore-not-found");
});

const besideService = `orders-gateway.${beside.namespace}.svc`;
/** A session of the namespace beside; its gateway takes no other's tokens. */
const liveBeside = () => {
  const token = issuer.token({ user: "ana", claims: { aud: `sallyport:${beside.namespace}/orders` } });
  return live(connection(besideService, token));
};

const at = (address: string) => through("ana", address);
const both = async () => {
  const addresses = await gatewayAddresses(scenario, "orders");
  expect(addresses).toHaveLength(2);
  return addresses;
};

/** How many recorders there are to be. */
const recorders = async (replicas: number) => {
  await system("scale", "statefulset/sallyport-recorder", `--replicas=${replicas}`);
  if (replicas > 0) await system("rollout", "status", "statefulset/sallyport-recorder", "--timeout=120s");
};
const isRefusing = async (session: LivePsql) =>
  (await session.ask("SELECT 'while away'")).includes("57P03") || undefined;

test("each of two recorders keeps its own namespaces: while one is away they are refused, and the others' sessions go on", async () => {
  const names = [0, 1].map(
    (ordinal) => `${recorderPod(ordinal)}.sallyport-recorder.${systemNamespace}.svc:7444`,
  );
  expect([namespace, beside.namespace].map((each) => recorderFor(each, names))).toEqual(names);
  const [own, other] = [live(), liveBeside()];
  for (const session of [own, other]) expect(await session.ask("SELECT item FROM orders")).toBe("tea");
  await recorders(1);
  try {
    const refused = async () => {
      expect(await own.ask("SELECT 'undisturbed'")).toBe("undisturbed");
      return isRefusing(other);
    };
    await scenario.eventually("a refusal", refused, { ms: 60_000 });
    expect(await own.ask("SELECT 'undisturbed'")).toBe("undisturbed");
  } finally {
    await recorders(2);
  }
  const runsAgain = async () => (await other.ask("SELECT 'back'")) === "back" || undefined;
  await scenario.eventually("statements to run again", runsAgain, { ms: 60_000 });
  await own.close();
  await other.close();
});

test("while the recorder is away commands are refused with 57P03, and sessions go on once it is back", async () => {
  const session = live();
  expect(await session.ask("SELECT item FROM orders")).toBe("tea");
  await recorders(0);
  try {
    await scenario.eventually("a refusal", () => isRefusing(session), { ms: 60_000 });
    // Nobody slips through the other gateway.
    for (const address of await both()) {
      const { code, stdout, stderr } = await psql("SELECT 'while away'", at(address));
      expect([code, stdout]).toEqual([2, ""]);
      expect(stderr).toContain(unrecorded);
    }
    await condition(scenario, "protectedresource/orders", "RecordingReady", "False", "RecorderUnavailable");
  } finally {
    await recorders(2);
  }
  const runsAgain = async () => (await session.ask("SELECT 'back'")) === "back" || undefined;
  await scenario.eventually("statements to run again", runsAgain, { ms: 60_000 });
  await bothLetIn();
  await session.close();
});

test("a quota that is used up refuses commands and is told in the status; with more of it they run again", async () => {
  try {
    await install(scenario.cluster, ...values, "--set", "recorder.quotaBytes=1");
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
    await install(scenario.cluster, ...values);
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
  readonly finalHash?: string;
}

const recorderPod = (ordinal: number) => `sallyport-recorder-${ordinal}`;
/** The API of the recorder that keeps the scenario's own namespace, or of the other one. */
const recorder = async (ordinal = 0): Promise<RecorderApi> => {
  // Recorders are started anew in the first tests: a way that was opened before would lead nowhere.
  const ca = ["get", "configmap", "orders-gateway-ca", "-o", "jsonpath={.data.ca\\.crt}"];
  for (let next = apis.length; next <= ordinal; next += 1)
    apis.push(await recorderApi(scenario, await scenario.kubectl(...ca), next));
  return apis[ordinal] as RecorderApi;
};

/** The sessions that a recorder has of a namespace. */
async function listed(auditor: string, ordinal = 0, inNamespace = namespace): Promise<readonly Listed[]> {
  const { ask } = await recorder(ordinal);
  const { status, body } = await ask("GET", sessionsOf(inNamespace), auditor);
  expect([status, body]).toEqual([200, body]);
  return (JSON.parse(body) as { readonly sessions: readonly Listed[] }).sessions;
}

/** An ended session whose recording is whole. */
async function recorded(auditor: string): Promise<Listed> {
  expect((await psql("SELECT item FROM orders")).stdout).toBe("tea\n");
  return scenario.eventually("a session that has ended", async () =>
    (await listed(auditor)).findLast(({ state, commands }) => state === "closed" && commands > 0),
  );
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

test("one of two recorders is killed and back: both verify and replay what was recorded before and after", async () => {
  const [own, other] = [live(), liveBeside()];
  expect(await own.ask("SELECT 'before the kill'")).toBe("before the kill");
  expect(await other.ask("SELECT 'before the kill'")).toBe("before the kill");
  await system("delete", "pod", recorderPod(1), "--grace-period=0", "--force");
  expect(await own.ask("SELECT 'after the kill'")).toBe("after the kill");
  const runsAgain = async () =>
    (await other.ask("SELECT 'after the kill'")) === "after the kill" || undefined;
  await scenario.eventually("its sessions to go on", runsAgain, { ms: 60_000 });
  await system("rollout", "status", "statefulset/sallyport-recorder", "--timeout=120s");
  const ids = [await idOf(own), await idOf(other)];
  await own.close();
  await other.close();
  const auditor = await tokenOf("auditor", `--audience=${audience}`);
  const namespaces = [namespace, beside.namespace];
  await scenario.cluster.kubectl.apply(namespaces.map((each) => auditorOf(each, "auditor", "auditor")));
  for (const [ordinal, inNamespace] of namespaces.entries()) {
    const id = ids[ordinal] ?? "";
    const closed = async () =>
      (await listed(auditor, ordinal, inNamespace)).find(
        ({ sessionId, state }) => sessionId === id && state === "closed",
      );
    await scenario.eventually("its end", closed);
    const { ask } = await recorder(ordinal);
    const { body } = await ask("GET", `${sessionsOf(inNamespace)}/${id}/recording`, auditor);
    for (const word of ["before", "after"]) expect(body).toContain(`SELECT '${word} the kill'`);
    const found = await verified(auditor, ordinal, inNamespace);
    expect(found).toMatchObject({ ok: true });
    expect(found.sessions).toContainEqual(expect.objectContaining({ sessionId: id, status: "ok" }));
    // The other recorder has none of it.
    expect(await listed(auditor, 1 - ordinal, inNamespace)).toEqual([]);
  }
});

test("who may get sessions/recording replays and verifies", async () => {
  const auditor = await tokenOf("auditor", `--audience=${audience}`);
  const { ask } = await recorder();
  const one = await recorded(auditor);
  expect(one).toMatchObject({ user: "operator-recorder:ana", resource: "orders" });
  const recording = await ask("GET", `${sessions}/${one.sessionId}/recording`, auditor);
  expect(recording.status).toBe(200);
  expect(recording.body).toContain("SELECT item FROM orders");
  expect(await verified(auditor)).toMatchObject({ ok: true });
});

interface Verified {
  readonly ok: boolean;
  readonly sessions: readonly { readonly sessionId: string; readonly status: string }[];
}

async function verified(auditor: string, ordinal = 0, inNamespace = namespace): Promise<Verified> {
  const { ask } = await recorder(ordinal);
  const { status, body } = await ask("POST", `/v1/namespaces/${inNamespace}/verify`, auditor);
  expect([status, body]).toEqual([200, body]);
  return JSON.parse(body) as Verified;
}

interface Session {
  readonly metadata: { readonly creationTimestamp: string };
  readonly spec: { readonly sessionId: string; readonly startedAt: string };
  readonly status?: {
    readonly state: string;
    readonly observedAt: string;
    readonly recording?: { readonly reference: string; readonly hash?: string };
  };
}

async function sessionObject(sessionId: string): Promise<Session | undefined> {
  const { items } = await scenario.kubectl.json<{ readonly items: readonly Session[] }>("sessions");
  return items.find(({ spec, status }) => spec.sessionId === sessionId && status !== undefined);
}

/** The server is told whose connection it is: `user/session`, and then what the client calls itself. */
async function idOf(session: LivePsql): Promise<string> {
  const [told = ""] = (await session.ask("SELECT current_setting('application_name')")).split(" ");
  return told.slice(told.indexOf("/") + 1);
}

/**
 * By the product's own times, to the millisecond: when it became due as the recording has it, and when the operator wrote
 * it first. The API server's time is cut to the second, so it only ever looks earlier than it was.
 */
function expectInTime({ metadata, status }: Session, dueMs: number): void {
  expect(Date.parse(status?.observedAt ?? "") - dueMs).toBeLessThanOrEqual(2_000);
  expect(Date.parse(metadata.creationTimestamp) - dueMs).toBeLessThanOrEqual(2_000);
  expect(Date.parse(metadata.creationTimestamp) - dueMs).toBeGreaterThan(-1_000);
}

test("a session has its object within two seconds of its first refusal, or of being ten seconds old, and a short one has none", async () => {
  const auditor = await tokenOf("auditor", `--audience=${audience}`);
  const { ask } = await recorder();
  const [quiet, short, refused] = [live(), live(), live()];
  const [quietId, shortId] = [await idOf(quiet), await idOf(short)];
  await short.close();
  expect(await refused.ask("DELETE FROM orders")).toContain("42501");
  const refusedId = await idOf(refused);
  const told = await scenario.eventually("the object of the refused one", () => sessionObject(refusedId));
  const { body } = await ask("GET", `${sessions}/${refusedId}/recording`, auditor);
  const refusal = body
    .split("\n")
    .find((line) => line.includes('"kind":"command"') && line.includes("DELETE FROM orders"));
  expectInTime(told, (JSON.parse(refusal ?? "") as { readonly at: number }).at);
  const aged = await scenario.eventually("the object of the quiet one", () => sessionObject(quietId));
  expectInTime(aged, Date.parse(aged.spec.startedAt) + 10_000);
  await quiet.close();
  await refused.close();

  // How it ended is the recording's own end: what is kept elsewhere vouches for it.
  for (const id of [quietId, refusedId]) {
    const { status } = await scenario.eventually("its end", async () => {
      const found = await sessionObject(id);
      return found?.status?.state === "Ended" ? found : undefined;
    });
    const kept = (await listed(auditor)).find(({ sessionId }) => sessionId === id);
    const replayed = (await ask("GET", `${sessions}/${id}/recording`, auditor)).body;
    const [, last] = /"final":true,"hash":"([0-9a-f]{64})"[^\n]*\n$/.exec(replayed) ?? [];
    expect(status?.recording).toMatchObject({
      reference: expect.stringContaining(recorderPod(0)),
      hash: `sha256:${last}`,
    });
    expect(kept).toMatchObject({ state: "closed", finalHash: last });
  }
  const found = await verified(auditor);
  expect(found.ok).toBe(true);
  for (const sessionId of [quietId, shortId, refusedId])
    expect(found.sessions).toContainEqual(expect.objectContaining({ sessionId, status: "ok" }));
  expect(await sessionObject(shortId)).toBeUndefined();
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
      const newest = (await listed(auditor)).findLast(
        ({ state, commands }) => state === "closed" && commands > 0,
      );
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
  const move =
    "const fs = require('node:fs'); const [from, to, name] = process.argv.slice(1);" +
    "const all = fs.readdirSync(from, { recursive: true }).filter((one) => one.endsWith(name + '.journal'));" +
    "for (const one of all) { fs.mkdirSync(require('node:path').dirname(to + one), { recursive: true });" +
    "fs.renameSync(from + one, to + one); } console.log(all.length);";
  const [kept, taken] = ["/var/lib/sallyport/recordings/", "/var/lib/sallyport/taken/"];
  const moved = async (from: string, to: string) => {
    const node = ["/usr/local/bin/node", "-e", move, from, to, one.sessionId];
    expect((await system("exec", recorderPod(0), "--", ...node)).trim()).toBe("1");
  };
  await moved(kept, taken);
  const found = await verified(auditor);
  expect(found.ok).toBe(false);
  const bad = found.sessions.filter((session) => session.status !== "ok" && session.status !== "open");
  expect(bad).toMatchObject([{ sessionId: one.sessionId, status: "missing" }]);
  const replayed = await ask("GET", `${sessions}/${one.sessionId}/recording`, auditor);
  expect(replayed.status).toBe(410);
  expect(replayed.body).not.toContain("SELECT");
  // Back where it was, it is what it was.
  await moved(taken, kept);
  expect(await verified(auditor)).toMatchObject({ ok: true });
});

interface Head {
  readonly log: string;
  readonly block: number;
  readonly hash: string;
}

test("the newest place of each recorder's log is published outside of its volume, and moves on with it", async () => {
  const published = async () => {
    const { data, metadata } = await scenario.cluster.kubectl.json<{
      readonly data: Readonly<Record<string, string>>;
      readonly metadata: { readonly labels: object };
    }>("configmap", "sallyport-recorder-heads", "-n", systemNamespace);
    expect(metadata.labels).toMatchObject({ "sallyport.dev/kept": "true" });
    const told = [0, 1].map((ordinal) => data[recorderPod(ordinal)]);
    return told.flatMap((one) => (one === undefined ? [] : [JSON.parse(one) as Head]));
  };
  const heads = async () => {
    const answers = [0, 1].map(async (ordinal) =>
      (await recorder(ordinal)).ask("GET", "/v1/head", undefined),
    );
    return (await Promise.all(answers)).map(({ body }) => (JSON.parse(body) as { readonly head: Head }).head);
  };
  // Recorders are asked every minute, and one of them was away now and then.
  const configMap = ["configmap/sallyport-recorder-heads", "-n", systemNamespace];
  await scenario.cluster.kubectl("wait", "--for=create", ...configMap, "--timeout=150s");
  const before = await scenario.eventually(
    "a head of each log",
    async () => {
      const told = await published();
      return told.length === 2 ? told : undefined;
    },
    { ms: 150_000 },
  );
  for (const session of [live(), liveBeside()]) {
    expect(await session.ask("SELECT item FROM orders")).toBe("tea");
    await session.close();
  }
  const isFurther = (now: Head, old: Head) =>
    now.log === old.log ? now.block > old.block : now.log > old.log;
  await scenario.eventually(
    "each log's own head, further than before",
    async () => {
      const [now, told] = [await heads(), await published()];
      const isTold = told.every((one, ordinal) => one.hash === now[ordinal]?.hash);
      return (isTold && told.every((one, ordinal) => isFurther(one, before[ordinal] as Head))) || undefined;
    },
    { ms: 150_000 },
  );
  // Nobody puts another head there, whatever their rights.
  const merge = JSON.stringify({ data: { [recorderPod(0)]: JSON.stringify(before[0]) } });
  const flags = ["-n", systemNamespace, "patch", "configmap", "sallyport-recorder-heads", "--type=merge"];
  const refused = await scenario.cluster.kubectl.try(undefined, ...flags, "-p", merge);
  expect(refused.code).not.toBe(0);
}, 330_000);
