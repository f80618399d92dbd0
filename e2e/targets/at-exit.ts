/** What must not outlive this process, on one listener: Node warns of a leak from the eleventh of one event on. */
const works = new Set<() => void>();

/** Does something when this process ends, in the order of asking; the answer takes it back. */
export function atExit(work: () => void): () => void {
  // One entry for each time it is asked for.
  const entry = () => work();
  if (!process.listeners("exit").includes(endAll)) process.on("exit", endAll);
  works.add(entry);
  return () => void works.delete(entry);
}

function endAll(): void {
  for (const work of works) {
    try {
      work();
    } catch {
      // Whatever else there is must end all the same, and nobody is left to be told.
    }
  }
}
