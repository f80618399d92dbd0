import {
  type Bundle,
  type BundleUpdate,
  bundleKinds,
  digestOf,
  encodeFrame,
  kindOf,
  type Revision,
  updateFrom,
} from "@sallyport/control";

/** A bundle's update, encoded once for all gateways that hold the same. */
export interface EncodedUpdate {
  readonly frame: readonly Uint8Array[];
  readonly bytes: number;
}

/**
 * The bundle of every resource, as it stands. Whoever watches the cluster sets them; gateways' streams are told what
 * changed. Until every list behind them is complete nothing is handed out.
 */
export class BundleStore {
  readonly #bundles = new Map<string, Bundle>();
  readonly #listeners = new Map<string, Set<() => void>>();
  readonly #changed = new Set<string>();
  readonly #encoded = new WeakMap<Bundle, Map<string, EncodedUpdate>>();
  readonly #debounceMs: number;
  #timer: NodeJS.Timeout | undefined;
  #isComplete = false;
  #heard: ((resource: string) => Revision) | undefined;

  /** A burst of changes that lasts less than `debounceMs` goes out as one. */
  constructor(debounceMs = 25) {
    this.#debounceMs = debounceMs;
  }

  /** Says up to where the lists behind a resource's bundle have been followed at any time. */
  hearsBy(heard: (resource: string) => Revision): void {
    this.#heard = heard;
  }

  /** Every list behind the bundles is complete; from here on they are handed out. */
  markComplete(): void {
    if (this.#isComplete) return;
    this.#isComplete = true;
    for (const resource of this.#bundles.keys()) this.#change(resource);
  }

  /** True once bundles are handed out. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  /** Sets what concerns a resource (`namespace/name`); the same content again changes nothing. */
  set(resource: string, bundle: Bundle): void {
    const foreign = bundle.documents.find(({ key }) => !bundleKinds.has(kindOf(key)));
    if (foreign !== undefined) throw new TypeError(`a ${kindOf(foreign.key)} does not travel`);
    const held = this.#bundles.get(resource);
    if (held !== undefined && digestOf(held.documents) === digestOf(bundle.documents)) {
      // Newer lists with the same content: the documents stay the ones that streams have.
      this.#bundles.set(resource, { revision: bundle.revision, documents: held.documents });
      return;
    }
    this.#bundles.set(resource, bundle);
    this.#change(resource);
  }

  /** The resource is gone: its gateways' streams are ended by whoever checks their pods. */
  remove(resource: string): void {
    if (this.#bundles.delete(resource)) this.#change(resource);
  }

  /** What concerns a resource; undefined while that is not known for certain. */
  get(resource: string): Bundle | undefined {
    return this.#isComplete ? this.#bundles.get(resource) : undefined;
  }

  /** The digest of what is handed out for a resource. */
  digest(resource: string): string | undefined {
    const bundle = this.get(resource);
    return bundle && digestOf(bundle.documents);
  }

  /** Calls back on changes of a resource's bundle; answers what ends that. */
  onChange(resource: string, listener: () => void): () => void {
    const listeners = this.#listeners.get(resource) ?? new Set();
    this.#listeners.set(resource, listeners);
    listeners.add(listener);
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0) this.#listeners.delete(resource);
    };
  }

  /** The frame that turns what a gateway holds into its resource's bundle. */
  encoded(resource: string, held: Bundle | undefined, next: Bundle): EncodedUpdate {
    const heard = this.#heard?.(resource);
    const from = `${held === undefined ? "" : digestOf(held.documents)} ${JSON.stringify(heard)}`;
    const known = this.#encoded.get(next) ?? new Map<string, EncodedUpdate>();
    this.#encoded.set(next, known);
    const found = known.get(from);
    if (found !== undefined) return found;
    const update: BundleUpdate = updateFrom(held, next, heard);
    const frame = encodeFrame({ kind: "bundle", ...update });
    const encoded = { frame, bytes: frame.reduce((sum, part) => sum + part.length, 0) };
    // A handful of starting points covers gateways that are a change or two behind.
    if (known.size >= 8) known.delete(known.keys().next().value ?? "");
    known.set(from, encoded);
    return encoded;
  }

  #change(resource: string): void {
    this.#changed.add(resource);
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const changed = [...this.#changed];
      this.#changed.clear();
      for (const each of changed) for (const listener of this.#listeners.get(each) ?? []) listener();
    }, this.#debounceMs);
  }
}
