import { type BrokenGlass, type BrokenRule, controlLimits, oneLine } from "@sallyport/control";
import type { BreakGlassUse } from "../guard/index.ts";

/** Counts by rule how often one session went past approval by break-glass; its size does not grow with use. */
export class BreakGlassTally {
  #count = 0;
  /** The rule of the last time stands last. */
  #rules: Map<string, BrokenRule> | undefined;

  take({ policy, rule, reason }: BreakGlassUse): void {
    const key = `${policy}\n${rule}`;
    this.#rules ??= new Map();
    const rules = this.#rules;
    const count = (rules.get(key)?.count ?? 0) + 1;
    this.#count += 1;
    rules.delete(key);
    rules.set(key, {
      policy: policy.slice(0, 300),
      rule: rule.slice(0, 256),
      count,
      reason: oneLine(reason).slice(0, controlLimits.breakGlassReasonMax),
    });
    const [oldest] = rules.keys();
    if (rules.size > controlLimits.brokenRulesMax && oldest !== undefined) rules.delete(oldest);
  }

  /** What is told of it; undefined while there is nothing to tell. */
  get report(): BrokenGlass | undefined {
    return this.#rules && { count: this.#count, rules: [...this.#rules.values()].reverse() };
  }
}
