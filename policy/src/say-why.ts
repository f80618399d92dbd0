/** How whoever speaks a protocol tells the gateway why they do what follows; undefined where nobody can. */
export function howToSayWhy(protocol: string): string | undefined {
  return ways.get(protocol);
}

const ways: ReadonlyMap<string, string> = new Map([
  ["postgres", "SET sallyport.reason = '...'"],
  ["ssh", 'SALLYPORT_REASON="..." ssh -o SendEnv=SALLYPORT_REASON ...'],
  ["kubernetes", 'kubectl --as=me --as-user-extra=sallyport-reason="..."'],
]);
