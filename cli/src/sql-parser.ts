/** The SQL parser for one command: never optimised, as in a gateway, since that would take more memory than all else. */
export async function readySqlParser(): Promise<void> {
  const { keepParserAsCompiled } = await import("@sallyport/sidecar/parser-memory");
  keepParserAsCompiled();
  const { loadSqlParser } = await import("@sallyport/policy");
  await loadSqlParser();
}
