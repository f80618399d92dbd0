import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * Below what Linux hands out by itself (from 32768) and below NodePorts (from 30000): nobody gets one of these who did not
 * ask for it by number.
 */
const [lowest, count] = [12_000, 18_000];
const triesMax = 200;

/**
 * A port on which nobody listens, for a server that is told its port. It stays this process's own until that ends: between
 * the question and the server's answer, seconds pass in which another test would get the same one.
 */
export async function freePort(): Promise<number> {
  mkdirSync(reservations, { recursive: true });
  for (let tries = 0; tries < triesMax; tries += 1) {
    const port = lowest + Math.floor(Math.random() * count);
    if (isReserved(port) && (await mayListen(port))) return port;
  }
  throw new Error(`none of ${triesMax} ports was free`);
}

const reservations = join(tmpdir(), `sallyport-test-ports-${process.getuid?.() ?? ""}`);
const own = new Set<string>();
process.once("exit", () => {
  for (const file of own) rmSync(file, { force: true });
});

/** Whether this process has it now. A file is the reservation, because only one process can make it. */
function isReserved(port: number): boolean {
  const file = join(reservations, String(port));
  try {
    writeFileSync(file, String(process.pid), { flag: "wx" });
    own.add(file);
    return true;
  } catch {
    // Whoever had it and was killed has left it behind: it is free for the next who asks, not for two at once.
    if (!isAlive(file)) rmSync(file, { force: true });
    return false;
  }
}

function isAlive(file: string): boolean {
  try {
    process.kill(Number(readFileSync(file, "utf8")), 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function mayListen(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, () => server.close(() => resolve(true)));
  });
}
