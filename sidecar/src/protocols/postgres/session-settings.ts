import type { Command } from "@sallyport/policy";

/** Settings by which the server reads a text: those that it reports, as it has reported them, and the names of others. */
export class SessionSettings {
  private readonly reported = new Map<string, string>();
  private readonly touched = new Set<string>();
  /** The values as they were reported last, in one line; statements keep it. */
  values = valuesOf(this.reported);

  /** ParameterStatus; the server sends it before ReadyForQuery alone. */
  report(name: string, value: string): void {
    if (!shown.includes(name)) return;
    this.reported.set(name, value);
    this.values = valuesOf(this.reported);
  }

  /** What runs names these; the values may be secrets and are not kept. */
  run({ parts }: Command): void {
    for (const { operation, words, objects } of parts) {
      if (operation !== "session" && operation !== "privilege") continue;
      if (!words.some((word) => word === "SET" || word === "RESET")) continue;
      for (const { kind, name } of objects) if (kind === "setting") this.touch(name);
    }
  }

  /** A setting is given a value, at start-up or later. */
  touch(name: string): void {
    const key = name.toLowerCase();
    if (!told.has(key)) this.touched.add(this.touched.size < touchedMax ? key : "others");
  }

  /** The names of others that the session has set. */
  get others(): readonly string[] {
    return [...this.touched].toSorted();
  }
}

/** They decide what literals and names mean; no secret is in them. */
const shown: readonly string[] = ["DateStyle", "IntervalStyle", "TimeZone", "session_authorization"];

function valuesOf(reported: ReadonlyMap<string, string>): string {
  return shown.map((name) => `${name} ${reported.get(name) ?? "not known"}`).join("; ");
}

/** What is shown with its value, is the gateway's own, or changes nothing of what a text means. */
const told: ReadonlySet<string> = new Set([
  ...shown.map((name) => name.toLowerCase()),
  ...["search_path", "role", "application_name", "client_encoding", "sallyport.reason"],
]);

/** Names that a session can make up are many. */
const touchedMax = 32;
