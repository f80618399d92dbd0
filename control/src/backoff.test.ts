import { expect, test } from "vitest";
import { Backoff } from "./backoff.ts";

test("waits double up to the longest, each between half and whole, and begin anew after a success", () => {
  const backoff = new Backoff(100, 350);
  for (const whole of [100, 200, 350, 350]) {
    const ms = backoff.nextMs();
    expect(ms).toBeGreaterThanOrEqual(whole / 2);
    expect(ms).toBeLessThanOrEqual(whole);
  }
  backoff.reset();
  expect(backoff.nextMs()).toBeLessThanOrEqual(100);
});

test("a pause ends at once where no more attempt is wanted, before or meanwhile", async () => {
  const backoff = new Backoff(3_600_000, 3_600_000);
  const stopping = new AbortController();
  const pause = backoff.pause(stopping.signal);
  stopping.abort();
  await pause;
  await backoff.pause(stopping.signal);
});
