import { request } from "node:https";
import {
  type EventRecorder,
  type KubeClient,
  type KubeObject,
  type Log,
  pause,
  resourceType,
} from "../kube/index.ts";

/** A place in a recorder's log that must still be there whenever its recordings are verified. */
export interface RecorderHead {
  readonly log: string;
  readonly block: number;
  readonly hash: string;
}

/** Where heads come from and where they are kept: outside the recorder's volume. */
export interface RecorderHeadsOptions {
  readonly recorders: () => readonly string[];
  /** Asks one recorder. */
  readonly read: (recorder: string, signal: AbortSignal) => Promise<RecorderHead | undefined>;
  /** Keeps it: a ConfigMap, an object store. */
  readonly publish: (recorder: string, head: RecorderHead, signal: AbortSignal) => Promise<void>;
  /** A recorder's log no longer reaches the head that was published of it. */
  readonly wentBack: (recorder: string, before: RecorderHead) => void;
  readonly log: Log;
}

/** One round: every recorder's head that is new is published; one that cannot be asked does not hold up the rest. */
export async function publishHeads(
  options: RecorderHeadsOptions,
  published: Map<string, RecorderHead>,
  signal: AbortSignal,
): Promise<void> {
  await Promise.all(
    options.recorders().map(async (recorder) => {
      try {
        const head = await options.read(recorder, signal);
        const before = published.get(recorder);
        if (head === undefined || head.hash === before?.hash) return;
        // A log only grows, and a new one counts on: anything else is what the published head is there to show, and must
        // not be overwritten.
        if (before !== undefined && !goesOn(head, before)) {
          options.log.error({ recorder, head, before }, "a recorder's log is shorter than it was");
          options.wentBack(recorder, before);
          return;
        }
        await options.publish(recorder, head, signal);
        published.set(recorder, head);
      } catch (error) {
        options.log.warn({ recorder, err: error }, "the head of a recorder could not be published");
      }
    }),
  );
}

/** Reads a recorder's answer to `GET /v1/head`. */
export function parseHead(body: unknown): RecorderHead | undefined {
  const { head } = (body ?? {}) as { readonly head?: Partial<RecorderHead> | null };
  if (head === null || head === undefined) return undefined;
  const { log, block, hash } = head;
  const isHead = typeof log === "string" && Number.isSafeInteger(block) && typeof hash === "string";
  if (!isHead) throw new Error("the recorder's answer is no head");
  return { log, block: Number(block), hash };
}

/** A log that was removed is begun anew under its number: it is as far as the one that is gone, and another one. */
function goesOn(head: RecorderHead, before: RecorderHead): boolean {
  const number = ({ log }: RecorderHead) => Number(/^log-(\d+)-/.exec(log)?.[1]);
  return head.log === before.log ? head.block > before.block : number(head) > number(before);
}

/** What the heads of all recorders are kept with. */
export interface RecorderHeadsRun {
  readonly client: Pick<KubeClient, "find" | "apply">;
  /** `host:port` of each recorder's stream; its API is on the next port. */
  readonly recorders: readonly string[];
  /** What recorders' certificates are checked against; undefined while that is not known. */
  readonly authorities: () => string | undefined;
  readonly namespace: string;
  /** The ConfigMap that holds them. */
  readonly name: string;
  /** Told of logs that went back: heads themselves are no events. */
  readonly events: Pick<EventRecorder, "record">;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly everyMs?: number;
  /** Asks one recorder; absent: over its API. */
  readonly read?: RecorderHeadsOptions["read"];
}

interface ConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}

const configMaps = resourceType<ConfigMap>("v1", "ConfigMap", "configmaps");
const fieldManager = "sallyport-recorder-heads";
/** Where earlier logs ended stays published: nobody begins two more and has the head forgotten that shows what is gone. */
const earlierMax = 64;

