/** Ten policies that all apply to the one who is measured, of the kinds that people write. */

const subject = "subjects: [{group: 'local:bench'}]";
const head = (name: string) => `---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: ${name}}
spec:
  resources: {names: [shop]}
  ${subject}
`;

/** YAML documents for a gateway of `startGateway`. */
export const tenPolicies = `${head("readers")}  profile: ReadOnly
${head("no-salaries")}  rules:
    - name: salaries
      match: {objects: ["hr.*"]}
      action: Deny
${head("no-unbounded-writes")}  rules:
    - name: unbounded
      match: {operations: [write], unbounded: true}
      action: Deny
${head("exports")}  rules:
    - name: accounts
      match: {operations: [export], objects: ["public.pgbench_accounts"]}
      action: Allow
${head("imports")}  rules:
    - name: copied
      match: {operations: [write], objects: ["public.copied"]}
      action: Allow
${head("no-privileges")}  rules:
    - name: privileges
      match: {operations: [privilege, control]}
      action: Deny
    - name: definitions
      match: {operations: [define], objects: ["public.*", "hr.*"]}
      action: Deny
${head("no-history-for-agents")}  rules:
    - name: history
      match: {objects: ["public.pgbench_history"], cel: "identity.kind == 'Agent'"}
      action: Deny
${head("no-dump-tools")}  rules:
    - name: dumps
      match: {operations: [export], cel: "session.applicationName.startsWith('pg_dump')"}
      action: Deny
${head("audited")}  mode: Audit
  rules:
    - name: accounts
      match: {objects: ["public.pgbench_accounts"]}
      action: Deny
${head("bounds")}  limits: {sessionDuration: 12h, idle: 2h, concurrentSessions: 5000}
`;
