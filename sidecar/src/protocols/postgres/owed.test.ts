import fc from "fast-check";
import { expect, test } from "vitest";
import { Owed, OwedQueue } from "./owed.ts";

test("what is owed comes out in the order sent, however the ring turns and grows", () => {
  const step = fc.oneof(fc.constant("push"), fc.constant("shift"), fc.constant("look"));
  fc.assert(
    fc.property(fc.array(fc.tuple(step, fc.nat(20)), { maxLength: 200 }), (steps) => {
      const queue = new OwedQueue();
      const plain: Owed[] = [];
      for (const [what, count] of steps) {
        for (let time = 0; time < (what === "look" ? 1 : count); time += 1) {
          const entry = new Owed("describe", time);
          entry.changesNames = time % 3 === 0;
          if (what === "push") {
            queue.push(entry);
            plain.push(entry);
          } else if (what === "shift") expect(queue.shift()).toBe(plain.shift());
        }
        expect(queue.first()).toBe(plain[0]);
        expect(queue.at(count)).toBe(plain[count]);
        expect(queue.length).toBe(plain.length);
        expect(queue.unsettled).toBe(plain.filter(({ changesNames }) => changesNames).length);
      }
    }),
  );
});
