/** Collects what a statement does into the parts that policy judges, merging those that differ in objects only. */
import type { CommandPart, Enforcement, ObjectRef, Operation } from "../model.ts";

interface OpenPart {
  readonly operation: Operation;
  readonly words: readonly string[];
  readonly objects: Map<string, ObjectRef>;
  readonly unbounded: boolean;
  readonly looks?: true;
  readonly enforcement: Enforcement;
}

/** What one addition says. */
export interface PartFacts {
  readonly operation: Operation;
  readonly words: readonly string[];
  readonly objects: readonly ObjectRef[];
  readonly unbounded?: boolean;
  readonly looks?: boolean;
  readonly enforcement?: Enforcement;
}

/** The parts of one statement while they are being found. */
export class PartBuilder {
  /** How many additions were made; tells a caller whether a body did anything. */
  additions = 0;
  readonly #parts = new Map<string, OpenPart>();

  add(facts: PartFacts): void {
    this.additions += 1;
    const unbounded = facts.unbounded ?? false;
    const enforcement = facts.enforcement ?? "authoritative";
    const key = `${facts.operation}|${facts.words.join(",")}|${unbounded}|${facts.looks ?? false}|${enforcement}`;
    let part = this.#parts.get(key);
    if (part === undefined) {
      const looks = facts.looks ? ({ looks: true } as const) : {};
      part = {
        ...{ operation: facts.operation, words: facts.words, objects: new Map() },
        ...{ unbounded, ...looks, enforcement },
      };
      this.#parts.set(key, part);
    }
    for (const object of facts.objects) {
      const objectKey = `${object.kind}|${object.name}`;
      const known = part.objects.get(objectKey);
      // Named once and reached once more: the stricter of both, which is the name in the statement.
      if (known === undefined || (!known.direct && object.direct)) part.objects.set(objectKey, object);
    }
  }

  build(): readonly CommandPart[] {
    return [...this.#parts.values()].map((part) => ({ ...part, objects: [...part.objects.values()] }));
  }
}
