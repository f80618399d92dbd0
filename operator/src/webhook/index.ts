/** Admission: gateways into selected pods, closed doors around them, and warnings about policies. */
export { type ConnectParts, connectReview } from "./connect.ts";
export { type InjectionParts, podInjection } from "./pods.ts";
export { policyReview } from "./policies.ts";
export type { AdmissionRequest, AdmissionResponse } from "./review.ts";
export { type AdmissionHandler, WebhookServer, type WebhookServerParts, webhookLimits } from "./server.ts";
