/** An operator that is killed, again and again and whatever it is doing: nobody's session notices, and the state converges. */
import { randomInt } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemNamespace } from "./installed.ts";
import type { LivePsql } from "./live-psql.ts";
import { clientPod } from "./objects.ts";
import { openOrders } from "./orders.ts";
import type { KubernetesObject } from "./scenario.ts";

const { scenario, readers, resource, live } = openOrders("operator-killed");
const kills = scenario.full ? 20 : 5;
/** How much the operator may have done of what it was given before it is killed. */
const waitMsMax = scenario.full ? 8_000 : 5_000;
let session: LivePsql | undefined;

const system = (...argv: readonly string[]) => scenario.cluster.kubectl("-n", systemNamespace, ...argv);
/** Resources that come and change: what is looked at is what the operator writes for them. */
const another = (name: string, port: number) =>
  resource({ listen: { port }, placement: { mode: "Shared", replicas: 1 } }, name);

beforeAll(async () => {
  await scenario.cluster.kubectl.apply([killer()]);
  await scenario.cluster.kubectl("-n", "kube-system", "wait", "--for=condition=Ready", "pod/e2e-killer");
});
afterAll(async () => {
  await scenario.cluster.kubectl("-n", "kube-system", "delete", "pod", "e2e-killer", "--ignore-not-found");
  await system("rollout", "status", "deployment/sallyport-operator", "--timeout=120s");
});

test(
  `after ${kills} kills at random moments everything is as it was asked for last`,
  async () => {
    session = live();
    expect(await session.ask("SELECT item FROM orders")).toBe("tea");
    const pod = (
      await scenario.kubectl("get", "pods", "-l", "sallyport.dev/gateway=orders", "-o", "name")
    ).trim();
    for (let at = 0; at < kills; at += 1) {
      await change(at);
      const waitMs = randomInt(waitMsMax);
      await new Promise((resolve) => setTimeout(resolve, waitMs));
      const killed = await kill(at % 2 === 0 ? "all" : "one");
      console.log(`kill ${at + 1}: ${killed.length} after ${waitMs} ms`);
      expect(killed.length).toBeGreaterThan(0);
      // Sessions do not notice.
      expect(await session.ask("SELECT item FROM orders WHERE id = 1")).toBe("tea");
    }
    await system("rollout", "status", "deployment/sallyport-operator", "--timeout=120s");

    const expected = [`kept-${kills - 1}`, "orders", "steady"];
    await scenario.eventually("every status to be of the last generation", settled, { ms: 90_000 });
    expect(await owners("deployments")).toEqual(expected);
    expect(await owners("services")).toEqual(expected);
    expect(await owners("networkpolicies")).toEqual(expected);
    const ports = "jsonpath={.spec.ports[0].port}";
    expect(await scenario.kubectl("get", "service", "steady-gateway", "-o", ports)).toBe(
      String(portAt(kills - 1)),
    );
    // The last policy is in force in the session that was there all the time, and no gateway was replaced for it.
    await inForce(profileAt(kills - 1));
    const after = await scenario.kubectl("get", "pods", "-l", "sallyport.dev/gateway=orders", "-o", "name");
    expect(after.trim()).toBe(pod);
  },
  scenario.full ? 1_500_000 : 600_000,
);

test("operators that never saw what was there last are believed all the same", async () => {
  // The gateway hears of a policy together with the newest resource, which goes before the next operators come.
  const last = `kept-${kills - 1}`;
  await scenario.kubectl("label", "protectedresource", last, "newest=true");
  await scenario.apply(readers(profileAt(kills)));
  await inForce(profileAt(kills));
  await scenario.kubectl("delete", "protectedresource", last, "--timeout=60s");
  await kill("all");
  await system("rollout", "status", "deployment/sallyport-operator", "--timeout=120s");
  await scenario.apply(readers(profileAt(kills + 1)));
  await inForce(profileAt(kills + 1));
}, 300_000);

/** Waits until the session that was there all the time may do what the profile lets it. */
async function inForce(profile: ReturnType<typeof profileAt>): Promise<void> {
  await scenario.eventually(
    `${profile} in the live session`,
    async () => {
      const answer = await session?.ask("INSERT INTO orders VALUES (2, 'milk')");
      return (profile === "ReadWrite" ? answer === "" : answer?.includes("42501")) || undefined;
    },
    { ms: 60_000 },
  );
}

