/** A command's recorded streams as asciicast v2, for players; without what could harm the terminal that plays it. */
import type { Recorded } from "@sallyport/sidecar";

/** Lines of an asciicast for what command `number` printed, or for the first command that printed anything. */
export async function* asciicastLines(
  records: AsyncIterable<Recorded> | Iterable<Recorded>,
  number: number | undefined,
): AsyncGenerator<string, void, undefined> {
  const { AsciicastWriter, TerminalSanitiser } = await import("@sallyport/sidecar/terminal");
  const sizes = new Map<number, { readonly width: number; readonly height: number; readonly term: string }>();
  const sanitisers = { o: new TerminalSanitiser(), e: new TerminalSanitiser() };
  const decoders = { o: new TextDecoder(), e: new TextDecoder() };
  let chosen = number;
  let writer: InstanceType<typeof AsciicastWriter> | undefined;
  for await (const record of records) {
    if (record.kind === "event") {
      const { command, width, height, term } = record.fields;
      const [columns, rows] = [Number(width), Number(height)];
      // Some protocols open a terminal first and say how large it is next.
      const isSized = columns > 0 && rows > 0;
      if ((record.name === "terminal" || record.name === "resized") && isSized) {
        if (command === chosen && writer !== undefined)
          yield writer.resized(columns, rows, record.at).trimEnd();
        else sizes.set(Number(command), { width: columns, height: rows, term: String(term ?? "") });
      }
    }
    if (record.kind !== "stream" || record.stream === "i") continue;
    chosen ??= record.n;
    if (record.n !== chosen) continue;
    writer ??= new AsciicastWriter({ width: 80, height: 24, ...sizes.get(chosen), nowMs: record.at });
    const { stream } = record;
    const bytes =
      record.base64 === undefined ? Buffer.from(record.text ?? "") : Buffer.from(record.base64, "base64");
    const shown = sanitisers[stream].push(decoders[stream].decode(bytes, { stream: true }));
    const lines = writer.output(stream, Buffer.from(shown), record.at).trimEnd();
    if (lines !== "") yield lines;
  }
}
