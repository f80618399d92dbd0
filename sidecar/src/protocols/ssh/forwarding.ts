/**
 * Which forwardings a resource offers at all. Nothing by default, whatever a policy allows: a profile that allows
 * everything on a host must not open the network behind it. What is offered is then judged by policy.
 *
 *     options:
 *       forwarding:
 *         local: ["10.0.0.5:5432", "db.internal:5432", "10.1.*:443"]     # -L, -W, -J and -D
 *         remote: ["127.0.0.1:8080"]                                      # -R
 *         sockets: ["/run/app.sock"]                                      # -L to a socket of the host
 *         agent: true                                                     # -A
 *         x11: true                                                       # -X
 */
import { globMatcher } from "./glob.ts";

/** What the resource's options offer. */
export interface Forwarding {
  readonly local: readonly string[];
  readonly remote: readonly string[];
  readonly sockets: readonly string[];
  readonly agent: boolean;
  readonly x11: boolean;
}

/** Reads `options.forwarding`; whatever cannot be read offers nothing. */
export function forwardingOf(options: Readonly<Record<string, unknown>>): Forwarding {
  const given = options.forwarding;
  const found = (typeof given === "object" && given !== null ? given : {}) as Readonly<
    Record<string, unknown>
  >;
  const list = (value: unknown) =>
    Array.isArray(value) ? value.filter((one): one is string => typeof one === "string") : [];
  return {
    local: list(found.local),
    remote: list(found.remote),
    sockets: list(found.sockets),
    agent: found.agent === true,
    x11: found.x11 === true,
  };
}

/** Where a forwarding may go, in the form in which policy sees it and the host gets it. */
export interface Destination {
  /** What policy judges: `host:port`. */
  readonly name: string;
  /** The other spelling, for rules that deny. */
  readonly alias: string | undefined;
  /** What the host is told to connect to. */
  readonly address: string;
}

/**
 * The address that a name stands for now, if the resource offers it: names are resolved here, and the host is given
 * the address, so that what is judged is what is reached. Loopback, link-local and unspecified addresses must be
 * offered by themselves: a pattern or a name that happens to lead there does not. The host's own SSH never is.
 */
export function destinationOf(
  asked: { readonly host: string; readonly port: number; readonly addresses: readonly string[] },
  offered: readonly string[],
  own: { readonly port: number; readonly address: string },
): Destination | undefined {
  const host = plainName(asked.host);
  const named = offered.includes(`${host}:${asked.port}`);
  for (const address of asked.addresses) {
    const exact = `${bracketed(address)}:${asked.port}`;
    if (address === own.address && asked.port === own.port) continue;
    if (isNearby(address)) {
      const isNamed = offered.includes(exact) || (isLoopbackName(host) && named);
      if (!isNamed || asked.port === own.port) continue;
      return { name: exact, alias: undefined, address };
    }
    if (named && host !== address) return { name: `${host}:${asked.port}`, alias: exact, address };
    if (offered.some((pattern) => globMatcher(pattern)(exact))) {
      return { name: exact, alias: host === address ? undefined : `${host}:${asked.port}`, address };
    }
  }
  return undefined;
}

/** False where nothing that is offered has that port, whatever a name may stand for. */
export function mayLeadSomewhere(port: number, offered: readonly string[]): boolean {
  return offered.some((pattern) => {
    const at = pattern.lastIndexOf(":");
    return at < 0 || globMatcher(pattern.slice(at + 1))(String(port));
  });
}

/** Names that mean the host itself, wherever they are resolved. */
export function isLoopbackName(host: string): boolean {
  const name = plainName(host);
  return name === "localhost" || name.endsWith(".localhost");
}

const plainName = (host: string) => host.toLowerCase().replace(/\.$/, "");

const bracketed = (address: string) => (address.includes(":") ? `[${address}]` : address);

/**
 * The host itself, its link, its cloud's metadata, everybody: 127/8, 0/8, 169.254/16, 224/3, ::, ::1, fe80::/10, ff00::/8,
 * and the metadata addresses of clouds that are not link-local.
 */
function isNearby(address: string): boolean {
  if (metadata.has(address)) return true;
  if (address.includes(":")) return /^(?:::1?$|fe[89ab]|ff|64:ff9b:|::ffff:)/.test(address);
  const [first = 0, second = 0] = address.split(".").map(Number);
  return first === 127 || first === 0 || first >= 224 || (first === 169 && second === 254);
}

const metadata: ReadonlySet<string> = new Set([
  "fd00:ec2::254",
  "fd20:ce::254",
  "100.100.100.200",
  "192.0.0.192",
]);
