/** What programs do with JavaScript's Kubernetes client: each of its interfaces to pods and objects, once. */
import { PassThrough, Writable } from "node:stream";
import {
  ApiException,
  CoreV1Api,
  Exec,
  KubeConfig,
  KubernetesObjectApi,
  Log,
  PatchStrategy,
  PortForward,
  type V1ConfigMap,
  type V1Status,
  Watch,
} from "@kubernetes/client-node";
import { until } from "../../targets/until.ts";

/** Where it works. */
export interface Place {
  readonly kubeconfig: string;
  readonly namespace: string;
  /** A pod with a shell in its container `main`. */
  readonly pod: string;
  /** A port of the pod that answers HTTP. */
  readonly port: number;
  /** A command that policy denies. */
  readonly denied: readonly string[];
}

/** Does it all; what came of it. */
export async function workAsProgram(place: Place): Promise<Readonly<Record<string, unknown>>> {
  const { namespace, pod } = place;
  const config = new KubeConfig();
  config.loadFromFile(place.kubeconfig);
  const core = config.makeApiClient(CoreV1Api);
  const objects = KubernetesObjectApi.makeApiClient(config);
  const found: Record<string, unknown> = {
    pods: (await core.listNamespacedPod({ namespace })).items.map(({ metadata }) => metadata?.name),
  };
  const watched: string[] = [];
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  const selector = { fieldSelector: "metadata.name=javascript" };
  const note = (type: string, { data }: V1ConfigMap) => watched.push(`${type} ${JSON.stringify(data)}`);
  const watch = await new Watch(config).watch(path, selector, note, () => undefined);
  try {
    const map = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "javascript", namespace } };
    const apply = PatchStrategy.ServerSideApply;
    await objects.patch({ ...map, data: { a: "1" } }, undefined, undefined, "program", true, apply);
    await until(() => watched.length > 0);
    const merged = { ...map, data: { b: "2" } };
    await objects.patch(merged, undefined, undefined, undefined, undefined, PatchStrategy.MergePatch);
    await until(() => watched.length > 1);
    await core.deleteNamespacedConfigMap({ namespace, name: "javascript" });
    await until(() => watched.length > 2);
  } finally {
    watch.abort();
  }
  found.watched = watched;
  found.ran = await ranIn(config, place);
  found.log = await followedLog(config, place);
  found.forwarded = await answerOf(config, place);
  const odd = { ...place, pod: "none" };
  found.missing = await core.readNamespacedPod({ namespace, name: odd.pod }).catch(messageOf);
  found.refused = await new Exec(config)
    .exec(namespace, pod, "main", [...place.denied], new Kept(), new Kept(), null, false)
    .then(() => "ran", messageOf);
  return found;
}

/** A command with what it is given and what it says, each stream apart. */
async function ranIn(config: KubeConfig, { namespace, pod }: Place) {
  const [out, err, given] = [new Kept(), new Kept(), new PassThrough()];
  let status: V1Status | undefined;
  const command = ["sh", "-c", "read -r line; echo $line; echo err >&2; exit 7"];
  const noteEnd = (said: V1Status) => {
    status = said;
  };
  await new Exec(config).exec(namespace, pod, "main", command, out, err, given, false, noteEnd);
  given.end("typed\n");
  await until(() => status);
  return { out: out.text, err: err.text, code: status?.details?.causes?.[0]?.message };
}

/** What a log says that goes on. */
async function followedLog(config: KubeConfig, { namespace, pod }: Place) {
  const log = new Kept();
  // The library hears nothing of the stream that it pipes from: ended by its reader, that would be nobody's error.
  log.once("pipe", (source) => source.on("error", () => undefined));
  const following = await new Log(config).log(namespace, pod, "main", log, { follow: true });
  try {
    await until(() => log.text.includes("started"));
    return "started";
  } finally {
    following.abort();
  }
}

/** The beginning of what a port of the pod answers. */
async function answerOf(config: KubeConfig, { namespace, pod, port }: Place) {
  const [out, err, given] = [new Kept(), new Kept(), new PassThrough()];
  const tunnel = await new PortForward(config).portForward(namespace, pod, [port], out, err, given);
  try {
    given.write("GET /nothing HTTP/1.0\r\n\r\n");
    await until(() => out.text.length >= 4);
    return out.text.slice(0, 4);
  } finally {
    if ("close" in tunnel) tunnel.close();
  }
}

/** What an error says, of the server's Status where it has one; a refused WebSocket is an event with a message. */
function messageOf(error: unknown): string {
  if (error instanceof ApiException) return String(JSON.parse(String(error.body)).message);
  return typeof error === "object" && error !== null && "message" in error ? String(error.message) : "";
}

/** Keeps what it is given. */
class Kept extends Writable {
  text = "";
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}
