/**
 * What the Kubernetes gateway adds, with a real API server, kubelet and pod behind it: a list, an event of a watch, the
 * echo of a terminal, 200 MB into a command, and the memory of 200 commands at once.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, open, rm } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { Agent, request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startCluster } from "../cluster/cluster.ts";
import type { Kubectl } from "../cluster/kubectl.ts";
import { packImage } from "../image/pack.ts";
import { postgresImage, postgresImageName } from "../image/postgres/image.ts";
import { openWebSocket, type WebSocketClient, type WebSocketTarget } from "../kubernetes/websocket-client.ts";
import {
  clusterAdmins,
  type KubernetesGateway,
  startKubernetesGateway,
} from "../targets/kubernetes-gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { bundle } from "./bundle.ts";
import { median } from "./pgbench.ts";
import { residentKilobytes, settledResidentKilobytes } from "./process-cost.ts";
import type { Row } from "./report.ts";
import type { Pace } from "./speed.ts";

const limits = { listMs: 5, eventMs: 2, echoMs: 2, maskedEchoMs: 20, ofDirect: 0.7, megabytesOf200: 250 };
const namespace = "bench-kubernetes";
const pod = `/api/v1/namespaces/${namespace}/pods/cat`;

const policy = (user: string, rest: string) =>
  policyDocument(
    "cluster",
    user,
    `  profile: Admin
${rest}`,
  );
const policies = [
  policy("ana", ""),
  policy("mia", "  masking:\n  - {patterns: [email, creditCard, jwt], with: Redact}"),
].join("");

/** The ways to the same API server. */
interface Bench {
  readonly kubectl: Kubectl;
  readonly throughGateway: Kubectl;
  readonly gateway: KubernetesGateway;
  readonly direct: WebSocketTarget;
  readonly target: (user: string) => WebSocketTarget;
}

/** All rows of the Kubernetes gateway. */
export async function kubernetes(_ways: unknown, pace: Pace): Promise<Row[]> {
  const cluster = await startCluster();
  try {
    await cluster.loadImage(await packImage(await postgresImage()));
    const { kubectl } = cluster;
    await kubectl.apply(objects());
    try {
      await kubectl("wait", "-n", namespace, "pod/cat", "--for=condition=Ready", "--timeout=90s");
      return await measured(kubectl, pace);
    } finally {
      await kubectl("delete", "namespace", namespace, "--wait=false");
      await kubectl("delete", "clusterrolebinding", "bench-ana", "bench-mia");
    }
  } finally {
    await cluster.close();
  }
}

async function measured(kubectl: Kubectl, pace: Pace): Promise<Row[]> {
  const config = JSON.parse(await kubectl("config", "view", "--raw", "-o", "json"));
  const text = (data: string) => Buffer.from(data, "base64").toString();
  const { server, "certificate-authority-data": ca } = config.clusters[0].cluster;
  const user = config.users[0].user;
  const caPem = text(ca);
  const gateway = await startKubernetesGateway(
    { url: server, caPem, kubectl },
    { policies, program: bundle.program },
  );
  try {
    const bench: Bench = {
      kubectl,
      gateway,
      throughGateway: await gateway.user("ana"),
      direct: {
        ...{ url: server, caPem },
        ...{ certPem: text(user["client-certificate-data"]), keyPem: text(user["client-key-data"]) },
      },
      target: (name) => ({ url: gateway.url, caPem: gateway.caPem, token: gateway.token(name) }),
    };
    return [
      await lists(bench, pace.rounds * 40),
      await events(bench, pace.rounds * 40),
      await echoes(bench, "ana", pace.rounds * 60),
      await echoes(bench, "mia", pace.rounds * 20),
      await bulk(bench, 200, pace.rounds),
      await manyCommands(bench, 200),
    ];
  } finally {
    await gateway.stop();
  }
}

/** What `kubectl get pods` asks for, on a connection that stands. */
async function lists({ direct, target }: Bench, count: number): Promise<Row> {
  const ways = [direct, target("ana")].map((way) => ({ way, agent: agentOf(way), times: [] as number[] }));
  for (let round = 0; round < count + 5; round += 1) {
    for (const { way, agent, times } of ways) {
      const begun = performance.now();
      await list(way, agent);
      // The first ones open connections and warm what compiles.
      if (round >= 5) times.push(performance.now() - begun);
    }
  }
  for (const { agent } of ways) agent.destroy();
  const [plain = 0, ours = 0] = ways.map(({ times }) => median(times));
  return added("kubectl get pods", limits.listMs, plain, ours, count);
}