/** Keeps every recorder's head in a ConfigMap, once a minute, until the signal; the leader runs it. */
export async function keepRecorderHeads(run: RecorderHeadsRun): Promise<void> {
  const { client, recorders, namespace, name, events, log, signal } = run;
  let holder: KubeObject = { apiVersion: "v1", kind: "ConfigMap", metadata: { name, namespace } };
  const published = new Map<string, RecorderHead>();
  const latest = new Map<string, RecorderHead>();
  const earlier = new Map<string, readonly RecorderHead[]>();
  let turn: Promise<unknown> = Promise.resolve();
  const keyOf = (recorder: string) => (recorder.split(/[.:]/)[0] ?? "").replaceAll(/[^-._a-zA-Z0-9]/g, "-");
  const options: RecorderHeadsOptions = {
    recorders: () => recorders,
    read: run.read ?? ((recorder, over) => readHead(recorder, run.authorities(), over)),
    publish: (recorder, head, over) => {
      const before = latest.get(recorder);
      if (before !== undefined && before.log !== head.log)
        earlier.set(recorder, [...(earlier.get(recorder) ?? []), before].slice(-earlierMax));
      latest.set(recorder, head);
      // All of them are written at once, and one after the other: none takes another's new head back.
      const written = turn.then(async () => {
        const data: Record<string, string> = {};
        for (const [one, known] of latest) data[keyOf(one)] = JSON.stringify(known);
        for (const [one, heads] of earlier) data[`${keyOf(one)}.earlier`] = JSON.stringify(heads);
        const metadata = { name, namespace, labels: { "sallyport.dev/kept": "true" } };
        const object = { apiVersion: "v1", kind: "ConfigMap", metadata, data };
        await client.apply(configMaps, object, { fieldManager, force: true, signal: over });
      });
      turn = written.catch(() => undefined);
      return written;
    },
    // The same words each time, so that the event is one and counts: the log may go on where it is now.
    wentBack: (recorder, { log: name, block }) =>
      events.record({
        ...{ regarding: holder, type: "Warning", reason: "RecorderLogWentBack", action: "PublishHead" },
        note:
          `${keyOf(recorder)} no longer reaches block ${block} of ${name}, which was published: sessions may be missing ` +
          "from its volume; run verify against the head in this ConfigMap",
      }),
    log,
  };
  let isSeeded = false;
  while (!signal.aborted) {
    try {
      // What was published by whoever led before: a recorder must not have gone back since.
      if (!isSeeded) {
        const kept = await client.find(configMaps, { namespace, name }, { signal });
        if (kept !== undefined) holder = { ...holder, metadata: kept.metadata };
        for (const recorder of recorders) {
          const text = kept?.data?.[keyOf(recorder)];
          const head = text === undefined ? undefined : parseHead({ head: JSON.parse(text) });
          if (head !== undefined) for (const known of [published, latest]) known.set(recorder, head);
          const before: unknown = JSON.parse(kept?.data?.[`${keyOf(recorder)}.earlier`] ?? "[]");
          const heads = Array.isArray(before) ? before.flatMap((one) => parseHead({ head: one }) ?? []) : [];
          if (heads.length > 0) earlier.set(recorder, heads);
        }
        isSeeded = true;
      }
      await publishHeads(options, published, signal);
    } catch (error) {
      if (!signal.aborted) log.warn({ err: error }, "the heads of the recorders could not be read again");
    }
    await pause(run.everyMs ?? 60_000, signal);
  }
}

const answerBytesMax = 64 * 1024;
const deadlineMs = 10_000;

/** Asks a recorder's API for the head of its log. */
async function readHead(
  recorder: string,
  ca: string | undefined,
  signal: AbortSignal,
): Promise<RecorderHead | undefined> {
  if (ca === undefined) return undefined;
  const [, host = "", port = ""] = /^(.*):(\d+)$/.exec(recorder) ?? [];
  const text = await new Promise<string>((resolve, reject) => {
    const over = AbortSignal.any([signal, AbortSignal.timeout(deadlineMs)]);
    const sent = request(
      { host, port: Number(port) + 1, path: "/v1/head", ca, signal: over, agent: false },
      (answer) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        answer.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > answerBytesMax) sent.destroy(new Error("the recorder's answer is too long"));
          chunks.push(chunk);
        });
        answer.on("error", reject);
        answer.on("end", () => resolve(Buffer.concat(chunks).toString()));
      },
    );
    sent.on("error", reject);
    sent.end();
  });
  return parseHead(JSON.parse(text));
}
