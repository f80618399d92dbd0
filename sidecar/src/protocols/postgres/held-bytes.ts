/** The beginning of a message whose end has not come yet. */
export class HeldBytes {
  private parts: Buffer[] = [];
  private held = 0;
  private needs = 0;

  get isEmpty(): boolean {
    return this.held === 0;
  }

  /** Adds what came; gives everything back once the message can be read, and holds nothing then. */
  add(chunk: Buffer): Buffer | undefined {
    this.parts.push(chunk);
    this.held += chunk.length;
    if (this.held < this.needs) return undefined;
    const whole = Buffer.concat(this.parts, this.held);
    this.parts = [];
    this.held = 0;
    return whole;
  }

  /** Keeps what follows `at` until there are `needs` bytes of it. */
  hold(chunk: Buffer, at: number, needs: number): void {
    // A copy: the few bytes must not keep the rest of their chunk in memory.
    const rest = at === 0 ? chunk : Buffer.from(chunk.subarray(at));
    this.parts.push(rest);
    this.held = rest.length;
    this.needs = needs;
  }
}
