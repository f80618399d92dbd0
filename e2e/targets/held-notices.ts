/** What a client prints while its command is held, whatever the protocol. */

/** One notice as a person reads it. */
export interface HeldNotice {
  /** The approval. */
  readonly name: string;
  /** What is asked, in the policy's words. */
  readonly asked: string;
  /** Which rules ask, and how many people each wants. */
  readonly rules: string;
  readonly secondsLeft: number;
  /** The command that approves. */
  readonly how: string;
}

/** Every whole notice in what a client has printed so far. */
export function heldNoticesIn(printed: string): readonly HeldNotice[] {
  const whole =
    /held for approval (\S+): ([^\r\n]+)\r?\n(?:DETAIL: +)?Asked by ([^\r\n]+)\. Time left: (?:(\d+)m)?(\d+)s\.[^\r\n]*\r?\n(?:HINT: +)?An approver runs: ([^\r\n]+)/g;
  return [...printed.matchAll(whole)].map(
    ([, name = "", asked = "", rules = "", minutes = "0", seconds = "0", how = ""]) => ({
      ...{ name, asked, rules, how },
      secondsLeft: Number(minutes) * 60 + Number(seconds),
    }),
  );
}
