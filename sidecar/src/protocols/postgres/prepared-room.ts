import type { Limits } from "../../wire/limits.ts";
import { type SqlRefusal, tooManyPortals, tooManyPrepared, tooMuchText } from "./refusals.ts";
import type { SessionState } from "./session-state.ts";
import type { Judged } from "./statement-judge.ts";

/** Bounds what one session keeps in the gateway: statements, portals, and the texts of both. */
export class PreparedRoom {
  private readonly state: SessionState;
  private readonly limits: Limits;

  constructor(state: SessionState, limits: Limits) {
    this.state = state;
    this.limits = limits;
  }

  /**
   * Why no more statements can be kept; those that SQL prepares count. There is always room for the unnamed one: what
   * closes others may be sent as one.
   */
  refusalOf(name: string, judged: Judged): SqlRefusal | undefined {
    const { statements } = this.state;
    let size = statements.size + (name === "" || statements.newest(name) !== undefined ? 0 : 1);
    if (judged.changesNames) for (const { kind } of judged.effects.flat()) if (kind === "prepare") size += 1;
    if (size > statements.size && size > this.limits.preparedMax) return tooManyPrepared(this.limits);
    if (name === "" && size === statements.size) return undefined;
    return this.hasRoomForText(judged, judged.text.length) ? undefined : tooMuchText(this.limits);
  }

  /** Why no more portals can be kept; one takes the place of the unnamed one before it. */
  refusalOfPortal(name: string, judged: Judged): SqlRefusal | undefined {
    if (name === "") return undefined;
    if (this.state.portals.size >= this.limits.preparedMax) return tooManyPortals(this.limits);
    return this.hasRoomForText(judged, 0) ? undefined : tooMuchText(this.limits);
  }

  /** Short texts are bounded by their number: only a long one is worth a look at all. */
  private hasRoomForText({ text }: Judged, more: number): boolean {
    if (text.length <= shortTextLength) return true;
    const { statements, portals } = this.state;
    return statements.textLength(portals) + more <= this.limits.preparedTextMax;
  }
}

/** Ten thousand texts of this length are no more than one session may cost. */
const shortTextLength = 8_192;
