/** Answers whose objects are masked on their way: read as JSON, an object at a time where they are a watch. */
import { Transform } from "node:stream";
import { type HiddenFields, masked } from "./object-mask.ts";
import { parsed } from "./upstream.ts";

/** Longest answer that is read whole to be masked, and longest event of a watch. */
const answerBytesMax = 32 * 1024 * 1024;

/** Masks an answer: `lines` for a watch, whose events each end with a newline. */
export function maskingTransform(hidden: HiddenFields, isWatch: boolean): Transform {
  const waiting: Buffer[] = [];
  let length = 0;
  const take = (bytes: Buffer): Buffer => {
    const whole = Buffer.concat([...waiting, bytes]);
    waiting.length = 0;
    length = 0;
    if (whole.toString("utf8").trim() === "") return whole;
    const value = parsed(whole);
    // What cannot be read cannot be masked, so it is not shown.
    if (value === undefined) throw new Error("the answer cannot be masked");
    return Buffer.from(`${JSON.stringify(masked(value, hidden))}${isWatch ? "\n" : ""}`);
  };
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      try {
        let rest = chunk;
        for (let at = isWatch ? rest.indexOf(0x0a) : -1; at >= 0; at = rest.indexOf(0x0a)) {
          this.push(take(rest.subarray(0, at + 1)));
          rest = rest.subarray(at + 1);
        }
        length += rest.length;
        if (length > answerBytesMax) throw new Error("the answer is too large to be masked");
        if (rest.length > 0) waiting.push(rest);
        done();
      } catch (error) {
        done(error as Error);
      }
    },
    flush(done) {
      try {
        if (length > 0) this.push(take(Buffer.alloc(0)));
        done();
      } catch (error) {
        done(error as Error);
      }
    },
  });
}
