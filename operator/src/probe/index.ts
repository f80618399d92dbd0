/** Tries what network policies should forbid: a pod without any right dials the protected servers' ports. */
export { ExecProber } from "./exec-prober.ts";
export { Prober } from "./prober.ts";
