/** The operator on a real API server: gateways of a resource are told where the others are, as their pods come and go. */
import { generateKeyPairSync, sign, X509Certificate } from "node:crypto";
import { connect } from "node:tls";
import {
  controlLimits,
  controlProtocol,
  FramedConnection,
  type GatewayMessage,
  gatewayUri,
  type OperatorMessage,
  parseOperatorMessage,
  peerPort,
  signingProof,
} from "@sallyport/control";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ApiServer } from "../cluster/api-server.ts";
import { waitFor } from "../cluster/processes.ts";
import { databaseService, oktaProvider, ordersResource } from "../targets/manifests.ts";
import {
  startApiServerWithKinds,
  startOperator,
  systemNamespace,
  type TestOperator,
} from "../targets/operator.ts";

const namespace = "shop";
let api: ApiServer;
let running: TestOperator;
const cleanups: (() => void)[] = [];

beforeAll(async () => {
  api = await startApiServerWithKinds();
  await api.kubectl.apply([
    { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } },
    databaseService("orders-db", namespace),
    oktaProvider,
    ordersResource(namespace),
  ]);
  running = await startOperator(api);
});
afterAll(async () => {
  for (const clean of cleanups) clean();
  await running?.stop();
  await api?.close();
});

const shop = (...argv: readonly string[]) => api.kubectl("-n", namespace, ...argv);

interface Template {
  readonly metadata: { readonly labels: object; readonly annotations: object };
  readonly spec: { readonly containers: readonly [{ readonly image: string }] };
}

/** A pod as the Deployment would make it, with the address that a kubelet would tell; answers its uid. */
async function gatewayPod(name: string, podIP: string, change: object = {}): Promise<string> {
  const template = await waitFor("the Deployment", async () => {
    const found = await api.kubectl.try(
      ...[undefined, "-n", namespace, "get", "deploy", "orders-gateway", "-o", "json"],
    );
    return found.code === 0 ? (JSON.parse(found.stdout).spec.template as Template) : undefined;
  });
  const [container] = template.spec.containers;
  const { metadata, spec } = template;
  const changed = { ...spec, containers: [{ ...container, ...change }] };
  await api.kubectl.apply([
    { apiVersion: "v1", kind: "Pod", metadata: { ...metadata, name, namespace }, spec: changed },
  ]);
  const status = { phase: "Running", podIP, podIPs: [{ ip: podIP }] };
  await shop(
    ...["patch", "pod", name, "--subresource=status", "--type=merge", "-p", JSON.stringify({ status })],
  );
  return (await shop("get", "pod", name, "-o", "jsonpath={.metadata.uid}")).trim();
}

type Told = Extract<OperatorMessage, { kind: "peers" }>;

interface Stream {
  readonly messages: readonly OperatorMessage[];
  peers(): Told["peers"] | undefined;
  send(message: GatewayMessage): void;
}

/** The control stream of a pod's gateway; `hello` says what more it says of itself. */
async function streamOf(pod: string, hello: { takesPeers?: boolean }): Promise<Stream> {
  const bound = ["--bound-object-kind=Pod", `--bound-object-name=${pod}`];
  const token = (
    await shop("create", "token", "orders-gateway", "--audience=control.sallyport.dev", ...bound)
  ).trim();
  const ca = await shop("get", "cm", "orders-gateway-ca", "-o", "jsonpath={.data.ca\\.crt}");
  const { controlPort: port } = running.configuration;
  const servername = `sallyport-control.${systemNamespace}.svc`;
  const socket = connect({ host: "127.0.0.1", port, servername, ca, ALPNProtocols: [controlProtocol] });
  const connection = new FramedConnection(socket, { frameBytesMax: controlLimits.bundleBytesMax });
  cleanups.push(() => connection.end());
  const messages: OperatorMessage[] = [];
  const follow = async () => {
    for await (const { header } of connection.messages()) messages.push(parseOperatorMessage(header));
  };
  follow().catch(() => undefined);
  connection.send({ kind: "hello", token, version: "test", ...hello });
  await waitFor("the welcome", () => messages.some(({ kind }) => kind === "welcome") || undefined);
  const isPeers = (message: OperatorMessage): message is Told => message.kind === "peers";
  return {
    messages,
    peers: () => messages.findLast(isPeers)?.peers,
    send: (message) => connection.send(message),
  };
}

