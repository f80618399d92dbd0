/**
 * Makes recorded output safe to show on a terminal: colours, cursor moves and erasing pass, everything that could
 * reach beyond the screen does not: titles, the clipboard (OSC 52), links, device and status queries (whose answers
 * would be typed into the viewer's shell), printing, window operations, mode changes but of the screen itself.
 * States as in ECMA-48; a sequence may be cut anywhere between chunks.
 */
type State = "text" | "escape" | "intermediate" | "csi" | "string" | "stringEscape";

/** Longest control sequence that is kept; a longer one is dropped. */
const sequenceLengthMax = 64;

/** One stream of recorded output; holds the beginning of a sequence between chunks. */
export class TerminalSanitiser {
  #state: State = "text";
  #sequence = "";

  /** What of `text` may be shown. */
  push(text: string): string {
    let shown = "";
    for (const character of text) shown += this.#take(character);
    return shown;
  }

  #take(character: string): string {
    switch (this.#state) {
      case "text":
        return this.#inText(character);
      case "escape":
        return this.#afterEscape(character);
      case "intermediate":
        // `ESC ( B` and the like: two or three characters, the last of which ends it.
        if (character >= "0" && character <= "~") this.#state = "text";
        return this.#aborted(character);
      case "csi":
        return this.#inCsi(character);
      case "string":
        if (character === "\u0007" || character === "\u009c") this.#state = "text";
        else if (character === "\u001b") this.#state = "stringEscape";
        return "";
      case "stringEscape":
        if (character === "\\") this.#state = "text";
        else if (character !== "\u001b") this.#state = "string";
        return "";
    }
  }

  #inText(character: string): string {
    if (character === "\u001b") {
      this.#state = "escape";
      return "";
    }
    if (character === "\u009b") {
      this.#state = "csi";
      this.#sequence = "";
      return "";
    }
    // DCS, SOS, OSC, PM and APC as single characters.
    if (/[\u0090\u0098\u009d\u009e\u009f]/.test(character)) {
      this.#state = "string";
      return "";
    }
    if (/[\n\r\t\b]/.test(character)) return character;
    if (unprintable.test(character)) return "";
    return character;
  }

  #afterEscape(character: string): string {
    if (character === "[") {
      this.#state = "csi";
      this.#sequence = "";
      return "";
    }
    if (/[\]PX^_]/.test(character)) {
      this.#state = "string";
      return "";
    }
    if (character >= " " && character <= "/") {
      this.#state = "intermediate";
      return "";
    }
    if (character === "\u001b") return "";
    this.#state = "text";
    // Save and restore the cursor, index, next line, reverse index.
    return /[78DEM]/.test(character) ? `\u001b${character}` : "";
  }

  #inCsi(character: string): string {
    if (character >= "@" && character <= "~") {
      this.#state = "text";
      const sequence = `${this.#sequence}${character}`;
      return harmless.test(sequence) && sequence.length <= sequenceLengthMax ? `\u001b[${sequence}` : "";
    }
    if (character < " ") return this.#aborted(character);
    if (this.#sequence.length <= sequenceLengthMax) this.#sequence += character;
    return "";
  }

  /** CAN, SUB and ESC end any sequence. */
  #aborted(character: string): string {
    if (character === "\u001b") this.#state = "escape";
    else if (character === "\u0018" || character === "\u001a") this.#state = "text";
    return "";
  }
}

/**
 * Cursor moves, erasing, scrolling, insertion, colours (SGR), scroll region, and of the private modes: cursor keys
 * aside, showing the cursor, wrap and the alternate screen. Not `n`, `c`, `t`, `i`, `q`, `p`, `x`, `y`: they answer or act.
 */
const harmless = /^(?:[\d;]*[ABCDEFGHJKLMPSTXZ`abdefr@su]|[\d;:]*m|\?(?:7|25|47|1047|1048|1049)[hl])$/;

/** Controls, formats (bidirectional ones among them), surrogates, private and unassigned characters, separators. */
const unprintable = /[\p{C}\p{Zl}\p{Zp}]/u;
