/**
 * The scenarios about sessions, cancel requests and limits once more, in front of a gateway of two processes: whichever
 * of them a connection reaches, all holds that holds for one. Counts over both are in horizontal.test.ts.
 */
import { describe } from "vitest";

process.env.SALLYPORT_TEST_PROCESSES = "2";

describe("two processes: a session's life", async () => {
  await import("./live-session.test.ts");
});
describe("two processes: limits", async () => {
  await import("./limits.test.ts");
});
describe("two processes: the list of protocol cases", async () => {
  await import("./protocol-cases.test.ts");
});