const portAt = (at: number) => 6_000 + at;
const profileAt = (at: number) => (at % 2 === 0 ? "ReadWrite" : "ReadOnly");

/** Something new to do each time: a policy, a changed resource, one that comes and one that goes. */
async function change(at: number): Promise<void> {
  await scenario.apply(readers(profileAt(at)), another("steady", portAt(at)), another(`kept-${at}`, 5_432));
  if (at > 0) await scenario.kubectl("delete", "protectedresource", `kept-${at - 1}`, "--wait=false");
}

/** Kills operators by signal 9, from outside of their containers; gives the pods whose process it was. */
async function kill(which: "one" | "all"): Promise<readonly string[]> {
  const list = await scenario.eventually(
    "an operator that runs",
    async () => {
      const script =
        'for p in /proc/[0-9]*; do if tr "\\0" " " < "$p/cmdline" 2>/dev/null | grep -q "^/usr/local/bin/node .*operator[.]mjs"; ' +
        'then echo "$p" | cut -d/ -f3; fi; done';
      const { stdout } = await inKiller(script);
      const found = stdout.trim().split("\n").filter(Boolean);
      return found.length > 0 ? found : undefined;
    },
    { ms: 60_000 },
  );
  const victims = which === "all" ? list : [list[randomInt(list.length)] as string];
  const { code, stderr } = await inKiller(`kill -9 ${victims.join(" ")}`);
  if (code !== 0) throw new Error(`the operator was not killed: ${stderr}`);
  // The kubelet waits longer after each crash of a pod; those of a lost node come back as new ones, at once.
  if (which === "all") {
    const flags = [
      "-l",
      "app.kubernetes.io/component=operator",
      "--force",
      "--grace-period=0",
      "--wait=false",
    ];
    await system("delete", "pod", ...flags);
  }
  return victims;
}

const inKiller = (script: string) =>
  scenario.cluster.kubectl.try(
    undefined,
    "-n",
    "kube-system",
    "exec",
    "e2e-killer",
    "--",
    "sh",
    "-c",
    script,
  );

/** A pod that sees the node's processes. */
function killer(): KubernetesObject {
  const bare = clientPod("e2e-killer");
  const { containers, ...spec } = bare.spec as { readonly containers: readonly object[] };
  return {
    ...bare,
    metadata: { name: "e2e-killer", namespace: "kube-system", labels: { app: "e2e-killer" } },
    spec: {
      ...spec,
      hostPID: true,
      securityContext: {},
      containers: containers.map((container) => ({
        ...container,
        securityContext: { runAsUser: 0, runAsGroup: 0, privileged: true },
      })),
    },
  };
}

interface Observed {
  readonly metadata: { readonly name: string; readonly generation: number; readonly labels?: Labels };
  readonly status?: { readonly conditions?: readonly Condition[] };
}
type Labels = Readonly<Record<string, string>>;
interface Condition {
  readonly type: string;
  readonly status: string;
  readonly observedGeneration?: number;
}

async function settled(): Promise<true | undefined> {
  const { items } = await scenario.kubectl.json<{ readonly items: readonly Observed[] }>(
    "protectedresources,accesspolicies",
  );
  const isCurrent = ({ metadata, status }: Observed) => {
    const conditions = status?.conditions ?? [];
    const accepted = conditions.find(({ type }) => type === "Accepted");
    return (
      accepted?.status === "True" && conditions.every((one) => one.observedGeneration === metadata.generation)
    );
  };
  const names = items.map(({ metadata }) => metadata.name).sort();
  const isWhole = names.join() === [`kept-${kills - 1}`, "orders", "readers", "steady"].join();
  return (isWhole && items.every(isCurrent)) || undefined;
}

async function owners(kinds: string): Promise<readonly string[]> {
  const { items } = await scenario.kubectl.json<{ readonly items: readonly Observed[] }>(
    ...[kinds, "-l", "sallyport.dev/resource"],
  );
  return [...new Set(items.map(({ metadata }) => metadata.labels?.["sallyport.dev/resource"] ?? ""))].sort();
}
