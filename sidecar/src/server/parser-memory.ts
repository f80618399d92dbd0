import { setFlagsFromString } from "node:v8";

/** What optimising the SQL parser's largest function takes for two seconds, and room for what else there is. */
const roomForOptimising = 1024 * 1024 * 1024;

/**
 * Where memory is short, WebAssembly keeps its first, quick code. The SQL parser holds one function of 100 kB, and V8
 * takes 610 MB to optimise it, in the background of a gateway's first statements; what is won is half of the 70 µs that
 * a statement takes when it is seen for the first time. Call it before the parser is loaded.
 */
export function spareOptimisingMemory(memoryBytes: number): void {
  if (memoryBytes === 0 || memoryBytes >= roomForOptimising) return;
  setFlagsFromString("--no-wasm-dynamic-tiering");
  setFlagsFromString("--no-wasm-tier-up");
}
