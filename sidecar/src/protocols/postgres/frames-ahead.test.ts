import { expect, test } from "vitest";
import { queryFrame, syncFrame, terminateFrame } from "./frames.ts";
import { FramesAhead } from "./frames-ahead.ts";

const behind = Buffer.concat([queryFrame("SELECT 'X'"), syncFrame, terminateFrame]);

test("finds Terminate behind other messages, wherever the stream is cut", () => {
  for (let cut = 0; cut <= behind.length; cut++) {
    const ahead = new FramesAhead();
    const seen = [ahead.sees(behind.subarray(0, cut)), ahead.sees(behind.subarray(cut))];
    expect(seen.includes(true), `cut at ${cut}`).toBe(true);
  }
});

test("takes no letter within a message for Terminate", () => {
  const ahead = new FramesAhead();
  const text = queryFrame("XXXXXXXXXXXX");
  for (const byte of text) expect(ahead.sees(Buffer.from([byte]))).toBe(false);
});
