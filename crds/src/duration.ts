/** Milliseconds of a duration as manifests write it (`90s`, `1h30m`); undefined for text that is none. */
export function durationMs(text: string): number | undefined {
  if (!/^(?:[0-9]{1,6}(?:ms|s|m|h|d)){1,5}$/.test(text)) return undefined;
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/([0-9]+)(ms|s|m|h|d)/g)) {
    total += Number(amount) * (units.get(unit ?? "") ?? 0);
  }
  return total;
}

const units: ReadonlyMap<string, number> = new Map([
  ["ms", 1],
  ["s", 1000],
  ["m", 60_000],
  ["h", 3_600_000],
  ["d", 86_400_000],
]);
