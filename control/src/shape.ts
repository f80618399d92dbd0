/** Small readers that turn what another process sent into types, or say what is wrong with it. */
export class MessageError extends Error {
  override readonly name = "MessageError";
}

/** The fields of a message. */
export type Fields = Readonly<Record<string, unknown>>;

/** The object that a header must be. */
export function fieldsOf(value: unknown): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new MessageError("a message is not an object");
  }
  return value as Fields;
}

/** A text of at most so many characters. */
export function text(fields: Fields, name: string, lengthMax = 1024): string {
  const value = fields[name];
  if (typeof value !== "string" || value.length > lengthMax) throw wrong(name);
  return value;
}

/** One word in CamelCase, as Kubernetes has reasons. */
export function word(fields: Fields, name: string, lengthMax: number): string {
  const value = text(fields, name, lengthMax);
  if (!/^[A-Z][A-Za-z0-9]*$/.test(value)) throw wrong(name);
  return value;
}

/** A text that may be absent. */
export function optionalText(fields: Fields, name: string, lengthMax = 1024): string | undefined {
  return fields[name] === undefined ? undefined : text(fields, name, lengthMax);
}

/** A whole number that is not negative. */
export function whole(fields: Fields, name: string): number {
  const value = fields[name];
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw wrong(name);
  return value;
}

/** A number that may be absent. */
export function optionalWhole(fields: Fields, name: string): number | undefined {
  return fields[name] === undefined ? undefined : whole(fields, name);
}

/** True or false. */
export function truth(fields: Fields, name: string): boolean {
  const value = fields[name];
  if (typeof value !== "boolean") throw wrong(name);
  return value;
}

/** One of a few texts. */
export function oneOf<T extends string>(fields: Fields, name: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === fields[name]);
  if (found === undefined) throw wrong(name);
  return found;
}

/** A list of at most so many entries, each read by `read`. */
export function list<T>(fields: Fields, name: string, max: number, read: (entry: unknown) => T): T[] {
  const value = fields[name];
  if (!Array.isArray(value) || value.length > max) throw wrong(name);
  return value.map(read);
}

/** The texts of a map from text to text. */
export function textMap(fields: Fields, name: string, max: number): Readonly<Record<string, string>> {
  const entries = Object.entries(fieldsOf(fields[name]));
  if (entries.length > max || entries.some(([, value]) => typeof value !== "string")) throw wrong(name);
  return Object.fromEntries(entries) as Record<string, string>;
}

function wrong(name: string): MessageError {
  return new MessageError(`the field ${name} of a message is not as agreed`);
}