function agentOf({ caPem, certPem, keyPem }: WebSocketTarget): Agent {
  return new Agent({
    ca: caPem,
    keepAlive: true,
    maxSockets: 1,
    ...(certPem === undefined ? {} : { cert: certPem, key: keyPem }),
  });
}

function list({ url, token }: WebSocketTarget, agent: Agent): Promise<void> {
  const headers = {
    accept: "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
  };
  return new Promise((resolve, reject) => {
    const sent = request(`${url}/api/v1/pods?limit=500`, { agent, headers, timeout: 20_000 }, (response) => {
      response.resume();
      response.once("error", reject);
      response.once("end", () =>
        response.statusCode === 200 ? resolve() : reject(new Error(`status ${response.statusCode}`)),
      );
    });
    sent.once("timeout", () => sent.destroy(new Error("no answer")));
    sent.once("error", reject);
    sent.end();
  });
}

const ticker = `/api/v1/namespaces/${namespace}/configmaps/ticker`;

/** From a change asked for to its event's first byte, at two watches that both hear of it. */
async function events({ direct, target }: Bench, count: number): Promise<Row> {
  const ways = await Promise.all(
    [direct, target("ana")].map(async (way) => ({ watch: await openWatch(way), times: [] as number[] })),
  );
  const agent = agentOf(direct);
  for (let round = 0; round < count + 10; round += 1) {
    const heard = ways.map(({ watch }) => once(watch, "data"));
    const begun = performance.now();
    const arrivals = heard.map(async (event) => {
      await event;
      return performance.now() - begun;
    });
    await change(direct, agent, round);
    const times = await Promise.all(arrivals);
    if (round >= 10) for (const [at, way] of ways.entries()) way.times.push(times[at] ?? Number.NaN);
  }
  for (const { watch } of ways) watch.destroy();
  agent.destroy();
  const [plain = 0, ours = 0] = ways.map(({ times }) => median(times));
  return added("event of a watch, first byte", limits.eventMs, plain, ours, count);
}

/** A watch that has told what is there already. */
async function openWatch(way: WebSocketTarget): Promise<IncomingMessage> {
  const { url, token, caPem: ca, certPem, keyPem } = way;
  const sent = request(
    `${url}/api/v1/namespaces/${namespace}/configmaps?watch=1&fieldSelector=metadata.name%3Dticker`,
    {
      ...{ ca, cert: certPem, key: keyPem, agent: false },
      ...(token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } }),
    },
  );
  sent.end();
  const [response]: IncomingMessage[] = await once(sent, "response");
  if (response?.statusCode !== 200) throw new Error(`watch: status ${response?.statusCode}`);
  await once(response, "data");
  return response;
}

function change({ url }: WebSocketTarget, agent: Agent, round: number): Promise<void> {
  const headers = { "content-type": "application/merge-patch+json" };
  return new Promise((resolve, reject) => {
    const sent = request(`${url}${ticker}`, { method: "PATCH", agent, headers }, (response) => {
      response.resume();
      response.once("end", () =>
        response.statusCode === 200 ? resolve() : reject(new Error(`status ${response.statusCode}`)),
      );
    });
    sent.once("error", reject);
    sent.end(JSON.stringify({ data: { round: String(round) } }));
  });
}

const catPath = `${pod}/exec?command=cat&stdin=true&stdout=true&stderr=true`;

/** From a line typed to the same line shown. */
async function echoes({ direct, target }: Bench, user: string, count: number): Promise<Row> {
  const ways = await Promise.all(
    [direct, target(user)].map(async (way) => ({
      client: await openWebSocket(way, catPath, ["v5.channel.k8s.io"]),
      times: [] as number[],
    })),
  );
  for (let round = 0; round < count + 20; round += 1) {
    for (const { client, times } of ways) {
      const begun = performance.now();
      await echo(client, "x");
      if (round >= 20) times.push(performance.now() - begun);
    }
  }
  for (const { client } of ways) client.socket.destroy();
  const [plain = 0, ours = 0] = ways.map(({ times }) => median(times));
  const isMasked = user === "mia";
  const work = isMasked ? "exec echo of a letter, masked" : "exec echo";
  return added(work, isMasked ? limits.maskedEchoMs : limits.echoMs, plain, ours, count);
}

