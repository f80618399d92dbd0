import { peerNumber, peerPort, wholeNumber } from "@sallyport/control";
import { cleanEnv, makeExactValidator, str } from "envalid";
import type { ApproverRule } from "../approval/index.ts";

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
  option(
    "masking-key",
    "FILE",
    "secret of at least 32 bytes that masks hash with; default: made in the state folder",
    "",
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
    "peers",
    "FILE",
    "file of the other replicas' addresses and the key they share, for cancel requests",
    "",
  ),
  option(
    "peer-listen",
    "HOST:PORT",
    "address at which other replicas hand cancel requests over; with --control: port 9465 of --listen",
    "",
  ),
  option(
    "approvers",
    "LIST",
    "groups that may approve: GROUP, or POLICY=GROUP for the rules of one policy; without, nobody can be asked",
    "",
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
  option("login-timeout", "SECONDS", "how long TLS, start-up and login of a client may take", "60"),
  option("control", "HOST:PORT", "control stream of the operator, instead of a folder of manifests", ""),
  option("control-ca", "FILE", "authorities of the control plane, as PEM", ""),
  option("control-token", "FILE", "service account token for the audience control.sallyport.dev", ""),
  option("recorder", "HOST:PORT", "recorder that keeps the recordings, until the operator names another", ""),
  option("resource", "NAMESPACE/NAME", "the resource that this gateway was placed for", ""),
  option(
    "pod-uid",
    "UID",
    "the pod that this gateway was placed in; its number among the replicas comes from it",
    "",
  ),
  option("listen-port", "PORT", "port that is open before there is policy; 0: none", "0"),
  option("protocol", "NAME", "protocol that is spoken on it", "postgres"),
  option("upstream", "HOST:PORT", "where the server is reached when it is beside the gateway", ""),
  option(
    "policy-max-age",
    "SECONDS",
    "without news from the operator for so long, nobody new is let in",
    "3600",
  ),
  option("drain", "SECONDS", "how long sessions may go on after SIGTERM", "30"),
  option("log-level", "LEVEL", "debug, info, warn or error", "info"),
];

/** The gateway's settings, checked. */
export interface GatewayConfiguration {
  readonly manifests: string;
  readonly secrets: string;
  readonly state: string;
  readonly recordings: string;
  /** Path of the secret that masks hash with; empty: `masking.key` in the state folder. */
  readonly maskingKey: string;
  readonly listen: string;
  readonly listenUnix: string;
  readonly adminHost: string;
  readonly adminPort: number;
  readonly tlsNames: readonly string[];
  readonly drainMs: number;
  readonly logLevel: string;
  readonly processes: number;
  readonly replica: number;
  /** Path of the file of peers; empty without. */
  readonly peers: string;
  readonly peerListen: { readonly host: string; readonly port: number } | undefined;
  /** Who may approve; empty: a rule that asks for approval denies. */
  readonly approvers: readonly ApproverRule[];
  readonly failedLoginsMax: number;
  readonly failedLoginsByAddressMax: number;
  readonly lockOutMs: number;
  readonly pendingLoginsMax: number;
  readonly pendingLoginsByAddressMax: number;
  readonly loginMs: number;
  /** Set where policy comes from the operator. */
  readonly control: ControlConfiguration | undefined;
}

/** How a gateway that the operator placed reaches the control plane. */
export interface ControlConfiguration {
  readonly address: string;
  readonly caFile: string;
  readonly tokenFile: string;
  /** Empty: recordings are kept in the gateway's own folder. */
  readonly recorder: string;
  readonly resource: string;
  readonly listenPort: number;
  readonly protocol: string;
  readonly upstream: { readonly host: string; readonly port: number } | undefined;
  readonly policyMaxAgeMs: number;
}

