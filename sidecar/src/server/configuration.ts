import { cleanEnv, num, str } from "envalid";

/** One setting of the gateway process: a flag and an environment variable of the same name. */
export interface GatewayOption {
  /** `--manifests`; the variable is SALLYPORT_MANIFESTS. */
  readonly flag: string;
  readonly env: string;
  readonly argument: string;
  readonly description: string;
  readonly default?: string;
}

/** What `sallyport gateway` takes; `docs/reference/cli.md` lists the same. */
export const gatewayOptions: readonly GatewayOption[] = [
  option("manifests", "DIR", "folder of manifests, read again when it changes"),
  option(
    "secrets",
    "DIR",
    "folder of secrets: <name>/<key>; default: `secrets` inside the manifests folder",
    "",
  ),
  option(
    "state",
    "DIR",
    "folder for the gateway's own keys, certificates and recordings",
    "./sallyport-state",
  ),
  option("recordings", "DIR", "folder of the recordings; default: `recordings` inside the state folder", ""),
  option(
    "listen",
    "HOST",
    "address to listen on; the port is spec.listen.port of each resource",
    "127.0.0.1",
  ),
  option("listen-unix", "DIR", "folder for Unix domain sockets beside TCP (.s.PGSQL.<port>)", ""),
  option("admin", "HOST:PORT", "address of /healthz, /readyz and /metrics", "127.0.0.1:9464"),
  option("tls-names", "LIST", "further names in the certificate that the gateway issues itself", ""),
  option("processes", "COUNT", "processes that share the listeners, 1 to 64", "1"),
  option(
    "replica",
    "NUMBER",
    "this gateway's number among its replicas, 0 to 255; cancel keys carry it",
    "0",
  ),
  option(
    "failed-logins",
    "COUNT",
    "failed logins of a user from one address until a lock-out; 0: never",
    "20",
  ),
  option(
    "failed-logins-by-address",
    "COUNT",
    "failed logins from one address, whoever they name, until a lock-out; 0: never",
    "200",
  ),
  option("lockout", "SECONDS", "how long failed logins are counted, and how long a lock-out lasts", "60"),
  option("pending-logins", "COUNT", "connections of each process that have not logged in yet", "512"),
  option("pending-logins-by-address", "COUNT", "those of one client address", "256"),
  option("drain", "SECONDS", "how long sessions may go on after SIGTERM", "30"),
  option("log-level", "LEVEL", "debug, info, warn or error", "info"),
];

/** The gateway's settings, checked. */
export interface GatewayConfiguration {
  readonly manifests: string;
  readonly secrets: string;
  readonly state: string;
  readonly recordings: string;
  readonly listen: string;
  readonly listenUnix: string;
  readonly adminHost: string;
  readonly adminPort: number;
  readonly tlsNames: readonly string[];
  readonly drainMs: number;
  readonly logLevel: string;
  readonly processes: number;
  readonly replica: number;
  readonly failedLoginsMax: number;
  readonly failedLoginsByAddressMax: number;
  readonly lockOutMs: number;
  readonly pendingLoginsMax: number;
  readonly pendingLoginsByAddressMax: number;
}

