import { setFlagsFromString } from "node:v8";

/**
 * WebAssembly keeps its first, quick code. The SQL parser holds one function of 100 kB, and V8 takes 610 MB to optimise
 * it, for a second or two in the background of a gateway's first hundred statements: more than everything else together,
 * and the end of a process whose pod has less. No budget puts it off: each grammar rule jumps back through 200 kB of
 * code, which count as run. What would be won is at most half of the 5 to 15 µs of parsing in what a statement costs
 * when it is seen for the first time. The one other module, for a cipher of SSH that is not offered, is never run. Call it
 * before the parser is loaded.
 */
export function keepParserAsCompiled(): void {
  setFlagsFromString("--no-wasm-dynamic-tiering");
  setFlagsFromString("--no-wasm-tier-up");
}
