/** Durations as manifests write them. */

const units: Readonly<Record<string, number>> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86400 };

/** Seconds of `90s`, `1h30m` or `0s`; undefined where the text is not a duration. */
export function secondsOf(text: string): number | undefined {
  if (!/^(0|(\d{1,9}(ms|[smhd])){1,8})$/.test(text)) return undefined;
  let seconds = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+)(ms|[smhd])/g))
    seconds += Number(amount) * (units[unit ?? ""] ?? 0);
  return seconds;
}
