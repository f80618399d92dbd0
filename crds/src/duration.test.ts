import { expect, test } from "vitest";
import { durationMs } from "./duration.ts";

test.each([
  ["90s", 90_000],
  ["1h30m", 5_400_000],
  ["250ms", 250],
  ["30d", 2_592_000_000],
  ["0s", 0],
])("%s is %d ms", (text, ms) => expect(durationMs(text)).toBe(ms));

test.each(["", "90", "s", "-1s", "1.5h", "1 h", "1w", "9999999s", "1s\n", "10m "])(
  "%j is no duration",
  (text) => expect(durationMs(text)).toBeUndefined(),
);
