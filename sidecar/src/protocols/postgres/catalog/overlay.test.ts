import { expect, test } from "vitest";
import { Overlay } from "./overlay.ts";

/** The slow and obvious way: copies of the whole map. */
class Model {
  map = new Map<string, number>();
  start = new Map<string, number>();
  points: { name: string; map: Map<string, number> }[] = [];

  set(key: string, value: number | undefined): void {
    this.map = new Map(this.map);
    if (value === undefined) this.map.delete(key);
    else this.map.set(key, value);
  }

  at(name: string): number {
    return this.points.findLastIndex((point) => point.name === name);
  }

  end(map: Map<string, number>): void {
    this.map = map;
    this.start = map;
    this.points = [];
  }
}

test("it does what copies of the whole map would do, whatever comes in which order", () => {
  for (let seed = 1; seed <= 300; seed += 1) {
    let state = seed;
    const random = (below: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const overlay = new Overlay<number>((_, value) => value % 2 === 0);
    const model = new Model();
    for (let step = 0; step < 60; step += 1) {
      const name = `s${random(3)}`;
      const key = `k${random(5)}`;
      const action = random(12);
      if (action < 6) {
        const value = random(4) === 0 ? undefined : random(100);
        overlay.set(key, value);
        model.set(key, value);
      } else if (action < 8) {
        overlay.savepoint(name);
        model.points.push({ name, map: model.map });
      } else if (action === 8 && model.at(name) >= 0) {
        overlay.release(name);
        model.points.length = model.at(name);
      } else if (action === 9 && model.at(name) >= 0) {
        overlay.rollbackTo(name);
        model.points.length = model.at(name) + 1;
        model.map = model.points.at(-1)!.map;
      } else if (action === 10) {
        overlay.rollback();
        model.end(model.start);
      } else if (action === 11) {
        overlay.commit();
        model.end(new Map([...model.map].filter(([, value]) => value % 2 === 0)));
      }
      const ours = ["k0", "k1", "k2", "k3", "k4"].map((each) => overlay.get(each));
      const theirs = ["k0", "k1", "k2", "k3", "k4"].map((each) => model.map.get(each));
      expect(ours, `seed ${seed}, step ${step}`).toEqual(theirs);
      expect(overlay.size).toBe(model.map.size);
    }
  }
});

test("a session that changes more than is remembered is told so until its transaction ends", () => {
  const overlay = new Overlay<number>(() => true);
  for (let at = 0; at < 5000; at += 1) overlay.set(`k${at}`, at);
  expect(overlay.isOverflown).toBe(true);
  expect(overlay.size).toBeLessThan(5000);
  overlay.rollback();
  expect([overlay.isOverflown, overlay.size]).toEqual([false, 0]);
  for (let at = 0; at < 70_000; at += 1) overlay.set("same", at);
  expect(overlay.isOverflown).toBe(true);
});

test("a savepoint that was never seen means that something was missed", () => {
  const overlay = new Overlay<number>(() => true);
  overlay.rollbackTo("unseen");
  expect(overlay.isOverflown).toBe(true);
});
