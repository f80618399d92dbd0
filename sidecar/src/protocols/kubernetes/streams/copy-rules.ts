/** How the files of a copy meet policy: each is judged as the exec that moves it, with the file as a fact. */
import type { Verdict } from "@sallyport/policy";
import { type Refusal, refusal } from "../../../guard/index.ts";
import { statusOfRefusal } from "../answer.ts";
import { commandOf, type RequestFacts } from "../command.ts";
import { correlationId, type OpenSession } from "../connection.ts";
import type { Copying } from "../copying.ts";
import type { ApiRequest } from "../request.ts";
import { CopyGate, type JudgeCopied } from "./copy-gate.ts";

/** A file that may not be copied: the stream ends here, and its client is told this. */
export class CopyRefused extends Error {}

/** The copy whose files are judged. */
export interface JudgedCopy {
  readonly session: OpenSession;
  readonly request: ApiRequest;
  readonly facts: RequestFacts;
  readonly copying: Copying;
  readonly nowMs: () => number;
}

/** The gate that a copy passes; undefined where no rule names files. */
export function copyGate(copy: JudgedCopy): CopyGate | undefined {
  const { guard } = copy.session.admitted;
  return guard.namesFiles === undefined ? undefined : new CopyGate(copy.copying, judgeOf(copy));
}

/** Whether a copy that runs passes what policy wants to know of it now: each file judged, the one on its way included. */
export function mayGoOnCopying(
  copy: Omit<JudgedCopy, "copying" | "nowMs">,
  gate: CopyGate | undefined,
): boolean {
  const { session, request, facts } = copy;
  const { guard } = session.admitted;
  if (guard.namesFiles !== "Enforce") return true;
  // Nobody has looked at what went by, or an archive that is not read any more passes whole.
  if (gate === undefined || gate.isOpen) return false;
  const approved = approvedOf(copy);
  return gate.passing.every(
    (file) => guard.decide(commandOf(request, { ...facts, file }), undefined, approved).action === "Allow",
  );
}

/** What the command itself had to be asked for was given, or it would not run. */
function approvedOf({ session, request, facts }: Omit<JudgedCopy, "copying" | "nowMs">): ReadonlySet<string> {
  const asked = session.admitted.guard.decide(commandOf(request, facts)).asks ?? [];
  return new Set(asked.map(({ ruleText }) => ruleText));
}

function judgeOf(copy: JudgedCopy): JudgeCopied {
  const { session, request, facts, nowMs } = copy;
  const { guard } = session.admitted;
  const approved = approvedOf(copy);
  return (found) => {
    const isFile = !("unreadable" in found);
    if (!isFile && guard.namesFiles !== "Enforce") return undefined;
    const command = commandOf(request, isFile ? { ...facts, file: found } : facts);
    const verdict = isFile ? guard.decide(command, undefined, approved) : unreadable(found.unreadable);
    const text = isFile ? command.text : `${command.text} (an archive that cannot be judged)`;
    const record = { text, verdict, at: nowMs() };
    if (verdict.action === "Allow" || guard.isObserving) {
      const isTold = verdict.action !== "Allow" || verdict.audit.some(({ action }) => action !== "Allow");
      // What may pass anyhow does not wait for what is said of it: a record that fails is told by the streams' own.
      if (isTold) void Promise.resolve(guard.request(record, false)).catch(() => undefined);
      return undefined;
    }
    return async () => {
      const outcome = await guard.request(record, false);
      // Only an Allow is permitted: what is said here is what stops the stream in any case.
      const refused: Refusal = outcome.kind === "refusal" ? outcome : refusal("denied", verdict.message);
      const id = correlationId();
      guard.note("refused", { id, code: refused.code, request: text.slice(-200) });
      const rule =
        verdict.rule === undefined ? "" : ` by rule ${verdict.rule.rule} of policy ${verdict.rule.policy}`;
      const what = isFile
        ? `${JSON.stringify(found.path)} of ${found.size} bytes is not copied${rule}: `
        : "";
      throw new CopyRefused(
        statusOfRefusal({ ...refused, message: what + refused.message }, request, id).message,
      );
    };
  };
}

function unreadable(why: string): Verdict {
  return {
    action: "Deny",
    message: `rules name files, and this archive cannot be judged by them: ${why}`,
    limits: {},
    audit: [],
    cacheable: false,
    enforcement: "heuristic",
  };
}