const at = (podUid: string, host: string) => ({ podUid, host, port: peerPort });
const byUid = (peers: Told["peers"]) => peers.toSorted((a, b) => (a.podUid < b.podUid ? -1 : 1));

async function tells(stream: Stream, wanted: Told["peers"]): Promise<void> {
  const text = JSON.stringify(byUid(wanted));
  await waitFor(`the peers to be ${text}`, () => JSON.stringify(stream.peers()) === text || undefined, {
    ms: 20_000,
  }).catch((error: unknown) => {
    throw new Error(`told: ${JSON.stringify(stream.peers())}`, { cause: error });
  });
}

test("gateways are told of each other as pods come and go; labels and addresses alone make none", async () => {
  const a = await gatewayPod("gateway-a", "10.1.0.1");
  const first = await streamOf("gateway-a", { takesPeers: true });
  await tells(first, [at(a, "10.1.0.1")]);
  const b = await gatewayPod("gateway-b", "10.1.0.2");
  await tells(first, [at(a, "10.1.0.1"), at(b, "10.1.0.2")]);
  const second = await streamOf("gateway-b", { takesPeers: true });
  await tells(second, [at(a, "10.1.0.1"), at(b, "10.1.0.2")]);
  // Anybody who may make pods may write labels; what the operator would not have rendered is no gateway.
  await gatewayPod("impostor", "10.1.0.66", { image: "registry.example.com/theirs:1" });
  const c = await gatewayPod("gateway-c", "10.1.0.3");
  await tells(first, [at(a, "10.1.0.1"), at(b, "10.1.0.2"), at(c, "10.1.0.3")]);
  await shop("delete", "pod", "gateway-b", "--force", "--grace-period=0");
  await tells(first, [at(a, "10.1.0.1"), at(c, "10.1.0.3")]);
});

test("a gateway of before is served as ever, and hears nothing that it would not know", async () => {
  await gatewayPod("gateway-old", "10.1.0.4");
  const old = await streamOf("gateway-old", {});
  const fresh = await streamOf("gateway-old", { takesPeers: true });
  await waitFor("the newer one to be told", () => fresh.peers());
  await waitFor("policy", () => old.messages.some(({ kind }) => kind === "bundle") || undefined);
  await gatewayPod("gateway-new", "10.1.0.5");
  await waitFor("news", () => fresh.peers()?.some(({ host }) => host === "10.1.0.5") || undefined);
  expect(old.messages.map(({ kind }) => kind)).not.toContain("peers");
  expect(old.messages.map(({ kind }) => kind)).not.toContain("refused");
});

test("what gateways show each other names their pod, whichever side dials, and is checked by what peers are told", async () => {
  const podUid = await gatewayPod("gateway-d", "10.1.0.6");
  const stream = await streamOf("gateway-d", { takesPeers: true });
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const pem = publicKey.export({ type: "spki", format: "pem" }).toString();
  const proof = sign("sha256", signingProof(podUid, "peer", pem), privateKey).toString("base64");
  stream.send({ kind: "sign", id: 7, purpose: "peer", publicKey: pem, proof });
  const signed = await waitFor("the certificate", () =>
    stream.messages.find((message) => message.kind === "signed"),
  );
  const certificate = new X509Certificate(signed.certificate ?? "");
  expect(certificate.subjectAltName).toBe(`URI:${gatewayUri({ namespace, resource: "orders", podUid })}`);
  expect(certificate.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
  const { authorities } = await waitFor("the peers", () =>
    stream.messages.findLast((message): message is Told => message.kind === "peers"),
  );
  expect(certificate.verify(new X509Certificate(authorities).publicKey)).toBe(true);
});
