/**
 * The control plane's own certificates: three authorities and the leaves of operator and recorder, in Secrets of its
 * namespace. The leader writes; every replica follows the Secrets and serves what they hold.
 */
export { type AuthorityHistory, bundleOf, lifetimes, makeAuthority, signLeaf } from "./authority.ts";
export { type BundleChange, changeCaBundle, isTrustedByWebhooks } from "./ca-bundle.ts";
export {
  type CertificateNames,
  CertificateStore,
  type CertificateStoreParts,
  type HeldCertificates,
} from "./store.ts";
