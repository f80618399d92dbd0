/** What the control plane and gateways may dial: what they are there for, and nothing else. */
import { beforeAll, expect, test } from "vitest";
import { systemNamespace } from "./installed.ts";
import { clientPod, database } from "./objects.ts";
import { openOrders } from "./orders.ts";

const { scenario } = openOrders("closed-egress");
const { namespace, cluster } = scenario;
const recorderHost = `sallyport-recorder-0.sallyport-recorder.${systemNamespace}.svc`;
/** What is dialled, by what it is. */
const places = new Map([
  ["API server", "kubernetes.default.svc 443"],
  ["control", `sallyport-control.${systemNamespace}.svc 8443`],
  ["metrics", `sallyport-metrics.${systemNamespace}.svc 9464`],
  ["recorder", `${recorderHost} 7444`],
  ["replay", `${recorderHost} 7445`],
  ["server", `orders.${namespace}.svc 5432`],
  ["other server", `other.${namespace}.svc 5432`],
]);

beforeAll(async () => {
  await scenario.apply(...database("other", ""), clientPod("witness"));
  await scenario.ready("statefulset/other", "pod/witness");
  const node = await cluster.kubectl(
    ...["get", "nodes", "-o"],
    "jsonpath={.items[0].status.addresses[0].address}",
  );
  // Who reaches it steps into pods past admission.
  places.set("kubelet", `${node} 10250`);
});

/** Tries all of them at once, and prints which took the connection. */
const program = `
for (const place of process.argv.slice(1)) {
  const [host, port] = place.split(" ");
  const socket = require("net").connect({ host, port: Number(port), timeout: 3000 });
  socket.on("connect", () => { console.log(place); socket.destroy(); });
  socket.on("timeout", () => socket.destroy()).on("error", () => {});
}`;

/** What a pod of ours reaches. */
async function reached(inNamespace: string, workload: string): Promise<readonly string[]> {
  // Nobody else steps into a pod that holds a gateway.
  const rescuer = await cluster.user("rescuer", ["sallyport:break-glass", "system:masters"]);
  const command = ["/usr/local/bin/node", "-e", program, ...places.values()];
  const lines = (await rescuer("-n", inNamespace, "exec", workload, "--", ...command)).split("\n");
  return [...places].filter(([, place]) => lines.includes(place)).map(([name]) => name);
}

test("each of the places answers a pod that nobody has closed in, but the server that is protected", async () => {
  for (const [name, place] of places) {
    const [host = "", port = ""] = place.split(" ");
    if (name !== "server") await scenario.reachable("witness", host, Number(port));
  }
});

/** No policy stands between a pod and itself. */
const itself = ["recorder", "replay"];
test.each([
  ["O60 operators dial", systemNamespace, "deployment/sallyport-operator", ["API server", "replay"]],
  ["O60 recorders dial", systemNamespace, "statefulset/sallyport-recorder", ["API server", ...itself]],
  ["O52 gateways dial", namespace, "deployment/orders-gateway", ["control", "recorder", "server"]],
])("%s what they are there for, and nothing else", async (_, inNamespace, workload, wanted) => {
  await expect.poll(() => reached(inNamespace, workload), { timeout: 60_000 }).toEqual(wanted);
});
