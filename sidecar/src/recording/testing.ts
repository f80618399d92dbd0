/** Fakes for the recorder's tests: a disk that fails on request, and recordings to work on. */
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Identity, Verdict } from "@sallyport/policy";
import type { CommandRecord, SessionOpening } from "./model.ts";
import { diskStorage, type Storage } from "./storage.ts";

/** A real disk in front of which a test can put failures. */
export interface FailingStorage extends Storage {
  /** Bytes that may still be written before writes fail with ENOSPC, the last one having been cut short. */
  bytesLeft: number;
  /** Error code that every sync fails with. */
  syncError: string | undefined;
  /** Only files whose path contains this are concerned. */
  only: string;
  /** While set, writes and syncs wait for it. */
  held: Promise<void> | undefined;
  readonly synced: string[];
}

/** Makes a disk that works until it is told not to. */
export function failingStorage(): FailingStorage {
  const paths = new Map<number, string>();
  const concerned = (fd: number) => paths.get(fd)?.includes(storage.only) ?? true;
  const storage: FailingStorage = {
    ...diskStorage,
    bytesLeft: Number.POSITIVE_INFINITY,
    syncError: undefined,
    only: "",
    held: undefined,
    synced: [],
    async create(path) {
      if (storage.bytesLeft === 0 && path.includes(storage.only)) throw systemError("ENOSPC");
      const fd = await diskStorage.create(path);
      paths.set(fd, path);
      return fd;
    },
    async write(fd, bytes, position) {
      await storage.held;
      if (!concerned(fd)) return diskStorage.write(fd, bytes, position);
      if (storage.bytesLeft === 0) throw systemError("ENOSPC");
      const taken = bytes.subarray(0, Math.min(bytes.length, storage.bytesLeft));
      storage.bytesLeft -= taken.length;
      return diskStorage.write(fd, taken, position);
    },
    async sync(fd) {
      await storage.held;
      if (storage.syncError && concerned(fd)) throw systemError(storage.syncError);
      await diskStorage.sync(fd);
      storage.synced.push(paths.get(fd) ?? "");
    },
  };
  return storage;
}

/** An error as the system gives it. */
export function systemError(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: as a test wanted`), { code });
}

/** A new folder for recordings, and what removes it. */
export async function recordingFolder(): Promise<{
  readonly folder: string;
  readonly copy: () => Promise<string>;
  readonly remove: () => Promise<void>;
}> {
  const root = await mkdtemp(join(tmpdir(), "recording-"));
  const folder = join(root, "recordings");
  let copies = 0;
  return {
    folder,
    async copy() {
      const target = join(root, `copy-${copies++}`);
      await cp(folder, target, { recursive: true });
      // The process that had the lock is dead in what a crash leaves behind.
      await rm(join(target, "writer.lock"), { force: true });
      return target;
    },
    remove: () => rm(root, { recursive: true, force: true }),
  };
}

const analyst: Identity = {
  provider: "local",
  user: "local:alice",
  groups: ["local:analysts"],
  kind: "Human",
  claims: { email: "alice@example.com", secret: "claim-value" },
  tokenId: "jti-1",
};

/** An opening for a session. */
export function opening(sessionId: string, change: Partial<SessionOpening> = {}): SessionOpening {
  return {
    sessionId,
    namespace: "shop",
    resource: "orders-db",
    protocol: "postgres",
    identity: analyst,
    account: "app",
    database: "shop",
    clientAddress: "10.0.0.7:51344",
    startedAt: new Date().toISOString(),
    ...change,
  };
}

const allowed: Verdict = {
  action: "Allow",
  rule: { policy: "shop/analysts", rule: "profile/ReadOnly", enforcement: "authoritative" },
  message: "",
  limits: {},
  audit: [],
  cacheable: true,
  enforcement: "authoritative",
};

/** A command that policy allowed. */
export function allowedCommand(text: string): CommandRecord {
  return { text, verdict: allowed, at: Date.now() };
}

/** A command that policy denied. */
export function deniedCommand(text: string): CommandRecord {
  return { text, verdict: { ...allowed, action: "Deny", message: "no unbounded writes" }, at: Date.now() };
}

/** Waits until a condition holds; the test's own time limit ends the wait. */
export async function until(isTrue: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isTrue())) await new Promise((resolve) => setTimeout(resolve, 5));
}
