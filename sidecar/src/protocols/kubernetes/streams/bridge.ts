/** What stands between a client's stream and the server's: it reads both, and can end them with a Status. */
import type { Status } from "../status.ts";

/** What stands between the two sides of an upgraded connection: bytes go in as they come, and out once they may. */
export interface StreamBridge {
  fromClient(chunk: Buffer): Promise<void> | undefined;
  fromUpstream(chunk: Buffer): Promise<void> | undefined;
  /** The server's side is over: shows what is held back. */
  upstreamEnded(): Promise<void> | undefined;
  /** Tells the client why its stream ends here. */
  cut(status: Status): void;
  /** The stream is over; says so in the recording. */
  close(why?: string): void;
}

/** Longest message that is read whole: a Status, a size. */
export const messageMax = 64 * 1024;
