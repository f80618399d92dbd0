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
  };
}

function option(flag: string, argument: string, description: string, fallback?: string): GatewayOption {
  const env = `SALLYPORT_${flag.toUpperCase().replaceAll("-", "_")}`;
  return { flag, env, argument, description, ...(fallback === undefined ? {} : { default: fallback }) };
}
