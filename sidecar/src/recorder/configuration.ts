import { wholeNumber } from "@sallyport/control";
import { cleanEnv, makeExactValidator, str } from "envalid";

/** One setting of the recorder process: a flag and an environment variable of the same name. */
export interface RecorderOption {
  readonly flag: string;
  readonly env: string;
  readonly argument: string;
  readonly description: string;
  readonly default?: string;
}

/** What `sallyport recorder` takes. */
export const recorderOptions: readonly RecorderOption[] = [
  option("volume", "DIR", "folder that holds recordings, their log and their wrapped keys"),
  option("tls", "DIR", "folder with tls.crt and tls.key, read again when they change"),
  option("gateway-ca", "FILE", "the authority that signs gateways' certificates, as PEM"),
  option("signing-key", "FILE", "Ed25519 private key of the recorder; made where it is missing"),
  option(
    "wrapping-keys",
    "LIST",
    "files of 32 bytes; the first wraps namespaces' keys, the others only unwrap",
  ),
  option("listen", "HOST:PORT", "address for gateways", "127.0.0.1:7444"),
  option("api", "HOST:PORT", "address for replay and verification", "127.0.0.1:7445"),
  option("quota", "BYTES", "what the recordings of one namespace may take", String(10 * 1024 ** 3)),
  option("reserve", "BYTES", "what stays free on the volume", String(256 * 1024 ** 2)),
  option("retention-min", "SECONDS", "no recording is removed sooner after its end", "0"),
  option("api-tokens", "BOOL", "also take tokens for the API server's own audience at the API", "false"),
  option("head-file", "FILE", "where the head of the log is written every minute, besides the log", ""),
  option("log-level", "LEVEL", "debug, info, warn or error", "info"),
];

/** The recorder's settings, checked. */
export interface RecorderConfiguration {
  readonly volume: string;
  readonly tls: string;
  readonly gatewayCa: string;
  readonly signingKey: string;
  readonly wrappingKeys: readonly string[];
  readonly listen: Address;
  readonly api: Address;
  readonly quotaBytes: number;
  readonly reserveBytes: number;
  readonly retentionMsMin: number;
  readonly acceptsApiTokens: boolean;
  readonly headFile: string;
  readonly logLevel: string;
}

/** A host and a port. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

const num = makeExactValidator(wholeNumber);

/** Reads settings from flags first, then the environment; throws one error that lists everything wrong. */
export function readRecorderConfiguration(
  flags: Readonly<Record<string, string | undefined>>,
  environment: Readonly<Record<string, string | undefined>>,
): RecorderConfiguration {
  const given: Record<string, string> = {};
  for (const { flag, env } of recorderOptions) {
    const value = flags[flag] ?? environment[env];
    if (value !== undefined && value !== "") given[env] = value;
  }
  const problems: string[] = [];
  const missing = (flag: string) => ({ desc: `is missing; give --${flag}` });
  const env = cleanEnv(
    given,
    {
      SALLYPORT_RECORDER_VOLUME: str(missing("volume DIR")),
      SALLYPORT_RECORDER_TLS: str(missing("tls DIR")),
      SALLYPORT_RECORDER_GATEWAY_CA: str(missing("gateway-ca FILE")),
      SALLYPORT_RECORDER_SIGNING_KEY: str(missing("signing-key FILE")),
      SALLYPORT_RECORDER_WRAPPING_KEYS: str(missing("wrapping-keys LIST")),
      SALLYPORT_RECORDER_LISTEN: str({ default: "127.0.0.1:7444" }),
      SALLYPORT_RECORDER_API: str({ default: "127.0.0.1:7445" }),
      SALLYPORT_RECORDER_QUOTA: num({ default: 10 * 1024 ** 3 }),
      SALLYPORT_RECORDER_RESERVE: num({ default: 256 * 1024 ** 2 }),
      SALLYPORT_RECORDER_RETENTION_MIN: num({ default: 0 }),
      SALLYPORT_RECORDER_API_TOKENS: str({ choices: ["true", "false"], default: "false" }),
      SALLYPORT_RECORDER_HEAD_FILE: str({ default: "" }),
      SALLYPORT_RECORDER_LOG_LEVEL: str({ choices: ["debug", "info", "warn", "error"], default: "info" }),
    },
    {
      reporter: ({ errors }) => {
        for (const [name, error] of Object.entries(errors))
          problems.push(`${name}: ${error?.message ?? "invalid"}`);
      },
    },
  );
  const addressOf = (name: string, text: string): Address => {
    const [, host = "", port = ""] = /^(.*):(\d{1,5})$/.exec(text) ?? [];
    if (host === "") problems.push(`${name}: must be HOST:PORT`);
    return { host, port: Number(port) };
  };
  const listen = addressOf("SALLYPORT_RECORDER_LISTEN", env.SALLYPORT_RECORDER_LISTEN ?? "");
  const api = addressOf("SALLYPORT_RECORDER_API", env.SALLYPORT_RECORDER_API ?? "");
  if (env.SALLYPORT_RECORDER_QUOTA === 0)
    problems.push("SALLYPORT_RECORDER_QUOTA: nothing fits into 0 bytes");
  if (problems.length > 0) throw new Error(`the recorder cannot start:\n  ${problems.join("\n  ")}`);
  return {
    volume: env.SALLYPORT_RECORDER_VOLUME,
    tls: env.SALLYPORT_RECORDER_TLS,
    gatewayCa: env.SALLYPORT_RECORDER_GATEWAY_CA,
    signingKey: env.SALLYPORT_RECORDER_SIGNING_KEY,
    wrappingKeys: env.SALLYPORT_RECORDER_WRAPPING_KEYS.split(",").filter((file) => file !== ""),
    listen,
    api,
    quotaBytes: env.SALLYPORT_RECORDER_QUOTA,
    reserveBytes: env.SALLYPORT_RECORDER_RESERVE,
    retentionMsMin: env.SALLYPORT_RECORDER_RETENTION_MIN * 1000,
    acceptsApiTokens: env.SALLYPORT_RECORDER_API_TOKENS === "true",
    headFile: env.SALLYPORT_RECORDER_HEAD_FILE,
    logLevel: env.SALLYPORT_RECORDER_LOG_LEVEL,
  };
}

function option(flag: string, argument: string, description: string, fallback?: string): RecorderOption {
  const env = `SALLYPORT_RECORDER_${flag.toUpperCase().replaceAll("-", "_")}`;
  return { flag, env, argument, description, ...(fallback === undefined ? {} : { default: fallback }) };
}
