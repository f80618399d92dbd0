/** What calling one function would do, for whoever asks without a statement around it. */
import type { CommandPart } from "../model.ts";
import { walkFunction } from "./bodies.ts";
import type { FunctionInfo, NameResolver } from "./names.ts";
import { NameOverlay } from "./overlay.ts";
import { Walk } from "./walk.ts";
import { walkers } from "./walkers.ts";

/** Nodes of the bodies behind one function. */
const nodesMax = 2_000_000;

/** What calling a function would do, by its body; an opaque part where nobody can read it. */
export function functionParts(names: NameResolver, info: FunctionInfo): readonly CommandPart[] {
  const walk = new Walk(new NameOverlay(names), walkers, nodesMax);
  walkFunction(walk, info, "SELECT");
  return walk.parts.build();
}
