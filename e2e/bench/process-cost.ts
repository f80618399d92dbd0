/** What a process costs, as Linux counts it under /proc. */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";

/** Microseconds of processor time that a process has used, in user and kernel mode. */
export async function processorMicroseconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // The name, in parentheses, may hold blanks; utime and stime are the 14th and 15th field.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * microsecondsOfTick;
}

/** The same of the first thread alone, and to the nanosecond: what one statement costs shows in it. */
export async function mainThreadMicroseconds(pid: number): Promise<number> {
  const [nanoseconds] = (await readFile(`/proc/${pid}/schedstat`, "utf8")).split(" ");
  return Number(nanoseconds) / 1000;
}

/** The same of this process's own first thread. */
export function ownMicroseconds(): number {
  // Asking for the usage makes the kernel count what runs at this moment, too.
  process.cpuUsage();
  const [nanoseconds] = readFileSync("/proc/self/schedstat", "utf8").split(" ");
  return Number(nanoseconds) / 1000;
}

/** Resident memory in KB. */
export async function residentKilobytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? Number.NaN);
}

/** Resident memory once it has stopped falling and growing: the first of three readings within 1 %, or the last. */
export async function settledResidentKilobytes(pid: number, secondsMax = 15): Promise<number> {
  let steady = 0;
  let last = await residentKilobytes(pid);
  for (let second = 0; second < secondsMax && steady < 3; second++) {
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const now = await residentKilobytes(pid);
    steady = Math.abs(now - last) <= last / 100 ? steady + 1 : 0;
    last = now;
  }
  return last;
}

/** USER_HZ is 100 on every Linux that Node runs on. */
const microsecondsOfTick = 10_000;
