import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

/** Prints how often the whole heap was collected while 1.5 GB went through a few buffers at a time. */
const program = `
import { createCipheriv, randomBytes } from "node:crypto";
import { PerformanceObserver } from "node:perf_hooks";
if (process.argv[1] === "counted") {
  const { countBuffersWithTheHeap } = await import(${JSON.stringify(join(import.meta.dirname, "bulk-memory.ts"))});
  countBuffersWithTheHeap();
}
let majors = 0;
new PerformanceObserver((list) => {
  for (const { detail } of list.getEntries()) if (detail.kind === 4) majors += 1;
}).observe({ entryTypes: ["gc"] });
const cipher = createCipheriv("aes-128-ctr", randomBytes(16), randomBytes(16));
const waiting = [];
const chunk = Buffer.alloc(32 * 1024);
for (let round = 0; round < 48; round += 1) {
  for (let index = 0; index < 1024; index += 1) {
    waiting.push(cipher.update(chunk));
    if (waiting.length > 256) waiting.shift();
  }
  await new Promise((resolve) => setImmediate(resolve));
}
console.log(JSON.stringify({ majors, megabytes: process.memoryUsage().rss / 1024 / 1024 }));
`;

async function collections(...args: readonly string[]): Promise<{ majors: number; megabytes: number }> {
  const options = { timeout: 60_000 };
  const argv = ["--input-type=module", "-e", program, ...args];
  return JSON.parse((await promisify(execFile)(process.execPath, argv, options)).stdout);
}

test("a stream of buffers is collected without marking the heap again and again, and memory stays bounded", async () => {
  const plain = await collections();
  const counted = await collections("counted");
  // How many there are of either sort hangs on the machine's moment (15 to 20, and 0 to 6); that there are fewer does not.
  expect(counted.majors).toBeLessThan((plain.majors * 3) / 4);
  expect(counted.megabytes).toBeLessThan(400);
}, 120_000);
