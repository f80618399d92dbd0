/** The gateway's side of the control plane, for the server and for whoever simulates gateways. */
export {
  type BundleOutcome,
  ControlClient,
  type ControlClientLimits,
  type ControlClientOptions,
  type ControlHandlers,
  type SignedCertificate,
} from "./control-client.ts";
export {
  defaultLinkLimits,
  type LinkLimits,
  type RecorderCredentials,
  RecorderLink,
  type RecorderLinkOptions,
} from "./recorder-link.ts";
export { createRemoteRecorder } from "./remote-recorder.ts";
