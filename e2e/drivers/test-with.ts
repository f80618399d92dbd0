/** Tests that need a program which npm does not bring. */
import { test } from "vitest";

/** What a toolchain says of itself. */
export type Readiness = { readonly kind: "ready" } | { readonly kind: "absent"; readonly reason: string };

/** A machine without the toolchain shows it as a skipped test that says why: what was not run never passes. */
export function testWith<Ready extends { readonly kind: "ready" }>(
  name: string,
  toolchain: Ready | Exclude<Readiness, { kind: "ready" }>,
  body: (ready: Ready) => Promise<void>,
  timeoutMs = 120_000,
): void {
  if (toolchain.kind === "ready") test(name, () => body(toolchain), timeoutMs);
  else test.skip(`${name} (NOT RUN: ${toolchain.reason})`, () => {});
}
