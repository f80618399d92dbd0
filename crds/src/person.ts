/** Whether two names are one person's: directories do not tell names apart that differ in case alone. */
export function isSameName(one: string, other: string): boolean {
  return one.toLowerCase() === other.toLowerCase();
}

/**
 * Whether a name is that of whom an agent acts for. Their provider names them with its prefix (`okta:bob`); other providers, and
 * the API server, name the same person with another prefix or none. A namesake is taken for the owner: that asks for
 * another approver, and lets nobody through.
 */
export function isOwner(onBehalfOf: string, name: string): boolean {
  const owner = onBehalfOf.toLowerCase();
  const bare = owner.slice(owner.indexOf(":") + 1);
  const given = name.toLowerCase();
  return given === owner || given === bare || given.endsWith(`:${bare}`) || given.endsWith(`#${bare}`);
}
