import { constants, ftruncate, open, statfs } from "node:fs";
import { promisify } from "node:util";
import { diskStorage, type Storage } from "../recording/storage.ts";

const files = { open: promisify(open), ftruncate: promisify(ftruncate), statfs: promisify(statfs) };

/** The file system as the recorder's volume uses it: beside appending, going on with a file after a restart. */
export interface VolumeStorage extends Storage {
  open(path: string): Promise<number>;
  truncate(fd: number, bytes: number): Promise<void>;
  /** Bytes that may still be written to the volume of a folder. */
  free(folder: string): Promise<number>;
}

/** The real file system. */
export const volumeStorage: VolumeStorage = {
  ...diskStorage,
  open: (path) => files.open(path, constants.O_RDWR),
  truncate: (fd, bytes) => files.ftruncate(fd, bytes),
  async free(folder) {
    const { bavail, bsize } = await files.statfs(folder);
    return bavail * bsize;
  },
};
