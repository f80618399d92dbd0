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
import { tryExec } from "./raw-client.ts";
import { decideHeld, going, heldExec, recordedLines, refusalsOf } from "./shell-pod.ts";

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

/** Asks for an exec as bob on a connection of its own, so that the kernel picks the process. */
const ask = (method: "GET" | "POST", command: string, run = "") =>
  tryExec(gateway, { method, token: gateway.token("bob"), command, run });

/** The ids under which a command is recorded, once so many records are there. */
const recordedIds = (command: string, count: number) =>
  waitFor(`${count} records of ${command}`, async () => {
    const ids = await refusalsOf(gateway, command);
    return ids.length >= count ? ids : undefined;
  });

// Sixteen pairs, spread by the kernel: all of them meeting one of two processes would be odd.
const rounds = Array.from({ length: 16 }, (_, round) => round);

test.each(["", "run"])(
  "K3: over WebSocket and then over SPDY is one record, whichever process answers (run: %j)",
  async (run) => {
    const commands = rounds.map((round) => `one${run}-${round}`);
    await Promise.all(
      commands.map(async (command) => {
        const id = await ask("GET", command, run);
        expect(id).toMatch(/^[0-9a-f]{12}$/);
        expect(await ask("POST", command, run)).toBe(id);
        // Who goes on asking is recorded again, behind where a record of the second request would be.
        const again = await ask("POST", command, run);
        expect(again === id).toBe(run !== "");
        expect(await recordedIds(command, 2)).toEqual(expect.arrayContaining([id, again]));
      }),
    );
    for (const command of commands) expect(await recordedIds(command, 2)).toHaveLength(2);
  },
);

test("K3: of two that race for one denial one is recorded, and no other run or command takes it", async () => {
  const commands = rounds.map((round) => `race-${round}`);
  await Promise.all(
    commands.map(async (command) => {
      await ask("GET", command, "mine");
      // Neither is the second half of it.
      await ask("POST", command, "theirs");
      await ask("POST", `${command}-else`, "mine");
      await Promise.all([ask("POST", command, "mine"), ask("POST", command, "mine")]);
      await recordedIds(command, 3);
    }),
  );
  for (const command of commands) expect(await recordedIds(command, 3)).toHaveLength(3);
});

test("K3: real kubectl is told one id, and its run has one record", async () => {
  const bob = await gateway.user("bob");
  for (const command of ["first", "second", "third", "fourth"]) {
    const { stderr } = await bob.try(undefined, "exec", "p", "--", command);
    const id = /\(([0-9a-f]{12})\)/.exec(stderr)?.[1];
    expect(stderr.match(/is forbidden/g)).toHaveLength(1);
    expect(await recordedIds(command, 1)).toEqual([id]);
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
