/** Tries what network policies should forbid: a pod without any right dials the protected servers' ports. */
export { Prober } from "./prober.ts";
