import type { KubeObject } from "../kube/index.ts";
import type { GatewaySettings } from "../placement/index.ts";
import type { ProbeResult } from "../resources/index.ts";

/** One address that is dialled. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

/** What is dialled for one resource. */
export interface Trial {
  readonly key: string;
  /** The gateways' own ports in the same namespace: what must be reached for a silence to mean anything. */
  readonly gateways: readonly Address[];
  readonly servers: readonly Address[];
}

/** The probe's pod, as far as it is written and read. */
export interface ProbePod extends KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly spec: object;
  readonly status?: {
    readonly phase?: string;
    readonly containerStatuses?: readonly {
      readonly state?: { readonly terminated?: { readonly exitCode?: number; readonly message?: string } };
    }[];
  };
}

/** The kubelet keeps 4096 bytes of a container's last words. */
export const addressesMax = 2048;

/** The operator's pod that a probe's belongs to. */
export interface ProbeOwner {
  readonly name: string;
  readonly uid: string;
}

/** What a probe's pod is made of. */
interface ProbePodParts {
  readonly name: string;
  readonly settings: GatewaySettings;
  readonly owner?: ProbeOwner | undefined;
}

/** The pod that dials: no token, no right, nothing but the network that every pod has. */
export function probePod({ name, settings, owner }: ProbePodParts, trials: readonly Trial[]): ProbePod {
  const { image, imagePullPolicy, userId, systemNamespace } = settings;
  const addresses = trials.flatMap(({ gateways, servers }) => [...gateways, ...servers]);
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name,
      namespace: systemNamespace,
      labels: {
        "app.kubernetes.io/part-of": "sallyport",
        "app.kubernetes.io/managed-by": "sallyport-operator",
        "app.kubernetes.io/component": "probe",
      },
      ...(owner && { ownerReferences: [{ apiVersion: "v1", kind: "Pod", ...owner }] }),
    },
    spec: {
      restartPolicy: "Never",
      activeDeadlineSeconds: 45,
      terminationGracePeriodSeconds: 0,
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      securityContext: {
        runAsNonRoot: true,
        runAsUser: userId,
        runAsGroup: userId,
        seccompProfile: { type: "RuntimeDefault" },
      },
      containers: [
        {
          name: "probe",
          image,
          imagePullPolicy,
          command: ["node", "-e", program, ...addresses.map(({ host, port }) => `${host} ${port}`)],
          resources: { requests: { cpu: "10m", memory: "48Mi" }, limits: { memory: "128Mi" } },
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ["ALL"] },
          },
        },
      ],
    },
  };
}

/**
 * Dials all and writes a letter for each where the kubelet looks for last words: `c` connected, `t` no answer or
 * forbidden on the way, `r` anything else. A reset is no proof: a port that nobody listens on answers so as well.
 */
const program = `
const silent = new Set(["ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "EACCES", "EPERM"]);
const dial = (target) => new Promise((resolve) => {
  const [host, port] = target.split(" ");
  const socket = require("net").connect({ host, port: Number(port), timeout: 5000 });
  const end = (letter) => { socket.destroy(); resolve(letter); };
  socket.on("connect", () => end("c")).on("timeout", () => end("t"));
  socket.on("error", ({ code }) => end(silent.has(code) ? "t" : "r"));
});
Promise.all(process.argv.slice(1).map(dial)).then((letters) =>
  require("fs").writeFileSync("/dev/termination-log", letters.join("")));
`;

/** Reads what the pod has said of each trial; unknown wherever it did not say it in full. */
export function readFindings(
  { status }: Pick<ProbePod, "status">,
  trials: readonly Trial[],
): ReadonlyMap<string, ProbeResult> {
  const { exitCode, message = "" } = status?.containerStatuses?.[0]?.state?.terminated ?? {};
  const expected = trials.reduce((sum, { gateways, servers }) => sum + gateways.length + servers.length, 0);
  const isWhole = exitCode === 0 && /^[ctr]*$/.test(message) && message.length === expected;
  const found = new Map<string, ProbeResult>();
  let next = 0;
  for (const { key, gateways, servers } of trials) {
    const near = message.slice(next, next + gateways.length);
    const far = message.slice(next + gateways.length, next + gateways.length + servers.length);
    next += gateways.length + servers.length;
    found.set(key, isWhole ? resultOf(near, far) : "unknown");
  }
  return found;
}

function resultOf(near: string, far: string): ProbeResult {
  if (far.includes("c")) return "connected";
  // Where the gateway beside the server is not reached either, the network keeps this pod from everything.
  return near.includes("c") && /^t+$/.test(far) ? "refused" : "unknown";
}