const num = makeExactValidator(wholeNumber);

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
      SALLYPORT_MANIFESTS:
        given.SALLYPORT_CONTROL === undefined
          ? str({ desc: "is missing; give --manifests DIR, a folder of manifests, or --control HOST:PORT" })
          : str({ default: "" }),
      SALLYPORT_CONTROL: str({ default: "" }),
      SALLYPORT_CONTROL_CA: str({ default: "" }),
      SALLYPORT_CONTROL_TOKEN: str({ default: "" }),
      SALLYPORT_RECORDER: str({ default: "" }),
      SALLYPORT_RESOURCE: str({ default: "" }),
      SALLYPORT_POD_UID: str({ default: "" }),
      SALLYPORT_LISTEN_PORT: num({ default: 0 }),
      SALLYPORT_PROTOCOL: str({ default: "postgres" }),
      SALLYPORT_UPSTREAM: str({ default: "" }),
      SALLYPORT_POLICY_MAX_AGE: num({ default: 3600 }),
      SALLYPORT_SECRETS: str({ default: "" }),
      SALLYPORT_STATE: str({ default: "./sallyport-state" }),
      SALLYPORT_RECORDINGS: str({ default: "" }),
      SALLYPORT_MASKING_KEY: str({ default: "" }),
      SALLYPORT_LISTEN: str({ default: "127.0.0.1" }),
      SALLYPORT_LISTEN_UNIX: str({ default: "" }),
      SALLYPORT_ADMIN: str({ default: "127.0.0.1:9464" }),
      SALLYPORT_TLS_NAMES: str({ default: "" }),
      SALLYPORT_PROCESSES: num({ default: 1 }),
      SALLYPORT_REPLICA: num({ default: 0 }),
      SALLYPORT_PEERS: str({ default: "" }),
      SALLYPORT_PEER_LISTEN: str({ default: "" }),
      SALLYPORT_APPROVERS: str({ default: "" }),
      SALLYPORT_FAILED_LOGINS: num({ default: 20 }),
      SALLYPORT_FAILED_LOGINS_BY_ADDRESS: num({ default: 200 }),
      SALLYPORT_LOCKOUT: num({ default: 60 }),
      SALLYPORT_PENDING_LOGINS: num({ default: 512 }),
      SALLYPORT_PENDING_LOGINS_BY_ADDRESS: num({ default: 256 }),
      SALLYPORT_LOGIN_TIMEOUT: num({ default: 60 }),
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
  const peerListen = /^(.*):(\d{1,5})$/.exec(env.SALLYPORT_PEER_LISTEN);
  if (env.SALLYPORT_PEER_LISTEN !== "" && peerListen === null)
    problems.push("SALLYPORT_PEER_LISTEN: must be HOST:PORT");
  if (peerListen !== null && env.SALLYPORT_PEERS === "" && env.SALLYPORT_CONTROL === "")
    problems.push("SALLYPORT_PEERS: is needed with --peer-listen; it holds the key");
  const whole = (name: string, value: number, least: number, most: number): number => {
    if (value < least || value > most)
      problems.push(`${name}: must be a whole number from ${least} to ${most}`);
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
    loginMs: whole("SALLYPORT_LOGIN_TIMEOUT", env.SALLYPORT_LOGIN_TIMEOUT, 1, 600) * 1000,
    drainMs: whole("SALLYPORT_DRAIN", env.SALLYPORT_DRAIN, 0, 86_400) * 1000,
  };
  // Each process would ask the operator for itself, and be counted as a gateway of its own.
  if (env.SALLYPORT_CONTROL !== "" && bounds.processes > 1)
    problems.push("SALLYPORT_PROCESSES: must be 1 with --control; use replicas");
  const control = controlOf(
    {
      control: env.SALLYPORT_CONTROL,
      caFile: env.SALLYPORT_CONTROL_CA,
      tokenFile: env.SALLYPORT_CONTROL_TOKEN,
      recorder: env.SALLYPORT_RECORDER,
      resource: env.SALLYPORT_RESOURCE,
      protocol: env.SALLYPORT_PROTOCOL,
      upstream: env.SALLYPORT_UPSTREAM,
      listenPort: whole("SALLYPORT_LISTEN_PORT", env.SALLYPORT_LISTEN_PORT, 0, 65_535),
      policyMaxAgeMs: whole("SALLYPORT_POLICY_MAX_AGE", env.SALLYPORT_POLICY_MAX_AGE, 1, 86_400) * 1000,
    },
    problems,
  );
  if (env.SALLYPORT_PEERS !== "" && env.SALLYPORT_CONTROL !== "")
    problems.push("SALLYPORT_PEERS: has no meaning with --control; the operator says who the peers are");
  const approvers = env.SALLYPORT_APPROVERS.split(",").flatMap((entry) => {
    const [, policy, group] = /^(?:([a-z0-9][a-z0-9.-]*)=)?(.+)$/.exec(entry.trim()) ?? [];
    return group === undefined ? [] : [{ group, ...(policy === undefined ? {} : { policy }) }];
  });
  if (approvers.length > 0 && env.SALLYPORT_CONTROL !== "")
    problems.push("SALLYPORT_APPROVERS: has no meaning with --control; the cluster says who may approve");
  if (problems.length > 0) throw new Error(`the gateway cannot start:\n  ${problems.join("\n  ")}`);
  const manifests = env.SALLYPORT_MANIFESTS;
  return {
    manifests,
    secrets: env.SALLYPORT_SECRETS || `${manifests}/secrets`,
    state: env.SALLYPORT_STATE,
    recordings: env.SALLYPORT_RECORDINGS || `${env.SALLYPORT_STATE}/recordings`,
    maskingKey: env.SALLYPORT_MASKING_KEY,
    listen: env.SALLYPORT_LISTEN,
    listenUnix: env.SALLYPORT_LISTEN_UNIX,
    adminHost: admin?.[1] ?? "127.0.0.1",
    adminPort: Number(admin?.[2] ?? 0),
    tlsNames: env.SALLYPORT_TLS_NAMES.split(",").filter((name) => name !== ""),
    logLevel: env.SALLYPORT_LOG_LEVEL,
    ...bounds,
    approvers,
    ...(control !== undefined &&
      env.SALLYPORT_POD_UID !== "" && { replica: peerNumber(env.SALLYPORT_POD_UID) }),
    peers: env.SALLYPORT_PEERS,
    peerListen:
      peerListen === null
        ? control && { host: env.SALLYPORT_LISTEN, port: peerPort }
        : { host: peerListen[1] ?? "", port: Number(peerListen[2]) },
    control,
  };
}

