/** How values on the command line are read; what cannot be read is a usage error that says what can. */
import { isAbsolute, resolve } from "node:path";
import { InvalidArgumentError } from "commander";

/** A resource as people write it: `namespace/name`. */
export interface ResourceName {
  readonly namespace: string;
  readonly name: string;
}

/** Reads `namespace/name`. */
export function parseResource(text: string): ResourceName {
  const [namespace = "", name = "", ...rest] = text.split("/");
  if (!label.test(namespace) || !label.test(name) || rest.length > 0) {
    throw new InvalidArgumentError("Write it as namespace/name, for example shop/orders.");
  }
  return { namespace, name };
}

/** Reads `90s`, `15m`, `1h30m` as seconds. */
export function parseLifetimeSeconds(text: string): number {
  const match = /^(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?$/.exec(text);
  const [, hours = "0", minutes = "0", seconds = "0"] = match ?? [];
  const total = Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds);
  if (match === null || total === 0) throw new InvalidArgumentError("Write it as 90s, 15m or 1h30m.");
  return total;
}

/** Lets an option be given several times. */
export function repeated<Value>(parse: (text: string) => Value) {
  return (text: string, before: readonly Value[]): readonly Value[] => [...before, parse(text)];
}

const label = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

/** A path as the person meant it: relative to where they stand. */
export function inFolder(cwd: string, path: string): string {
  return isAbsolute(path) ? path : resolve(cwd, path);
}
