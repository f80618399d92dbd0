import { expect, test } from "vitest";
import { upstreamProblem } from "./upstream-problem.ts";

test.each([
  // Another authority's, sent without it: what a CA that does not match looks like.
  ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "UpstreamCertificate"],
  ["UNABLE_TO_GET_ISSUER_CERT_LOCALLY", "UpstreamCertificate"],
  ["DEPTH_ZERO_SELF_SIGNED_CERT", "UpstreamCertificate"],
  ["SELF_SIGNED_CERT_IN_CHAIN", "UpstreamCertificate"],
  ["CERT_HAS_EXPIRED", "UpstreamCertificate"],
  ["ERR_TLS_CERT_ALTNAME_INVALID", "UpstreamCertificate"],
  ["HOSTNAME_MISMATCH", "UpstreamCertificate"],
  ["INVALID_CA", "UpstreamCertificate"],
  ["ADDRESS_FORBIDDEN", "UpstreamNotGranted"],
  ["ECONNREFUSED", "UpstreamUnreachable"],
  ["ETIMEDOUT", "UpstreamUnreachable"],
  ["EPROTO", "UpstreamUnreachable"],
  [undefined, "UpstreamUnreachable"],
])("a server that cannot be reached for %s is told as %s", (code, reason) => {
  expect(upstreamProblem("upstreamUnreachable", Object.assign(new Error("failed"), { code }))).toBe(reason);
});

test("a login that the server refuses is told as one, and what the client did wrong is not", () => {
  expect(upstreamProblem("upstreamLoginFailed", undefined)).toBe("UpstreamLoginFailed");
  expect(upstreamProblem("identityRefused", { code: "CERT_HAS_EXPIRED" })).toBeUndefined();
});
