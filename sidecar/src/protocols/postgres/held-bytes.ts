/** The beginning of a message whose end has not come yet. */
export class HeldBytes {
  private parts: Buffer[] = [];
  private held = 0;
  private needs = 0;
  /** Where small chunks are put together, the last of the parts; `filled` bytes of it are. */
  private room: Buffer | undefined;
  private filled = 0;

  get isEmpty(): boolean {
    return this.held === 0;
  }

  /** Adds what came; gives everything back once the message can be read, and holds nothing then. */
  add(chunk: Buffer): Buffer | undefined {
    this.held += chunk.length;
    if (this.held < this.needs) {
      if (chunk.length < roomBytesMax) this.addSmall(chunk);
      else {
        this.endRoom();
        this.parts.push(chunk);
      }
      return undefined;
    }
    this.endRoom();
    this.parts.push(chunk);
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

  /** Whoever sends single bytes must not fill the memory with what each of them takes beside itself. */
  private addSmall(chunk: Buffer): void {
    if (this.room === undefined || this.filled + chunk.length > this.room.length) {
      this.endRoom();
      this.room = Buffer.allocUnsafeSlow(Math.min(roomBytesMax, this.needs - this.held + chunk.length));
      this.parts.push(this.room);
    }
    chunk.copy(this.room, this.filled);
    this.filled += chunk.length;
  }

  /** What of the room is filled is a part like the others. */
  private endRoom(): void {
    if (this.room !== undefined) this.parts[this.parts.length - 1] = this.room.subarray(0, this.filled);
    this.room = undefined;
    this.filled = 0;
  }
}

const roomBytesMax = 4096;
