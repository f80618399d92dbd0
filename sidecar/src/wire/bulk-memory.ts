import { setFlagsFromString } from "node:v8";

/**
 * Lets buffers count with the heap when V8 decides whether to collect. By default it marks the whole heap after every 64 MB
 * of them: a gateway that carries a stream is through with that in less than a second, and spent up to half of its
 * processor time on it. Newer versions of V8 do this by themselves. For protocols that carry streams.
 */
export function countBuffersWithTheHeap(): void {
  if (isSet) return;
  isSet = true;
  setFlagsFromString("--external-memory-accounted-in-global-limit");
}

let isSet = false;
