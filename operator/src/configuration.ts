import { isRange, wholeNumber } from "@sallyport/control";
import { durationMs } from "@sallyport/crds";
import { cleanEnv, makeExactValidator, str } from "envalid";
import { parseTemplate, type Template } from "./notify/index.ts";
import type { GatewaySettings } from "./placement/index.ts";

/** The operator's settings, checked. */
export interface OperatorConfiguration {
  readonly namespace: string;
  readonly podName: string;
  /** The release's name: stands before the names of its own objects. */
  readonly prefix: string;
  readonly settings: GatewaySettings;
  /** `host:port` of each recorder; a namespace belongs to one of them. */
  readonly recorders: readonly string[];
  readonly breakGlassGroup: string;
  /** How long an Approval stays that is closed. */
  readonly approvalRetentionMs: number;
  /** How long a Session stays that is over: a duration, as its object says it. */
  readonly sessionTtl: string;
  /** How long a namespace that was found closed to exec is not tried again. */
  readonly execProbeMs: number;
  /** Where requests are told to; absent: nobody is told. `folder` holds the address and the key. */
  readonly notifications?: { readonly folder: string; readonly template: Template };
  /** `cert-manager` where the webhook's certificate and bundle are somebody else's. */
  readonly webhookCertificates: "own" | "cert-manager";
  readonly webhookCertificateFolder: string;
  readonly webhookPort: number;
  readonly controlPort: number;
  readonly adminHost: string;
  readonly adminPort: number;
  readonly clusterDomain: string;
  /** The namespaces whose resources it serves; none: all. */
  readonly watchNamespaces: readonly string[];
  /** Ranges of pods, Services and nodes, where they cannot be found out. */
  readonly clusterRanges: readonly string[];
  readonly logLevel: string;
}

const recorderPort = 7444;
const num = makeExactValidator(wholeNumber);

