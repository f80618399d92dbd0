/** Gives gateways before their own cluster's API server the right to speak for users, and takes it away again. */
export { keepBindings } from "./keeper.ts";
