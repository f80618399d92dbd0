/** The path of a request as it came: servers here know a few whole paths, and what is no URL is none of them. */
export function requestPath(target: string | undefined): string {
  const [path = "/"] = (target ?? "/").split("?", 1);
  return path;
}
