/** The file system as the recorder uses it: few calls, so that a test can let each of them fail. */
import { close, constants, fdatasync, fsync, mkdir, open, read, unlink, write } from "node:fs";
import { dirname } from "node:path";
import { promisify } from "node:util";

const files = {
  open: promisify(open),
  close: promisify(close),
  mkdir: promisify(mkdir),
  fsync: promisify(fsync),
  fdatasync: promisify(fdatasync),
  unlink: promisify(unlink),
};

/** What the recorder asks of a file system. */
export interface Storage {
  /** Creates a file that must not exist yet, and the folders above it. */
  create(path: string): Promise<number>;
  /** Writes at a position and returns how many bytes were taken, which may be fewer than given. */
  write(fd: number, bytes: Uint8Array, position: number): Promise<number>;
  read(fd: number, bytes: Uint8Array, position: number): Promise<number>;
  sync(fd: number): Promise<void>;
  /** Makes the file's name itself survive a loss of power. */
  syncFolder(path: string): Promise<void>;
  close(fd: number): Promise<void>;
  remove(path: string): Promise<void>;
  /** True where a failed sync leaves nothing in doubt, because what was not synced is kept and sent again. */
  readonly keepsUnsynced?: boolean;
}

/** The real file system; files and folders are the owner's alone. */
export const diskStorage: Storage = {
  async create(path) {
    const firstMade = await files.mkdir(dirname(path), { recursive: true, mode: 0o700 });
    if (firstMade !== undefined) {
      for (let folder = dirname(path); folder.length >= firstMade.length; folder = dirname(folder)) {
        await diskStorage.syncFolder(dirname(folder));
      }
    }
    return files.open(path, constants.O_CREAT | constants.O_EXCL | constants.O_RDWR, 0o600);
  },
  write: (fd, bytes, position) =>
    new Promise((resolve, reject) => {
      write(fd, bytes, 0, bytes.length, position, (error, written) =>
        error ? reject(error) : resolve(written),
      );
    }),
  read: (fd, bytes, position) =>
    new Promise((resolve, reject) => {
      read(fd, bytes, 0, bytes.length, position, (error, count) => (error ? reject(error) : resolve(count)));
    }),
  sync: (fd) => files.fdatasync(fd),
  async syncFolder(path) {
    const fd = await files.open(path, constants.O_RDONLY);
    try {
      await files.fsync(fd);
    } finally {
      await files.close(fd);
    }
  },
  close: (fd) => files.close(fd),
  remove: (path) => files.unlink(path),
};
