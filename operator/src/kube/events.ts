/** Events (events.k8s.io/v1): what a user sees in `kubectl describe`. Repeats become one event's series. */
import { createHash, randomUUID } from "node:crypto";
import { pause } from "./backoff.ts";
import type { KubeClient } from "./client.ts";
import { isNotFound } from "./error.ts";
import { microTime } from "./lease.ts";
import type { Log } from "./log.ts";
import { type KubeObject, resourceType } from "./objects.ts";

/** One thing that happened to an object. */
export interface EventNote {
  readonly regarding: KubeObject;
  readonly type: "Normal" | "Warning";
  /** One word in CamelCase, from the documented list. */
  readonly reason: string;
  /** What the controller did or tried, in CamelCase. */
  readonly action: string;
  /** A sentence for the user; never a secret. */
  readonly note: string;
  readonly related?: KubeObject;
  /** How often it happened since it was last told: once. */
  readonly times?: number;
}

/** Writes events in the background; never throws, never waits, and drops what exceeds its bounds. */
export interface EventRecorder {
  record(note: EventNote): void;
  /** Writes until the signal, then what is still waiting. */
  run(signal: AbortSignal): Promise<void>;
}

/** Who reports, and how much at the most. */
export interface EventRecorderOptions {
  readonly client: KubeClient;
  /** `sallyport.dev/operator`. */
  readonly reportingController: string;
  /** The pod. */
  readonly reportingInstance: string;
  readonly log: Log;
  /** How often counts of series are written: 30 s. */
  readonly flushMs?: number;
  /** A repeat after so long without one is a new event: 6 minutes. */
  readonly seriesMs?: number;
  /** Different events on one object for one reason at once, before they come one in 30 s: 25. */
  readonly burst?: number;
}

interface KubeEvent extends KubeObject {
  readonly eventTime?: string;
  readonly series?: { readonly count: number; readonly lastObservedTime: string };
}

const events = resourceType<KubeEvent>("events.k8s.io/v1", "Event", "events");

/** As many may wait as are remembered: what found no place would come in bursts, with each count of the series. */
const SERIES_MAX = 4096;
const OBJECTS_MAX = 4096;
const REFILL_MS = 30_000;
/** The API server counts bytes, and refuses an event with more of them. */
const NOTE_BYTES_MAX = 1024;
/** What is still to be written when the process ends gets so long. */
const LAST_WRITES_MS = 2000;

/** Makes a recorder. */
export function eventRecorder(options: EventRecorderOptions): EventRecorder {
  return new Recorder(options);
}

/** A note with names for the objects, whose contents the caches have in newer versions. */
interface Told extends Pick<EventNote, "type" | "reason" | "action" | "note"> {
  readonly regarding: object;
  readonly related?: object;
}

/** Equal events since the first of them. */
interface Series {
  readonly namespace: string;
  readonly name: string;
  readonly told: Told;
  readonly firstAt: Date;
  lastAt: Date;
  count: number;
  /** How many the API server knows of. */
  written: number;
}

class Recorder implements EventRecorder {
  readonly #options: EventRecorderOptions;
  readonly #series = new Map<string, Series>();
  readonly #waiting = new Set<Series>();
  readonly #allowances = new Map<string, { tokens: number; at: number }>();
  #wake = (): void => {};

  constructor(options: EventRecorderOptions) {
    this.#options = options;
  }

