/** Where a value comes from: the masked columns that it shows or is computed from. */

/** The masked columns that a value depends on. */
export interface Flow {
  /** Names as `schema.table.column`; empty for a value that depends on none. */
  readonly sources: ReadonlySet<string>;
  /** True where the value is the one source's own value, unchanged, so that its mask can keep the type. */
  readonly isExact: boolean;
  /** True where whether it is NULL may tell of a value: `substring(ssn, '^1')`. */
  readonly tellsByNull?: true;
  /** True where more than one value may have given it a collation: which then counts may be undecided, and comparing it fail. */
  readonly mixesCollations?: true;
  /** True for what may be an object id, also where it depends on no masked column: large numbers beside it become none. */
  readonly mayBeOid?: true;
}

/** A named value: one column of a result or of something in FROM. */
export interface FlowColumn {
  readonly name: string;
  readonly flow: Flow;
}

/** A value that depends on no masked column. */
export const clean: Flow = { sources: new Set(), isExact: false };

/** A value that depends on no masked column, and may be an object id. */
export const objectId: Flow = { sources: new Set(), isExact: false, mayBeOid: true };

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
  let mixesCollations = false;
  let mayBeOid = false;
  for (const flow of flows) {
    mayBeOid ||= flow.mayBeOid === true;
    if (flow.sources.size === 0) continue;
    tellsByNull ||= flow.tellsByNull === true;
    mixesCollations ||= flow.mixesCollations === true;
    if (first === undefined) first = flow;
    else {
      sources ??= new Set(first.sources);
      for (const source of flow.sources) sources.add(source);
    }
  }
  if (first === undefined) return mayBeOid ? objectId : clean;
  return made(sources ?? first.sources, { isExact: false, tellsByNull, mixesCollations, mayBeOid });
}

function made(
  sources: ReadonlySet<string>,
  marks: {
    readonly isExact: boolean;
    readonly tellsByNull?: boolean;
    readonly mixesCollations?: boolean;
    readonly mayBeOid?: boolean;
  },
): Flow {
  return {
    sources,
    isExact: marks.isExact,
    ...(marks.tellsByNull === true ? { tellsByNull: true } : {}),
    ...(marks.mixesCollations === true ? { mixesCollations: true } : {}),
    ...(marks.mayBeOid === true ? { mayBeOid: true } : {}),
  };
}

/** A value computed from others that may be NULL because of what they are. */
export function nullTelling(flow: Flow): Flow {
  return isTainted(flow) ? made(flow.sources, { ...flow, isExact: false, tellsByNull: true }) : clean;
}

/** A value whose collation may be any of several. */
export function mixing(flow: Flow): Flow {
  return isTainted(flow) ? { ...flow, mixesCollations: true } : clean;
}

/** A value that is one or the other: both branches of a UNION ALL. */
export function either(left: Flow, right: Flow): Flow {
  const joined = derivedFrom([left, right]);
  const isExact = left.isExact && right.isExact && joined.sources.size === 1;
  return made(joined.sources, { ...joined, isExact });
}

/** A value that is the same column's of one relation or of another: exact where it is in each. */
export function anyOf(flows: readonly Flow[]): Flow {
  const derived = derivedFrom(flows);
  return made(derived.sources, {
    ...derived,
    isExact: isTainted(derived) && flows.every((flow) => flow.isExact),
  });
}
