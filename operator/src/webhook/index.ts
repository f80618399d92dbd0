/** Admission: gateways into selected pods, closed doors around them, and warnings about policies. */
export { WebhookCertificate } from "./certificate.ts";
export { connectReview } from "./connect.ts";
export { podInjection } from "./pods.ts";
export { policyReview } from "./policies.ts";
export { WebhookServer } from "./server.ts";