  record(note: EventNote): void {
    const key = seriesKey(note);
    const { times = 1 } = note;
    const now = new Date();
    const known = this.#series.get(key);
    if (known !== undefined && now.getTime() - known.lastAt.getTime() < (this.#options.seriesMs ?? 360_000)) {
      // The first repeat shows at once that it repeats; more of them only count.
      const isFirstRepeat = known.count === 1 && known.written === 1;
      known.count += times;
      known.lastAt = now;
      if (isFirstRepeat) this.#enqueue(known);
      return;
    }
    if (!this.#mayRecord(note)) return;
    const { metadata } = note.regarding;
    const series: Series = {
      namespace: metadata.namespace ?? "default",
      name: `${metadata.name.slice(0, 200)}.${randomUUID().replaceAll("-", "").slice(0, 16)}`,
      told: toldOf(note),
      firstAt: now,
      lastAt: now,
      count: times,
      written: 0,
    };
    this.#series.delete(key);
    this.#series.set(key, series);
    keepNewest(this.#series, SERIES_MAX);
    this.#enqueue(series);
  }

  async run(signal: AbortSignal): Promise<void> {
    const { flushMs = 30_000 } = this.#options;
    // A write is not cut off by the signal: it may have been taken, and would be written twice.
    const late = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    const limit = (): void => {
      timer = setTimeout(() => late.abort(), LAST_WRITES_MS);
    };
    if (signal.aborted) limit();
    else signal.addEventListener("abort", limit, { once: true });
    try {
      let flushAt = performance.now() + flushMs;
      while (!signal.aborted) {
        await this.#writeWaiting(late.signal);
        await this.#untilWoken(Math.max(0, flushAt - performance.now()), signal);
        if (performance.now() < flushAt) continue;
        flushAt = performance.now() + flushMs;
        this.#enqueueRepeats();
      }
      this.#enqueueRepeats();
      await this.#writeWaiting(late.signal);
    } finally {
      signal.removeEventListener("abort", limit);
      clearTimeout(timer);
    }
  }

  #enqueueRepeats(): void {
    for (const series of this.#series.values()) if (series.count > series.written) this.#enqueue(series);
  }

  #enqueue(series: Series): void {
    if (this.#waiting.size >= SERIES_MAX) return;
    this.#waiting.add(series);
    this.#wake();
  }

  async #untilWoken(ms: number, signal: AbortSignal): Promise<void> {
    if (this.#waiting.size > 0) return;
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    await pause(ms, AbortSignal.any([signal, woken.signal]));
    this.#wake = () => {};
  }

  async #writeWaiting(signal: AbortSignal): Promise<void> {
    for (const series of this.#waiting) {
      if (signal.aborted) return;
      this.#waiting.delete(series);
      try {
        await this.#write(series, signal);
      } catch (error) {
        // An event that cannot be told is no reason to stop; a namespace that is being deleted takes none.
        this.#options.log.debug({ reason: series.told.reason, err: error }, "an event could not be written");
      }
    }
  }

  async #write(series: Series, signal: AbortSignal): Promise<void> {
    const { client } = this.#options;
    const { namespace, name, count, lastAt } = series;
    const seriesField = { count, lastObservedTime: microTime(lastAt) };
    if (series.written > 0) {
      try {
        const merge = { series: seriesField };
        await client.patch(events, { namespace, name }, { kind: "merge", merge }, { signal });
        series.written = count;
        return;
      } catch (error) {
        // The API server forgets events after an hour.
        if (!isNotFound(error)) throw error;
      }
    }
    await client.create(events, this.#eventOf(series, count > 1 ? seriesField : undefined), { signal });
    series.written = count;
  }

  #eventOf({ namespace, name, told, firstAt }: Series, series: KubeEvent["series"]): KubeEvent {
    const { reportingController, reportingInstance } = this.#options;
    const { reason, action, note } = told;
    return {
      metadata: { name, namespace },
      eventTime: microTime(firstAt),
      reportingController,
      reportingInstance: reportingInstance.slice(0, 128),
      ...told,
      action: action.slice(0, 128),
      reason: reason.slice(0, 128),
      note: shortened(note),
      ...(series === undefined ? {} : { series }),
    } as KubeEvent;
  }

  /**
   * One object that changes its mind all the time must not fill the event store. Each reason has its own share: who can
   * cause many events of one kind hides none of another.
   */
  #mayRecord({ regarding, reason }: EventNote): boolean {
    const { burst = 25 } = this.#options;
    const { uid, namespace, name } = regarding.metadata;
    const key = `${uid ?? `${regarding.kind}/${namespace}/${name}`} ${reason}`;
    const now = performance.now();
    const known = this.#allowances.get(key) ?? { tokens: burst, at: now };
    const tokens = Math.min(burst, known.tokens + (now - known.at) / REFILL_MS);
    this.#allowances.delete(key);
    this.#allowances.set(key, { tokens: tokens >= 1 ? tokens - 1 : tokens, at: now });
    keepNewest(this.#allowances, OBJECTS_MAX);
    return tokens >= 1;
  }
}

function shortened(text: string): string {
  if (Buffer.byteLength(text) <= NOTE_BYTES_MAX) return text;
  const mark = "…";
  let bytes = Buffer.byteLength(mark);
  let kept = "";
  for (const character of text) {
    bytes += Buffer.byteLength(character);
    if (bytes > NOTE_BYTES_MAX) break;
    kept += character;
  }
  return kept + mark;
}

function toldOf({ regarding, related, type, reason, action, note }: EventNote): Told {
  return {
    ...{ type, reason, action, note },
    regarding: referenceTo(regarding),
    ...(related !== undefined && { related: referenceTo(related) }),
  };
}

function referenceTo({ apiVersion, kind, metadata }: KubeObject): object {
  const { name, namespace, uid, resourceVersion } = metadata;
  return { apiVersion, kind, name, namespace, uid, resourceVersion };
}

function seriesKey({ regarding, related, type, reason, action, note }: EventNote): string {
  const { kind, metadata } = regarding;
  const parts = [
    kind,
    metadata.namespace,
    metadata.name,
    metadata.uid,
    related?.metadata.uid,
    type,
    reason,
    action,
    note,
  ];
  return createHash("sha256").update(JSON.stringify(parts)).digest("base64");
}

function keepNewest<K, V>(map: Map<K, V>, most: number): void {
  for (const key of map.keys()) {
    if (map.size <= most) return;
    map.delete(key);
  }
}