/** Reads settings from flags first, then the environment; throws one error that lists everything wrong. */
export function readConfiguration(
  flags: Readonly<Record<string, string | undefined>>,
  environment: Readonly<Record<string, string | undefined>>,
): GatewayConfiguration {
  const given: Record<string, string> = {};
  for (const { flag, env } of gatewayOptions) {
    const value = flags[flag] ?? environment[env];
    if (value !== undefined && value !== "") given[env] = value;
  }
  const problems: string[] = [];
  const env = cleanEnv(
    given,
    {
      SALLYPORT_MANIFESTS: str({ desc: "is missing; give --manifests DIR, a folder of manifests" }),
      SALLYPORT_SECRETS: str({ default: "" }),
      SALLYPORT_STATE: str({ default: "./sallyport-state" }),
      SALLYPORT_RECORDINGS: str({ default: "" }),
      SALLYPORT_LISTEN: str({ default: "127.0.0.1" }),
      SALLYPORT_LISTEN_UNIX: str({ default: "" }),
      SALLYPORT_ADMIN: str({ default: "127.0.0.1:9464" }),
      SALLYPORT_TLS_NAMES: str({ default: "" }),
      SALLYPORT_PROCESSES: num({ default: 1 }),
      SALLYPORT_REPLICA: num({ default: 0 }),
      SALLYPORT_FAILED_LOGINS: num({ default: 20 }),
      SALLYPORT_FAILED_LOGINS_BY_ADDRESS: num({ default: 200 }),
      SALLYPORT_LOCKOUT: num({ default: 60 }),
      SALLYPORT_PENDING_LOGINS: num({ default: 512 }),
      SALLYPORT_PENDING_LOGINS_BY_ADDRESS: num({ default: 256 }),
      SALLYPORT_DRAIN: num({ default: 30 }),
      SALLYPORT_LOG_LEVEL: str({ choices: ["debug", "info", "warn", "error"], default: "info" }),
    },
    {
      reporter: ({ errors }) => {
        for (const [name, error] of Object.entries(errors))
          problems.push(`${name}: ${error?.message ?? "invalid"}`);
      },
    },
  );
  const admin = /^(.*):(\d{1,5})$/.exec(env.SALLYPORT_ADMIN ?? "");
  if (admin === null) problems.push("SALLYPORT_ADMIN: must be HOST:PORT");
  const whole = (name: string, value: number, least: number, most: number): number => {
    const isGood = Number.isInteger(value) && value >= least && value <= most;
    if (!isGood) problems.push(`${name}: must be a whole number from ${least} to ${most}`);
    return value;
  };
  const bounds = {
    processes: whole("SALLYPORT_PROCESSES", env.SALLYPORT_PROCESSES, 1, 64),
    replica: whole("SALLYPORT_REPLICA", env.SALLYPORT_REPLICA, 0, 255),
    failedLoginsMax: whole("SALLYPORT_FAILED_LOGINS", env.SALLYPORT_FAILED_LOGINS, 0, 1_000_000),
    failedLoginsByAddressMax: whole(
      "SALLYPORT_FAILED_LOGINS_BY_ADDRESS",
      env.SALLYPORT_FAILED_LOGINS_BY_ADDRESS,
      0,
      1_000_000,
    ),
    lockOutMs: whole("SALLYPORT_LOCKOUT", env.SALLYPORT_LOCKOUT, 1, 86_400) * 1000,
    pendingLoginsMax: whole("SALLYPORT_PENDING_LOGINS", env.SALLYPORT_PENDING_LOGINS, 1, 100_000),
    pendingLoginsByAddressMax: whole(
      "SALLYPORT_PENDING_LOGINS_BY_ADDRESS",
      env.SALLYPORT_PENDING_LOGINS_BY_ADDRESS,
      1,
      100_000,
    ),
  };
  if (problems.length > 0) throw new Error(`the gateway cannot start:\n  ${problems.join("\n  ")}`);
  const manifests = env.SALLYPORT_MANIFESTS;
  return {
    manifests,
    secrets: env.SALLYPORT_SECRETS || `${manifests}/secrets`,
    state: env.SALLYPORT_STATE,
    recordings: env.SALLYPORT_RECORDINGS || `${env.SALLYPORT_STATE}/recordings`,
    listen: env.SALLYPORT_LISTEN,
    listenUnix: env.SALLYPORT_LISTEN_UNIX,
    adminHost: admin?.[1] ?? "127.0.0.1",
    adminPort: Number(admin?.[2] ?? 0),
    tlsNames: env.SALLYPORT_TLS_NAMES.split(",").filter((name) => name !== ""),
    drainMs: env.SALLYPORT_DRAIN * 1000,
    logLevel: env.SALLYPORT_LOG_LEVEL,
    ...bounds,
  };
}

function option(flag: string, argument: string, description: string, fallback?: string): GatewayOption {
  const env = `SALLYPORT_${flag.toUpperCase().replaceAll("-", "_")}`;
  return { flag, env, argument, description, ...(fallback === undefined ? {} : { default: fallback }) };
}