/** Reads the environment; throws one error that lists everything wrong. */
export function readConfiguration(
  environment: Readonly<Record<string, string | undefined>>,
): OperatorConfiguration {
  const problems: string[] = [];
  const env = cleanEnv(
    environment,
    {
      SALLYPORT_NAMESPACE: str({ desc: "is missing: the namespace that the operator runs in" }),
      SALLYPORT_POD_NAME: str({ desc: "is missing: the name of this pod" }),
      SALLYPORT_PREFIX: str({ default: "sallyport" }),
      SALLYPORT_GATEWAY_IMAGE: str({ desc: "is missing: the gateways' image, with its digest" }),
      SALLYPORT_GATEWAY_PULL_POLICY: str({
        choices: ["Always", "IfNotPresent", "Never"],
        default: "IfNotPresent",
      }),
      SALLYPORT_GATEWAY_ACCEPTED_IMAGES: str({ default: "" }),
      SALLYPORT_GATEWAY_USER: num({ default: 65532 }),
      SALLYPORT_GATEWAY_DRAIN: num({ default: 30 }),
      SALLYPORT_KUBERNETES_NAMESPACES: str({ default: "" }),
      SALLYPORT_CONTROL_ADDRESS: str({ default: "" }),
      SALLYPORT_RECORDERS: num({ default: 1 }),
      SALLYPORT_BREAK_GLASS_GROUP: str({ default: "sallyport:break-glass" }),
      SALLYPORT_APPROVAL_RETENTION: str({ default: "90d" }),
      SALLYPORT_SESSION_TTL: str({ default: "24h" }),
      SALLYPORT_EXEC_PROBE_INTERVAL: str({ default: "10m" }),
      SALLYPORT_NOTIFY_FOLDER: str({ default: "" }),
      SALLYPORT_NOTIFY_TEMPLATE: str({ default: "" }),
      SALLYPORT_WEBHOOK_CERTIFICATES: str({ choices: ["own", "cert-manager"], default: "own" }),
      SALLYPORT_WEBHOOK_CERTIFICATE_FOLDER: str({ default: "/etc/sallyport/webhook" }),
      SALLYPORT_WEBHOOK_PORT: num({ default: 9443 }),
      SALLYPORT_CONTROL_PORT: num({ default: 8443 }),
      SALLYPORT_ADMIN: str({ default: "0.0.0.0:9464" }),
      SALLYPORT_CLUSTER_DOMAIN: str({ default: "cluster.local" }),
      SALLYPORT_CLUSTER_RANGES: str({ default: "" }),
      SALLYPORT_WATCH_NAMESPACES: str({ default: "" }),
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
  const approvalRetentionMs = durationMs(env.SALLYPORT_APPROVAL_RETENTION ?? "");
  if (approvalRetentionMs === undefined)
    problems.push("SALLYPORT_APPROVAL_RETENTION: must be a duration such as 90d");
  const sessionTtl = env.SALLYPORT_SESSION_TTL ?? "";
  if (durationMs(sessionTtl) === undefined)
    problems.push("SALLYPORT_SESSION_TTL: must be a duration such as 24h");
  const execProbeMs = durationMs(env.SALLYPORT_EXEC_PROBE_INTERVAL ?? "") ?? 0;
  if (execProbeMs < 1000)
    problems.push("SALLYPORT_EXEC_PROBE_INTERVAL: must be a duration such as 10m, of a second at least");
  const { SALLYPORT_NOTIFY_FOLDER: notifyFolder = "" } = env;
  let template: Template | undefined;
  try {
    if (notifyFolder !== "") template = parseTemplate(env.SALLYPORT_NOTIFY_TEMPLATE ?? "");
  } catch (error) {
    problems.push(`SALLYPORT_NOTIFY_TEMPLATE: ${error instanceof Error ? error.message : "invalid"}`);
  }
  const clusterRanges = (env.SALLYPORT_CLUSTER_RANGES ?? "").split(",").filter((range) => range !== "");
  for (const range of clusterRanges)
    if (!isRange(range)) problems.push(`SALLYPORT_CLUSTER_RANGES: ${range} is no ADDRESS/BITS`);
  if (problems.length > 0) throw new Error(`the operator cannot start:\n  ${problems.join("\n  ")}`);
  const { SALLYPORT_NAMESPACE: namespace, SALLYPORT_PREFIX: prefix } = env;
  const recorders = Array.from(
    { length: env.SALLYPORT_RECORDERS },
    (_, at) => `${prefix}-recorder-${at}.${prefix}-recorder.${namespace}.svc:${recorderPort}`,
  );
  return {
    namespace,
    podName: env.SALLYPORT_POD_NAME,
    prefix,
    settings: {
      image: env.SALLYPORT_GATEWAY_IMAGE,
      imagePullPolicy: env.SALLYPORT_GATEWAY_PULL_POLICY as GatewaySettings["imagePullPolicy"],
      acceptedImages: env.SALLYPORT_GATEWAY_ACCEPTED_IMAGES.split(",").filter((image) => image !== ""),
      control: env.SALLYPORT_CONTROL_ADDRESS || `${prefix}-control.${namespace}.svc:8443`,
      recorderPort,
      recorder: recorders[0] ?? "",
      systemNamespace: namespace,
      drainSeconds: env.SALLYPORT_GATEWAY_DRAIN,
      userId: env.SALLYPORT_GATEWAY_USER,
      kubernetesNamespaces: env.SALLYPORT_KUBERNETES_NAMESPACES.split(",").filter((name) => name !== ""),
      impersonatorRole: `${prefix}-impersonator`,
    },
    recorders,
    breakGlassGroup: env.SALLYPORT_BREAK_GLASS_GROUP,
    approvalRetentionMs: approvalRetentionMs ?? 0,
    sessionTtl,
    execProbeMs,
    ...(template === undefined ? {} : { notifications: { folder: notifyFolder, template } }),
    webhookCertificates: env.SALLYPORT_WEBHOOK_CERTIFICATES as OperatorConfiguration["webhookCertificates"],
    webhookCertificateFolder: env.SALLYPORT_WEBHOOK_CERTIFICATE_FOLDER,
    webhookPort: env.SALLYPORT_WEBHOOK_PORT,
    controlPort: env.SALLYPORT_CONTROL_PORT,
    adminHost: admin?.[1] ?? "0.0.0.0",
    adminPort: Number(admin?.[2] ?? 0),
    clusterDomain: env.SALLYPORT_CLUSTER_DOMAIN,
    clusterRanges,
    watchNamespaces: env.SALLYPORT_WATCH_NAMESPACES.split(",").filter((name) => name !== ""),
    logLevel: env.SALLYPORT_LOG_LEVEL,
  };
}
