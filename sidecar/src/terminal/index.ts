/**
 * Terminals, whatever protocol carries them: how their output is masked, kept as asciicast v2, and shown again without
 * what could harm the terminal of whoever looks. This folder opens no socket and knows no protocol.
 */
export { type AsciicastEvent, AsciicastWriter } from "./asciicast.ts";
export { HoldBack, type HoldBackOptions } from "./hold-back.ts";
export { OutputMask, type OutputMaskRule, OutputPatterns } from "./output-mask.ts";
export { TerminalSanitiser } from "./sanitise.ts";
