/**
 * What scenarios of held statements share: the chart with two operators, a database behind two gateways that they placed, psql
 * in a pod, and people who decide with `kubectl patch`.
 */
import { beforeAll } from "vitest";
import type { CommandResult, Kubectl } from "../cluster/kubectl.ts";
import { localProvider } from "../targets/manifests.ts";
import { LocalIssuer, type TokenRequest } from "../targets/tokens.ts";
import { accessPolicy, condition, install, protectedResource } from "./installed.ts";
import { clientPod, database } from "./objects.ts";
import { type KubernetesObject, openScenario, type Scenario } from "./scenario.ts";

/** An Approval as tests read it. */
export interface Approval {
  readonly metadata: {
    readonly name: string;
    readonly generation: number;
    readonly labels: Readonly<Record<string, string>>;
  };
  readonly spec: { readonly request: { readonly command?: string; readonly [field: string]: unknown } };
  readonly status?: {
    readonly phase?: string;
    readonly progress?: string;
    readonly observedGeneration?: number;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

/** Whom the cluster knows as `NAME@example.com`, and their groups there. */
const groups = {
  alice: ["okta:dba", "okta:dev"],
  bob: ["okta:dba"],
  carol: ["okta:dba"],
  /** Approves under the policy `floor` alone. */
  sven: ["okta:security"],
  /** Writes to Approvals, and may approve under no policy. */
  dave: ["okta:dev"],
  /** Has no right at all. */
  eve: ["okta:guests"],
};

/** Somebody whom the cluster knows. */
export type Person = keyof typeof groups;

/** What kubectl answers when it has done what it was told. */
export const done = { code: 0 };

const provider = "approvals";
/** The same people again, under other names. */
const secondProvider = "approvals-second";

/** A rule by which people are asked about an operation on a table. */
export const asking = (name: string, operation: string, table: string, approval: object) => ({
  name,
  match: { operations: [operation], objects: [table] },
  action: "RequireApproval",
  approval: { timeout: "5m", ...approval },
});

/** A policy for everybody who connects. */
export const policy = (name: string, rules: readonly object[], more: object = {}): KubernetesObject =>
  accessPolicy(name, {
    resources: { names: ["orders"] },
    subjects: [{ group: `${provider}:dev` }, { group: `${secondProvider}:dev` }],
    rules,
    ...more,
  });

const rbac = "rbac.authorization.k8s.io";

/** Who may do what with Approvals: the chart's own roles, and one for the policy `floor`. */
function rights(namespace: string): readonly KubernetesObject[] {
  const binding = (name: string, kind: string, role: string, subjects: readonly object[]) => ({
    ...{ apiVersion: `${rbac}/v1`, kind: "RoleBinding", metadata: { name } },
    roleRef: { apiGroup: rbac, kind, name: role },
    subjects,
  });
  const group = (name: string) => ({ apiGroup: rbac, kind: "Group", name });
  const argo = { kind: "ServiceAccount", name: "argo", namespace };
  const approve = { apiGroups: ["sallyport.dev"], resources: ["accesspolicies"], verbs: ["approve"] };
  return [
    binding("approvers", "ClusterRole", "sallyport-approver", [group("okta:dba"), argo]),
    binding("writers", "ClusterRole", "sallyport-requester", [group("okta:dev"), group("okta:security")]),
    {
      ...{ apiVersion: `${rbac}/v1`, kind: "Role", metadata: { name: "floor" } },
      rules: [{ ...approve, resourceNames: ["floor"] }],
    },
    binding("floor", "Role", "floor", [group("okta:security")]),
  ];
}

/** How a statement is sent. */
interface Sending {
  /** Which gateway it goes through; where absent, the one that the Service leads to. */
  readonly address?: string;
  /** Whose token: alice's of the first provider where absent. */
  readonly token?: string;
}

/** A statement that waits in psql, and the request for it. */
interface HeldStatement {
  readonly name: string;
  readonly approval: Approval;
  /** What psql printed once it has ended. */
  readonly ended: Promise<CommandResult>;
}

/** Opens the scenario for the tests of a file: call it once, at the top. */
export function heldStatements(
  scenarioName: string,
  {
    tables,
    policies,
  }: { readonly tables: readonly string[]; readonly policies: readonly KubernetesObject[] },
) {
  const scenario: Scenario = openScenario(scenarioName);
  const { namespace, kubectl, eventually } = scenario;
  const audience = `sallyport:${namespace}/orders`;
  const [first, second] = [new LocalIssuer(provider, audience), new LocalIssuer(secondProvider, audience)];
  const people = {} as Record<Person | "argo", Kubectl>;
  const argo = `system:serviceaccount:${namespace}:argo`;
  const service = `orders-gateway.${namespace}.svc`;

  beforeAll(async () => {
    const { cluster } = scenario;
    await install(cluster);
    const mapping = { kubernetesUsername: "claims.mail", claims: { onBehalfOf: "owner" } };
    await cluster.kubectl.apply([
      localProvider(first, mapping, provider),
      localProvider(second, mapping, secondProvider),
    ]);
    const initSql = [
      "ALTER SYSTEM SET max_connections = 500;",
      ...tables.map((table) => `CREATE TABLE ${table} (n int);`),
    ];
    await scenario.apply(
      ...database("orders", initSql.join("\n")),
      protectedResource("orders", provider, {
        placement: { mode: "Shared", replicas: 2 },
        identity: { providers: [provider, secondProvider] },
      }),
      ...policies,
      ...rights(namespace),
      clientPod("client", { ca: "orders-gateway-ca" }),
    );
    for (const name of Object.keys(groups) as readonly Person[])
      people[name] = await cluster.user(`${name}@example.com`, groups[name]);
    people.argo = await cluster.user(argo, ["system:serviceaccounts"]);
    await scenario.ready("statefulset/orders", "deployment/orders-gateway", "pod/client");
    await condition(scenario, "protectedresource/orders", "Ready", "True");
    await condition(scenario, "protectedresource/orders", "ApprovalsGuarded", "True");
    await scenario.reachable("client", service, 5432);
  });

  const tokenOf = (issuer: LocalIssuer, request: TokenRequest) =>
    issuer.token({ groups: ["dev"], ...request });
  const alice = () => tokenOf(first, { user: "alice", claims: { mail: "alice@example.com" } });
  const target = ({ address, token = alice() }: Sending = {}) =>
    `host=${service} user=main dbname=postgres sslmode=verify-full sslrootcert=/ca/ca.crt ` +
    `connect_timeout=10 password=${token}${address === undefined ? "" : ` hostaddr=${address}`}`;
  /** Runs statements in one session; a session ends with the last of them. */
  const psql = (sql: string | readonly string[], how?: Sending) => {
    const commands = [sql].flat().flatMap((one) => ["-c", one]);
    return scenario.exec("client", "psql", target(how), "-X", "-At", "-v", "VERBOSITY=verbose", ...commands);
  };
  /** What the database says. A Service leads to a gateway that ends for a moment longer, so it may be asked again. */
  const answer = (sql: string) =>
    eventually(`the answer to ${sql}`, async () => {
      const { code, stdout } = await psql(sql);
      return code === 0 ? stdout.trim() : undefined;
    });

  const approvals = async () =>
    (await kubectl.json<{ readonly items: readonly Approval[] }>("approvals")).items;
  const isReady = ({ status }: Approval) =>
    status?.phase === "Pending" &&
    status.conditions?.some(({ type, status: is }) => type === "Validated" && is === "True") === true;
  /** The request for a statement; what approvers are told beside it stands below it. */
  const requestFor = (sql: string, isWanted: (found: Approval) => boolean = () => true) =>
    eventually(`the request for ${sql}`, async () =>
      (await approvals()).find((one) => one.spec.request.command?.split("\n-- ")[0] === sql && isWanted(one)),
    );
  /** Sends a statement, and waits until it is held and can be decided. */
  const hold = async (sql: string, how?: Sending): Promise<HeldStatement> => {
    const ended = psql(sql, how);
    const approval = await requestFor(sql, isReady);
    return { name: approval.metadata.name, approval, ended };
  };
  const observed = (what: string, name: string, isSo: (found: Approval) => boolean) =>
    eventually(`${name} to be ${what}`, async () => {
      const found = await kubectl.json<Approval>("approval", name);
      return isSo(found) ? found : undefined;
    });

  const patch = (who: Kubectl, names: readonly string[], operations: readonly object[]) => {
    const argv = ["-n", namespace, "patch", "approval", ...names, "--type=json", "-p"];
    return who.try(undefined, ...argv, JSON.stringify(operations));
  };
  const decide = (who: Kubectl, names: readonly string[], value: object) =>
    patch(who, names, [{ op: "add", path: "/spec/decisions/-", value }]);
  return {
    ...{ scenario, people, argo, target, psql, answer, approvals, isReady, requestFor, hold, patch, decide },
    approve: (person: Person, ...names: readonly string[]) =>
      decide(people[person], names, { approver: `${person}@example.com`, decision: "Approved" }),
    deny: (person: Person, names: readonly string[], comment?: string) =>
      decide(people[person], names, {
        ...{ approver: `${person}@example.com`, decision: "Denied" },
        ...(comment !== undefined && { comment }),
      }),
    token: (request: TokenRequest) => tokenOf(first, request),
    secondToken: (request: TokenRequest) => tokenOf(second, request),
    ready: (name: string) => observed("ready to be decided", name, isReady),
    phaseOf: (name: string, phase: string) => observed(phase, name, ({ status }) => status?.phase === phase),
    /** How far a request is, every decision of now counted. */
    progressOf: (name: string, progress: string) =>
      observed(progress, name, ({ metadata, status }) => {
        return status?.progress === progress && status.observedGeneration === metadata.generation;
      }),
    hasColumn: async (column: string) =>
      (await answer(`SELECT count(*) FROM information_schema.columns WHERE column_name = '${column}'`)) ===
      "1",
    count: async (table: string) => Number(await answer(`SELECT count(*) FROM ${table}`)),
  };
}
