import type {
  AllowedRate,
  ApprovalAsk,
  CertificatePurpose,
  OperatorMessage,
  SessionReport,
} from "@sallyport/control";
import type { Log } from "../kube/index.ts";
import type { BundleStore } from "./bundle-store.ts";
import type { GatewayAuthenticator } from "./gateway-authenticator.ts";
import type { IntakeLimits } from "./session-intake.ts";

/** A gateway that can be told what was decided. */
export interface Told {
  /** The gateway at the other end, once it is known. */
  readonly gateway?: { readonly pod: { readonly uid: string } } | undefined;
  /** True once the connection has ended. */
  readonly isOver?: boolean;
  tell(message: Extract<OperatorMessage, { kind: "revoke" | "decision" | "windows" | "peers" }>): void;
}

/** What gateways tell that others act upon. */
export interface ControlEvents {
  /** Sessions that are to have an object, at most so many a second for a resource. */
  readonly sessions?: (resource: string, reports: readonly SessionReport[]) => void;
  /** What a resource's gateways say of themselves is another; see `ControlServer.of`. */
  readonly changed?: (resource: string) => void;
  /** A gateway is known and welcomed, and has been told nothing else yet. */
  readonly joined?: (resource: string, stream: Told) => void;
  readonly asked?: (resource: string, ask: ApprovalAsk, stream: Told) => void;
  readonly withdrawn?: (resource: string, id: string) => void;
  readonly used?: (resource: string, id: string) => void;
}

/** A certificate that a gateway asks for. All names follow from the resource. */
export interface CertificateOrder {
  readonly purpose: CertificatePurpose;
  /** PEM of the gateway's public key, whose private part it has shown to hold. */
  readonly publicKey: string;
  readonly resource: string;
  readonly podUid: string;
}

/** What the control stream is served with. */
export interface ControlServerOptions {
  readonly host: string;
  readonly port: number;
  /** The serving certificate of the moment; asked again every few seconds. */
  readonly certificate: () => { readonly certificate: string; readonly key: string };
  readonly authenticator: GatewayAuthenticator;
  readonly bundles: BundleStore;
  /** Whether the watches behind the bundles are alive; absent: always. */
  readonly isCurrent?: () => boolean;
  readonly recorderOf?: (namespace: string) => string | undefined;
  readonly signCertificate?: (
    order: CertificateOrder,
  ) => Promise<{ readonly certificate: string; readonly authorities: string }>;
  readonly events?: ControlEvents;
  readonly log: Log;
  readonly intake?: IntakeLimits;
  /** How many messages of one resource's gateways are taken that cost calls to the API server. */
  readonly calls?: AllowedRate;
  readonly recheckMs?: number;
  readonly currentEveryMs?: number;
  readonly heartbeatMs?: number;
  readonly silenceMs?: number;
}