type GivenControl = Omit<ControlConfiguration, "address" | "upstream"> & {
  readonly control: string;
  readonly upstream: string;
};

function controlOf(
  { control, upstream, ...given }: GivenControl,
  problems: string[],
): ControlConfiguration | undefined {
  if (control === "") return undefined;
  const place = /^\[?([^\]]+?)\]?:(\d{1,5})$/;
  const nearby = place.exec(upstream);
  const addresses = {
    SALLYPORT_CONTROL: control,
    SALLYPORT_RECORDER: given.recorder,
    SALLYPORT_UPSTREAM: upstream,
  };
  for (const [name, address] of Object.entries(addresses)) {
    if (address !== "" && !place.test(address)) problems.push(`${name}: must be HOST:PORT`);
  }
  if (given.caFile === "") problems.push("SALLYPORT_CONTROL_CA: is missing; give --control-ca FILE");
  if (given.tokenFile === "") problems.push("SALLYPORT_CONTROL_TOKEN: is missing; give --control-token FILE");
  if (!/^[a-z0-9-]+\/[a-z0-9.-]+$/.test(given.resource)) {
    problems.push("SALLYPORT_RESOURCE: must be NAMESPACE/NAME");
  }
  const beside = nearby === null ? undefined : { host: nearby[1] ?? "", port: Number(nearby[2]) };
  return { address: control, upstream: beside, ...given };
}

function option(flag: string, argument: string, description: string, fallback?: string): GatewayOption {
  const env = `SALLYPORT_${flag.toUpperCase().replaceAll("-", "_")}`;
  return { flag, env, argument, description, ...(fallback === undefined ? {} : { default: fallback }) };
}
