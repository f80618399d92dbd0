/** The ports of all other scenarios: two that get the same one fail, once in hundreds of runs. */
import { execFile } from "node:child_process";
import { createServer } from "node:net";
import { promisify } from "node:util";
import { expect, test, vi } from "vitest";
import { freePort } from "../targets/free-port.ts";

const run = promisify(execFile);

test("no port is given twice while whoever asked may still use it", async () => {
  // All ask for the same numbers in the same order.
  let at = 0;
  const random = vi.spyOn(Math, "random").mockImplementation(() => (Math.floor(at++ / 20) % 500) / 500);
  try {
    const ports = await Promise.all(Array.from({ length: 20 }, () => freePort()));
    expect(new Set(ports).size).toBe(20);
  } finally {
    random.mockRestore();
  }
});

test("a port that this process has is not another process's, and one on which somebody listens is nobody's", async () => {
  const server = createServer();
  const port = await freePort();
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  try {
    const free = await freePort();
    // It is offered those two again and again, and then a third.
    const text = `
      const { freePort } = await import(${JSON.stringify(import.meta.resolve("../targets/free-port.ts"))});
      const offered = [${port}, ${free}, ${port}, ${free}, 29_999];
      Math.random = () => ((offered.shift() ?? 29_000) - 12_000 + 0.5) / 18_000;
      console.log(await freePort());`;
    const { stdout } = await run(
      process.execPath,
      ["--import", import.meta.resolve("tsx"), "--input-type=module", "-e", text],
      { timeout: 60_000 },
    );
    expect([port, free]).not.toContain(Number(stdout));
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});
