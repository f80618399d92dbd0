/**
 * A whole number as settings are written, in digits alone; throws for anything else. `10Gi`, `30d` and `0x20` begin with
 * another number than they mean.
 */
export function wholeNumber(text: string): number {
  const number = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(number)) throw new Error(`must be a whole number, in digits alone: ${text}`);
  return number;
}
