/** Tells people outside of the cluster that somebody waits for an approval. It decides nothing, and nothing waits for it. */
export { ApprovalNotifier } from "./notifier.ts";
export { parseTemplate, type Template } from "./template.ts";
