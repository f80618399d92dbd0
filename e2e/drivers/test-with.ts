/** Tests that need a program which npm does not bring. */
import { describe, expect, test } from "vitest";

/** What a toolchain says of itself. */
export type Readiness =
  | { readonly kind: "ready" }
  | {
      readonly kind: "absent";
      readonly reason: string;
      /** True where .ci/run installs it: there its absence is a failure. */
      readonly isCis?: boolean;
    };

type Absent = Exclude<Readiness, { kind: "ready" }>;

/** A machine without the toolchain shows it as a skipped test that says why: what was not run never passes. */
export function testWith<Toolchain extends Readiness>(
  name: string,
  toolchain: Toolchain,
  body: (ready: Extract<Toolchain, { kind: "ready" }>) => Promise<void>,
  timeoutMs = 120_000,
): void {
  if (isReady(toolchain)) test(name, () => body(toolchain), timeoutMs);
  else notRun(name, toolchain as Absent);
}

/** The same for all tests of a group. */
export function describeWith(name: string, toolchain: Readiness, body: () => void): void {
  if (toolchain.kind === "ready") describe(name, body);
  else notRun(name, toolchain);
}

function isReady<Toolchain extends Readiness>(
  toolchain: Toolchain,
): toolchain is Extract<Toolchain, { kind: "ready" }> {
  return toolchain.kind === "ready";
}

function notRun(name: string, { reason, isCis }: Absent): void {
  if (isCis === true && process.env.CI) test(name, () => expect.fail(reason));
  else test.skip(`${name} (NOT RUN: ${reason})`, () => {});
}
