/**
 * Loaded into a gateway before anything else: its calendar clock jumps to where a file says, whenever SIGUSR2 comes. The
 * monotonic clock goes on, as it does when somebody sets a machine's time.
 */
import { readFileSync } from "node:fs";

const file = process.env.SALLYPORT_TEST_CLOCK ?? "";
const Real = Date;
let offsetMs = 0;

class Moved extends Real {
  constructor(...values: readonly unknown[]) {
    if (values.length === 0) super(Real.now() + offsetMs);
    else super(...(values as [number]));
  }

  static override now(): number {
    return Real.now() + offsetMs;
  }
}

globalThis.Date = Moved as DateConstructor;
process.on("SIGUSR2", () => {
  offsetMs = Number(readFileSync(file, "utf8"));
  process.stderr.write(`the clock is ${offsetMs} ms ahead\n`);
});
