/** Inner modules of ssh2, which brings no types; `library.ts` says what they are. */
declare module "ssh2/lib/protocol/Protocol.js" {
  const value: unknown;
  export = value;
}
declare module "ssh2/lib/protocol/utils.js" {
  const value: unknown;
  export = value;
}
declare module "ssh2/lib/protocol/keyParser.js" {
  const value: unknown;
  export = value;
}
