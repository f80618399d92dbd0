/** Where a value comes from: the masked columns that it shows or is computed from. */

/** The masked columns that a value depends on. */
export interface Flow {
  /** Names as `schema.table.column`; empty for a value that depends on none. */
  readonly sources: ReadonlySet<string>;
  /** True where the value is the one source's own value, unchanged, so that its mask can keep the type. */
  readonly isExact: boolean;
  /** True where whether it is NULL may tell of a value: `substring(ssn, '^1')`. */
  readonly tellsByNull?: true;
}

/** A named value: one column of a result or of something in FROM. */
export interface FlowColumn {
  readonly name: string;
  readonly flow: Flow;
}

/** A value that depends on no masked column. */
export const clean: Flow = { sources: new Set(), isExact: false };

/** The value of one masked column itself. */
export function exactly(source: string): Flow {
  return { sources: new Set([source]), isExact: true };
}

/** True where the value depends on a masked column. */
export function isTainted(flow: Flow): boolean {
  return flow.sources.size > 0;
}

/** A value computed from others. */
export function derivedFrom(flows: Iterable<Flow>): Flow {
  let first: Flow | undefined;
  let sources: Set<string> | undefined;
  let tellsByNull = false;
  for (const flow of flows) {
    if (flow.sources.size === 0) continue;
    tellsByNull ||= flow.tellsByNull === true;
    if (first === undefined) first = flow;
    else {
      sources ??= new Set(first.sources);
      for (const source of flow.sources) sources.add(source);
    }
  }
  if (first === undefined) return clean;
  return made(sources ?? first.sources, false, tellsByNull);
}

function made(sources: ReadonlySet<string>, isExact: boolean, tellsByNull: boolean): Flow {
  return tellsByNull ? { sources, isExact, tellsByNull } : { sources, isExact };
}

/** A value computed from others that may be NULL because of what they are. */
export function nullTelling(flow: Flow): Flow {
  return isTainted(flow) ? made(flow.sources, false, true) : clean;
}

/** A value that is one or the other: both branches of a UNION ALL. */
export function either(left: Flow, right: Flow): Flow {
  const joined = derivedFrom([left, right]);
  const isExact = left.isExact && right.isExact && joined.sources.size === 1;
  return made(joined.sources, isExact, joined.tellsByNull === true);
}

/** A value that is the same column's of one relation or of another: exact where it is in each. */
export function anyOf(flows: readonly Flow[]): Flow {
  const { sources, tellsByNull } = derivedFrom(flows);
  return made(sources, sources.size > 0 && flows.every((flow) => flow.isExact), tellsByNull === true);
}