/** A letter and no newline: where output is masked, that is what is held back. */
async function echo(client: WebSocketClient, text: string): Promise<void> {
  client.keeps = false;
  const shown = new Promise<void>((resolve, reject) => {
    const late = setTimeout(() => reject(new Error("no echo")), 10_000);
    client.onMessage = ({ opcode, bytes }) => {
      if (opcode !== 2 || bytes[0] !== 1 || bytes.length < 2) return;
      clearTimeout(late);
      resolve();
    };
  });
  client.send(2, Buffer.concat([Buffer.from([0]), Buffer.from(text)]));
  await shown;
}

/** kubectl exec -i with a large file as its input, in turns. */
async function bulk({ kubectl, throughGateway }: Bench, megabytes: number, rounds: number): Promise<Row> {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-bench-"));
  const path = join(folder, "input");
  try {
    const file = await open(path, "w");
    await file.truncate(megabytes * 1024 * 1024);
    await file.close();
    const plain: number[] = [];
    const ours: number[] = [];
    for (let round = 0; round < rounds; round += 1) {
      plain.push(await send(kubectl, path));
      ours.push(await send(throughGateway, path));
    }
    const ratio = median(plain) / median(ours);
    const rate = (times: readonly number[]) => `${(megabytes / (median(times) / 1000)).toFixed(0)} MB/s`;
    const detail = `${rate(ours)} to ${rate(plain)}, ${megabytes} MB`;
    return { work: "kubectl exec -i, 200 MB", against: "direct", ratio, atLeast: limits.ofDirect, detail };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function send({ program, kubeconfig }: Kubectl, path: string): Promise<number> {
  const input = await open(path);
  const begun = performance.now();
  const argv = ["--kubeconfig", kubeconfig, "exec", "-i", "-n", namespace, "cat", "--", "sh", "-c", "wc -c"];
  const child = spawn(program, argv, { stdio: [input.fd, "pipe", "inherit"], timeout: 300_000 });
  let counted = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    counted += chunk.toString();
  });
  const [code] = await once(child, "close");
  const { size } = await input.stat();
  await input.close();
  if (code !== 0 || Number(counted) !== size)
    throw new Error(`kubectl exec ended with ${code} after ${counted.trim()} bytes`);
  return performance.now() - begun;
}

/** Memory of the gateway with that many commands that have all echoed something. */
async function manyCommands({ gateway, target }: Bench, count: number): Promise<Row> {
  const before = await settledResidentKilobytes(gateway.pid);
  const clients: WebSocketClient[] = [];
  try {
    while (clients.length < count) {
      const some = Array.from({ length: Math.min(10, count - clients.length) }, () =>
        openWebSocket(target("ana"), catPath, ["v5.channel.k8s.io"]),
      );
      clients.push(...(await Promise.all(some)));
    }
    await Promise.all(clients.map((client) => echo(client, "x\n")));
    const megabytes = (await residentKilobytes(gateway.pid)) / 1024;
    return {
      work: `${count} execs at once`,
      against: "250 MB",
      ratio: limits.megabytesOf200 / megabytes,
      atLeast: 1,
      detail: `${megabytes.toFixed(0)} MB resident, ${(before / 1024).toFixed(0)} MB before`,
    };
  } finally {
    for (const { socket } of clients) socket.destroy();
  }
}

function added(work: string, limitMs: number, plain: number, ours: number, count: number): Row {
  const more = Math.max(ours - plain, 0.001);
  const detail = `${more.toFixed(2)} ms added to ${plain.toFixed(2)} ms, medians of ${count}`;
  return { work, against: `${limitMs} ms added`, ratio: limitMs / more, atLeast: 1, detail };
}

function objects() {
  return [
    { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } },
    ...clusterAdmins(["ana", "mia"], "bench-"),
    { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "ticker", namespace } },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "cat", namespace },
      spec: {
        terminationGracePeriodSeconds: 0,
        automountServiceAccountToken: false,
        containers: [
          { name: "main", image: postgresImageName, imagePullPolicy: "Never", command: ["sleep", "36000"] },
        ],
      },
    },
  ];
}
