import type { KeyObject } from "node:crypto";
import { join } from "node:path";
import { JournalFile } from "../recording/journal-file.ts";
import { logJournal } from "../recording/journal-format.ts";
import { type LogRecord, logFolder, logLine } from "../recording/log-records.ts";
import type { PublishedHead } from "../recording/model.ts";
import type { Storage } from "../recording/storage.ts";

/**
 * The recorder's log of sessions: every block is chained, signed and synced before anybody is told. What is noted of
 * a gateway's journal in it (its length and hash) is thereby countersigned.
 */
export class SessionLog {
  readonly name: string;
  readonly #file: JournalFile;
  readonly #key: KeyObject;
  #waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];
  #pumping: Promise<void> | undefined;
  #isUnsynced = false;

  constructor(options: { storage: Storage; folder: string; name: string; key: KeyObject }) {
    this.name = options.name;
    this.#key = options.key;
    const path = join(options.folder, logFolder, `${options.name}.journal`);
    this.#file = new JournalFile(options.storage, path, logJournal(options.name));
  }

  /** The last place of the log that is on disk. */
  get head(): PublishedHead | undefined {
    const { block, hash } = this.#file.syncedHead;
    return block < 0 ? undefined : { log: this.name, block, hash };
  }

  /** Takes records; resolves when they are on disk, together with what others noted meanwhile. */
  note(...records: readonly LogRecord[]): Promise<void> {
    for (const record of records) this.#file.append(logLine(record));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#pumping ??= this.#pump();
    });
  }

  /** Says that the log ends here, and closes it. */
  async stop(at: number): Promise<void> {
    await this.#pumping;
    this.#file.append(logLine({ kind: "stopped", at }));
    await this.#file.write(() => ({ key: this.#key, final: true }));
    await this.#file.sync();
    await this.#file.close();
  }

  async #pump(): Promise<void> {
    // Whoever notes something in this turn goes into the same block.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#waiting.length > 0) {
      const told = this.#waiting;
      this.#waiting = [];
      try {
        do {
          this.#isUnsynced = true;
          await this.#file.write(() => ({ key: this.#key }));
        } while (this.#file.buffered > 0);
        if (this.#isUnsynced) await this.#file.sync();
        this.#isUnsynced = false;
        for (const { resolve } of told) resolve();
      } catch (error) {
        // The lines stay and are written with what is noted next; a record that stands twice says nothing else.
        for (const { reject } of told) reject(error as Error);
      }
    }
    this.#pumping = undefined;
  }
}
