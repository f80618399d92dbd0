/**
 * The control stream: gateways prove themselves, get what concerns their resource on every change, and report. Any
 * replica serves it; what to serve and what to do with reports is decided elsewhere.
 */
export { BundleStore } from "./bundle-store.ts";
export type { CertificateOrder, ControlEvents, ControlServerOptions, Told } from "./control-options.ts";
export { ControlServer } from "./control-server.ts";
export {
  type Authenticated,
  GatewayAuthenticator,
  type GatewayAuthenticatorOptions,
  type IsGateway,
  type LivePod,
} from "./gateway-authenticator.ts";
export {
  keepRecorderHeads,
  parseHead,
  publishHeads,
  type RecorderHead,
  type RecorderHeadsOptions,
  type RecorderHeadsRun,
} from "./recorder-heads.ts";
export { defaultIntakeLimits, type IntakeLimits } from "./session-intake.ts";
