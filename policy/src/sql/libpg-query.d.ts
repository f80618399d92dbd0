/** The WebAssembly module inside libpg-query, reached directly so that an aborted instance can be replaced. */
declare module "libpg-query/wasm/libpg-query.js" {
  export interface PgQueryModule {
    _malloc(bytes: number): number;
    _free(pointer: number): void;
    _wasm_parse_query_raw(query: number): number;
    _wasm_free_parse_result(result: number): void;
    _wasm_parse_plpgsql(query: number): number;
    _wasm_scan(query: number): number;
    _wasm_free_string(pointer: number): void;
    UTF8ToString(pointer: number): string;
    /** All of its memory; replaced when it grows. */
    readonly HEAPU8: Uint8Array;
    getValue(pointer: number, type: "i32"): number;
  }
  const factory: (options?: Record<string, unknown>) => Promise<PgQueryModule>;
  // biome-ignore lint/style/noDefaultExport: the package exports so.
  export default factory;
}
