/** For scenarios that speak SSH as no honest client would. */
export { hostKeysFrom, judgeHostKey } from "./host-keys.ts";
export { derivedKey, hostKeysOf, signingKeyOf } from "./keys.ts";
export { logIn } from "./log-in.ts";
export { encoded, type Field, made, message, Reader } from "./messages.ts";
export { Transport } from "./transport.ts";
