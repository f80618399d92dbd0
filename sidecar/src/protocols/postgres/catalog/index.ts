/** What SQL names mean: the server's committed catalog, read by a side connection, under each session's own changes. */
export { LiveCatalog, type LiveCatalogOptions, readMsMax } from "./live-catalog.ts";
export { SessionNames, type SessionNamesOptions } from "./session-names.ts";
export type { CatalogSnapshot } from "./snapshot.ts";
