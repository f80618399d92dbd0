/** What scenarios of the Kubernetes gateway on the live cluster share: a pod with a shell, and a gateway before the API. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { type Kubectl, run } from "../cluster/kubectl.ts";
import { postgresImageName } from "../image/postgres/image.ts";
import { sallyportCommand } from "../targets/gateway.ts";
import {
  clusterAdmins,
  type KubernetesGateway,
  startKubernetesGateway,
} from "../targets/kubernetes-gateway.ts";
import { restrictedContainer, restrictedPod } from "./objects.ts";
import type { KubernetesObject, Scenario } from "./scenario.ts";

/** The rules of a policy under which another person must approve commands in pods. */
export const heldExec = `  rules:
  - name: exec
    match: {commands: [pods/exec]}
    action: RequireApproval
    message: somebody else must agree
    approval: {required: 1, timeout: 60s}`;

/** A pod that answers `got …` to each line that it is given, with a tar for kubectl cp. */
export function shellPod(name = "shell"): KubernetesObject {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, labels: { guarded: "yes" } },
    spec: {
      terminationGracePeriodSeconds: 0,
      automountServiceAccountToken: false,
      securityContext: restrictedPod,
      containers: [
        {
          name: "main",
          image: postgresImageName,
          imagePullPolicy: "Never",
          securityContext: restrictedContainer,
          // kubectl cp needs a tar, which the image has under another name.
          env: [{ name: "PATH", value: "/tmp/bin:/usr/local/bin:/usr/bin:/bin" }],
          command: [
            "sh",
            "-c",
            "mkdir /tmp/bin; for a in tar test mkdir ls; do ln -s /bin/busybox /tmp/bin/$a; done; echo started; echo mail ann@example.com; while read -r line; do echo got $line; done; sleep 3600",
          ],
          stdin: true,
          volumeMounts: [{ name: "tmp", mountPath: "/tmp" }],
        },
      ],
      volumes: [{ name: "tmp", emptyDir: {} }],
    },
  };
}

/** Starts a gateway before the scenario's cluster, where these users may do everything. */
export async function startShellGateway(
  scenario: Scenario,
  users: readonly string[],
  policies: string,
): Promise<KubernetesGateway> {
  const admin = await scenario.cluster.kubectl("config", "view", "--raw", "-o", "json");
  const { cluster } = JSON.parse(admin).clusters[0];
  const ca = cluster["certificate-authority-data"];
  const caPem =
    ca === undefined
      ? await readFile(cluster["certificate-authority"], "utf8")
      : Buffer.from(ca, "base64").toString();
  await scenario.cluster.kubectl.apply(clusterAdmins(users, "kubernetes-gateway-"));
  return startKubernetesGateway(
    { url: cluster.server, caPem, kubectl: scenario.cluster.kubectl },
    {
      policies,
      args: ["--approvers", "local:leads"],
      resource: { recording: { mode: "Required", content: ["commands", "responses", "input"] } },
    },
  );
}

/** Every line of every session's recording so far. */
export async function recordedLines(
  gateway: Pick<KubernetesGateway, "recordingDir">,
): Promise<readonly Record<string, unknown>[]> {
  const { stdout } = await run("find", [gateway.recordingDir, "-name", "*.journal"]);
  const paths = stdout.trim().split("\n").filter(Boolean);
  const texts = await Promise.all(paths.map((path) => readFile(path, "utf8")));
  return texts.flatMap((text) =>
    text
      // The last line may be on its way.
      .slice(0, text.lastIndexOf("\n"))
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Record<string, unknown>),
  );
}

/** The ids under which execs of a command were refused, as the recordings tell so far. */
export async function refusalsOf(
  gateway: Pick<KubernetesGateway, "recordingDir">,
  command: string,
): Promise<readonly string[]> {
  return (await recordedLines(gateway))
    .filter(({ name }) => name === "refused")
    .map(({ fields }) => fields as { readonly id: string; readonly request: string })
    .filter(({ request }) => request.endsWith(`-- ${command}`))
    .map(({ id }) => id);
}

/** A kubectl that goes on, and what it has printed so far; it is ended after two minutes in any case. */
export function going(
  kubectl: Kubectl,
  environment: Readonly<Record<string, string>>,
  ...argv: readonly string[]
): { readonly child: ChildProcess; readonly text: () => string } {
  const child = spawn(kubectl.program, ["--kubeconfig", kubectl.kubeconfig, ...argv], {
    env: { ...process.env, ...environment },
    timeout: 120_000,
    killSignal: "SIGKILL",
  });
  let text = "";
  const collect = (chunk: Buffer) => {
    text += chunk.toString();
  };
  child.stdout?.on("data", collect);
  child.stderr?.on("data", collect);
  child.stdin?.on("error", () => undefined);
  return { child, text: () => text };
}

/** What a lead says about the request that a notice names. */
export async function decideHeld(
  gateway: KubernetesGateway,
  notice: string,
  ...words: readonly string[]
): Promise<void> {
  const name = /held for approval ([^ :]+):/.exec(notice)?.[1] ?? "";
  const [verb = "", ...rest] = words;
  const args = [...sallyportCommand, verb, name, ...rest, "--state", dirname(gateway.recordingDir)];
  const said = await run(process.execPath, args, undefined, {
    SALLYPORT_TOKEN: gateway.token("lea", ["leads"]),
  });
  if (said.code !== 0) throw new Error(said.stderr);
}
