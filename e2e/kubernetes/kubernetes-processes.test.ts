/** kubectl before a gateway of several processes: what it asks for twice reaches another one each time. */
import { once } from "node:events";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { waitFor } from "../cluster/processes.ts";
import { heldNoticesIn } from "../targets/held-notices.ts";
import {
  clusterAdmins,
  type KubernetesGateway,
  startKubernetesGateway,
} from "../targets/kubernetes-gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { rawBytes, upgradeHead } from "./raw-client.ts";
import { decideHeld, going, heldExec, recordedLines } from "./shell-pod.ts";

const policies = [
  policyDocument("cluster", "bob", "  profile: ReadOnly", "readers"),
  policyDocument("cluster", "hal", `  profile: Admin\n${heldExec}`, "held"),
].join("");

let api: ApiServer;
let gateway: KubernetesGateway;

beforeAll(async () => {
  api = await startApiServer();
  await api.kubectl.apply([
    ...clusterAdmins(["bob", "hal"]),
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default" } },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "p" },
      spec: { automountServiceAccountToken: false, containers: [{ name: "c", image: "i" }] },
    },
  ]);
  const args = ["--processes", "2", "--approvers", "local:leads"];
  gateway = await startKubernetesGateway(api, { policies, args });
});
afterAll(async () => {
  await gateway?.stop();
  await api?.close();
});

const refusals = async () =>
  (await recordedLines(gateway))
    .filter(({ name }) => name === "refused")
    .map(({ fields }) => fields as { readonly id: string; readonly request: string });

test("K3: what kubectl asks for over WebSocket and then over SPDY has one id, whichever process answers", async () => {
  const head = (user: string, run: string) =>
    `Host: localhost\r\nAuthorization: Bearer ${gateway.token(user)}\r\nKubectl-Session: ${run}\r\n`;
  const spdy = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
  const ask = async (method: string, run: string, command = "id") => {
    const path = `/api/v1/namespaces/default/pods/p/exec?command=${command}&stdout=true`;
    const rest = method === "GET" ? upgradeHead : spdy;
    const answer = await rawBytes(gateway, `${method} ${path} HTTP/1.1\r\n${head("bob", run)}${rest}\r\n`);
    return /\(([0-9a-f]{12})\)/.exec(answer)?.[1];
  };
  // Eight connections, spread by the kernel: all of them on one of two processes would be odd, and harmless here.
  const ids = await Promise.all(
    [1, 2, 3, 4, 5, 6, 7, 8].map((at) => ask(at % 2 === 0 ? "POST" : "GET", "one")),
  );
  expect([...new Set(ids)]).toEqual([expect.stringMatching(/^[0-9a-f]{12}$/)]);
  // No WebSocket has asked for this one: where more of them than of the others met one process, an SPDY request for the same
  // command takes a left-over denial's id there.
  const others = [
    await ask("POST", "two", "ls"),
    await ask("POST", "one", "ls"),
    await ask("POST", "", "ls"),
  ];
  expect(new Set([ids[0], ...others]).size).toBe(4);
});

test("K3: real kubectl is told one id, and every record of its run has it", async () => {
  const bob = await gateway.user("bob");
  for (const command of ["first", "second"]) {
    const { stderr } = await bob.try(undefined, "exec", "p", "--", command);
    const id = /\(([0-9a-f]{12})\)/.exec(stderr)?.[1];
    expect(stderr.match(/is forbidden/g)).toHaveLength(1);
    const found = await waitFor("the record", async () => {
      const own = (await refusals()).filter(({ request }) => request.endsWith(`-- ${command}`));
      return own.length > 0 ? own : undefined;
    });
    expect(new Set(found.map((one) => one.id))).toEqual(new Set([id]));
  }
});

test("K4: what is held is told again every few seconds, asked about once, and its refusal is not tried again over SPDY", async () => {
  const hal = await gateway.user("hal");
  const { child, text } = going(hal, {}, "exec", "p", "--", "id");
  const ended = once(child, "exit");
  const [first, second] = await waitFor("two notices", async () => {
    const told = heldNoticesIn(text());
    return told.length > 1 ? told : undefined;
  });
  const { name = "" } = first ?? {};
  expect(first).toMatchObject({ asked: "somebody else must agree", how: `sallyport approve ${name}` });
  expect(second).toEqual({ ...first, secondsLeft: expect.any(Number) });
  expect(second?.secondsLeft).toBeLessThan(first?.secondsLeft ?? 0);
  await decideHeld(gateway, text(), "deny", "--reason", "not today");
  expect((await ended)[0]).not.toBe(0);
  expect(text()).toContain("not today");
  const asked = (await recordedLines(gateway)).filter(({ name }) => name === "approvalAsked");
  expect(asked).toHaveLength(1);
});
