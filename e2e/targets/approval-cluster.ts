/**
 * Approvals as in a cluster, without a node: the chart's operator with its own rights on a real API server, gateways that it
 * placed (run beside, each with the token of its pod), a real PostgreSQL.
 */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { type Kubectl, run } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { helmProgram } from "../cluster/programs.ts";
import { type GatewayProcess, spawnGateway } from "./gateway.ts";
import { localProvider, writeSecret } from "./manifests.ts";
import { startOperator, systemNamespace, type TestOperator, testImage } from "./operator.ts";
import { freePort, type PostgresServer, startPostgres } from "./postgres.ts";
import { LocalIssuer } from "./tokens.ts";

const chart = join(import.meta.dirname, "../../charts/sallyport");
const [repository, digest] = testImage.split("@") as [string, string];
const ours = "sallyport.dev/v1alpha1";
/** An address of documentation (RFC 5737): the test's gateways find the server behind it. */
const serverAddress = "192.0.2.10";

/** The namespace of the resource. */
export const approvalNamespace = "shop";

/** An Approval as tests read it. */
export interface ObservedApproval {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly request: object };
  readonly status?: {
    readonly phase?: string;
    readonly progress?: string;
    readonly grantedUntil?: string;
    readonly conditions?: readonly {
      readonly type: string;
      readonly status: string;
      readonly reason: string;
      readonly message: string;
    }[];
  };
}

/** One placed gateway that runs beside. */
export interface PlacedGateway {
  readonly pod: string;
  readonly port: number;
  readonly process: GatewayProcess;
}

/** What a client of a gateway was told. */
export interface NoticedClient {
  readonly client: pg.Client;
  readonly notices: string[];
  readonly hints: string[];
}

/** How the cluster is set up. */
export interface ApprovalClusterOptions {
  readonly initSql: string;
  /** AccessPolicies and whatever else is applied with the resource. */
  readonly objects: readonly object[];
  readonly replicas?: number;
  readonly operators?: number;
  /** Lines of postgresql.conf. */
  readonly settings?: Readonly<Record<string, string | number | boolean>>;
  /** More helm values, as `a.b=c`. */
  readonly values?: readonly string[];
}

/** Everything at once; `close` ends it. */
export class ApprovalCluster {
  readonly issuer = new LocalIssuer("sallyport-test", `sallyport:${approvalNamespace}/orders`);
  readonly gateways: PlacedGateway[] = [];
  readonly operators: TestOperator[] = [];
  readonly api: ApiServer;
  readonly server: PostgresServer;
  readonly #folder: string;
  readonly #clients: pg.Client[] = [];

  private constructor(api: ApiServer, server: PostgresServer, folder: string) {
    this.api = api;
    this.server = server;
    this.#folder = folder;
  }

  static async start({
    initSql,
    objects,
    replicas = 1,
    operators = 1,
    values = [],
    settings = {},
  }: ApprovalClusterOptions) {
    const [api, server] = await Promise.all([
      startApiServer({ controllerManager: true }),
      startPostgres({ tls: false, initSql, settings }),
    ]);
    const cluster = new ApprovalCluster(api, server, await mkdtemp(join(tmpdir(), "sallyport-approvals-")));
    try {
      const helm = await run(await helmProgram(), [
        ...["--kubeconfig", api.kubeconfig, "--namespace", systemNamespace],
        ...["install", "sallyport", chart, "--create-namespace"],
        ...["--set", [`image.repository=${repository},image.digest=${digest}`, ...values].join(",")],
      ]);
      if (helm.code !== 0) throw new Error(helm.stderr);
      await api.kubectl("wait", "--for=condition=Established", "crd", "--all");
      for (let count = 0; count < operators; count++) await cluster.startOperator();
      await api.kubectl.apply([
        { apiVersion: "v1", kind: "Namespace", metadata: { name: approvalNamespace } },
        service,
        localProvider(cluster.issuer, { kubernetesUsername: "claims.mail" }),
        resource(replicas),
        approvers,
        ...objects,
      ]);
      const pods = await waitFor("the gateways' pods", async () => {
        const selected = ["pod", "-n", approvalNamespace, "-l", "sallyport.dev/gateway", "-o", "name"];
        const names = (await api.kubectl("get", ...selected)).trim().split("\n").filter(Boolean);
        return names.length >= replicas ? names : undefined;
      });
      for (const pod of pods.slice(0, replicas)) cluster.gateways.push(await cluster.#startGateway(pod));
      return cluster;
    } catch (error) {
      await cluster.close();
      throw error;
    }
  }

  /** A person of the cluster, by default one of the group that may approve. */
  person(name: string, groups: readonly string[] = ["okta:dba"]): Promise<Kubectl> {
    return this.api.user(name, [...groups]);
  }

  /** Starts one more operator; where it is to take another's place, at that one's ports. */
  async startOperator(at?: TestOperator, environment: Readonly<Record<string, string>> = {}) {
    const ports = at && {
      SALLYPORT_CONTROL_PORT: String(at.configuration.controlPort),
      SALLYPORT_WEBHOOK_PORT: String(at.configuration.webhookPort),
    };
    const operator = await startOperator(
      { kubeconfig: await this.#kubeconfig() },
      {
        SALLYPORT_POD_NAME: `operator-${this.operators.length}`,
        ...ports,
        ...environment,
      },
    );
    this.operators.push(operator);
    return operator;
  }

  /** Stops an operator. */
  async stopOperator(operator: TestOperator): Promise<void> {
    const at = this.operators.indexOf(operator);
    if (at >= 0) this.operators.splice(at, 1);
    await operator.stop();
  }

  approval(name: string): Promise<ObservedApproval> {
    return this.api.kubectl.json<ObservedApproval>("approval", name, "-n", approvalNamespace);
  }

  /** Waits until a request can be decided. */
  async validated(name: string): Promise<void> {
    await waitFor("the request to be validated", async () => {
      // Its client knows of it a moment before the API server does.
      const { status } = await this.approval(name).catch(() => ({ status: undefined }));
      return (
        status?.conditions?.some(({ type, status: is }) => type === "Validated" && is === "True") || undefined
      );
    });
  }

  async phase(name: string, wanted: string): Promise<ObservedApproval> {
    return waitFor(`${name} to be ${wanted}`, async () => {
      const found = await this.approval(name);
      return found.status?.phase === wanted ? found : undefined;
    });
  }

  /** A decision as an approver makes it with kubectl. */
  decide(who: Kubectl, name: string, value: object) {
    return who.try(
      undefined,
      ...["-n", approvalNamespace, "patch", "approval", name, "--type=json", "-p"],
      JSON.stringify([{ op: "add", path: "/spec/decisions/-", value }]),
    );
  }

  approve(who: Kubectl, name: string, approver: string) {
    return this.decide(who, name, { approver, decision: "Approved" });
  }

  async hasColumn(column: string): Promise<boolean> {
    const sql = `SELECT 1 FROM information_schema.columns WHERE column_name = '${column}'`;
    return (await this.server.query(sql)).length > 0;
  }

  /** What psql needs to connect as somebody. */
  psqlEnvironment(user: string, gateway = this.gateways[0]): Readonly<Record<string, string>> {
    return {
      PGHOST: "127.0.0.1",
      PGPORT: String(gateway?.port ?? 0),
      PGUSER: "main",
      PGDATABASE: this.server.database,
      PGSSLMODE: "require",
      PGPASSWORD: this.#token(user),
    };
  }

  #token(user: string): string {
    return this.issuer.token({ user, groups: ["dev"], claims: { mail: `${user}@example.com` } });
  }

  async connect(user = "alice", gateway = this.gateways[0]): Promise<NoticedClient> {
    const client = new pg.Client({
      host: "127.0.0.1",
      port: gateway?.port ?? 0,
      user: "main",
      database: this.server.database,
      password: this.#token(user),
      ssl: { rejectUnauthorized: false },
    });
    const notices: string[] = [];
    const hints: string[] = [];
    client.on("notice", ({ message = "", hint = "" }) => {
      notices.push(message);
      hints.push(hint);
    });
    client.on("error", () => undefined);
    this.#clients.push(client);
    await client.connect();
    return { client, notices, hints };
  }

  /** The name of the request that a client was told of, and that is not one of those known: notices are repeated. */
  heldName({ notices }: NoticedClient, ...known: readonly string[]): Promise<string> {
    return waitFor("the notice", async () => {
      const names = notices.map((notice) => /^held for approval (\S+):/.exec(notice)?.[1]);
      return names.find((name) => name !== undefined && !known.includes(name));
    });
  }

  async close(): Promise<void> {
    for (const client of this.#clients) await client.end().catch(() => undefined);
    for (const { process } of this.gateways) await process.stop();
    for (const operator of this.operators) await operator.stop();
    await this.api.close();
    await this.server.stop();
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** The gateway as its pod would run it; names of the cluster lead to this machine. */
  async #startGateway(pod: string): Promise<PlacedGateway> {
    const { api, server } = this;
    const folder = join(this.#folder, pod.replace("/", "-"));
    await mkdir(folder, { recursive: true });
    const port = await freePort();
    // Gateways are spread over the operators, as their Service spreads them.
    const operator = this.operators[this.gateways.length % this.operators.length];
    const control = `sallyport-control.${systemNamespace}.svc:${operator?.configuration.controlPort}`;
    const named = ["-n", approvalNamespace];
    const account = await api.kubectl(...named, "get", pod, "-o", "jsonpath={.spec.serviceAccountName}");
    const token = await api.kubectl(
      ...["--as", "kubelet", "--as-group", "system:masters", "--as-group", "system:nodes"],
      ...[...named, "create", "token", account.trim(), "--audience=control.sallyport.dev"],
      ...["--bound-object-kind=Pod", `--bound-object-name=${pod.replace("pod/", "")}`],
    );
    await writeFile(join(folder, "token"), token.trim());
    const bundle = await api.kubectl.json<{ readonly data: Readonly<Record<string, string>> }>(
      ...["configmap", "orders-gateway-ca", ...named],
    );
    await writeFile(join(folder, "ca.crt"), Object.values(bundle.data).join("\n"));
    await writeSecret(join(folder, "secrets/orders"), {
      username: server.superuser,
      password: server.password,
    });
    // The server's address is one that a gateway may dial, which the loopback never is for one in the cluster.
    const resolver = `import dns from "node:dns"; const real = dns.lookup; dns.lookup = (host, options, done) =>
      real(host.endsWith(".svc") ? "127.0.0.1" : host, options, done);
      import net from "node:net"; const { connect } = net.Socket.prototype;
      net.Socket.prototype.connect = function (...given) {
        const [to] = Array.isArray(given[0]) ? given[0] : given;
        if (to?.host === "${serverAddress}") to.host = "127.0.0.1";
        return connect.apply(this, given);
      };`;
    const process = await spawnGateway({
      configDir: folder,
      stateDir: join(folder, "state"),
      port,
      environment: { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(resolver)}` },
      args: [
        ...["--secrets", join(folder, "secrets"), "--control", control],
        ...["--control-ca", join(folder, "ca.crt"), "--control-token", join(folder, "token")],
        ...["--resource", `${approvalNamespace}/orders`, "--listen-port", String(port)],
        ...["--upstream", `${serverAddress}:${server.port}`, "--drain", "1"],
      ],
    });
    return { pod, port, process };
  }

  async #kubeconfig(): Promise<string> {
    const { api } = this;
    const path = join(api.folder, "operator.kubeconfig");
    const token = await api.serviceAccountToken(systemNamespace, "sallyport-operator");
    const ca = Buffer.from(api.caPem).toString("base64");
    const config = {
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "c", cluster: { server: api.url, "certificate-authority-data": ca } }],
      users: [{ name: "u", user: { token } }],
      contexts: [{ name: "x", context: { cluster: "c", user: "u", namespace: systemNamespace } }],
      "current-context": "x",
    };
    await writeFile(path, JSON.stringify(config), { mode: 0o600 });
    return path;
  }
}

/** A policy for the group of the test's clients. */
export function approvalPolicy(name: string, rules: readonly object[], more: object = {}): object {
  return {
    apiVersion: ours,
    kind: "AccessPolicy",
    metadata: { name, namespace: approvalNamespace },
    spec: {
      resources: { names: ["orders"] },
      subjects: [{ group: "local:dev" }],
      profile: "Admin",
      rules,
      ...more,
    },
  };
}

/** A rule that wants approval. */
export function asking(
  name: string,
  operations: readonly string[],
  objects: readonly string[],
  approval: object,
) {
  return { name, match: { operations, objects }, action: "RequireApproval", approval };
}

const service = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "orders-db", namespace: approvalNamespace },
  spec: { selector: { app: "orders-db" }, ports: [{ port: 5432 }] },
};
const resource = (replicas: number) => ({
  apiVersion: ours,
  kind: "ProtectedResource",
  metadata: { name: "orders", namespace: approvalNamespace },
  spec: {
    protocol: "postgres",
    ...(replicas > 1 && { placement: { mode: "Shared", replicas } }),
    endpoint: { serviceRef: { name: "orders-db", port: 5432 } },
    tls: { upstream: { mode: "disable" } },
    credentials: [{ name: "main", secretRef: { name: "orders" } }],
    identity: { providers: ["local"] },
    recording: { mode: "BestEffort" },
  },
});
const approvers = {
  apiVersion: "rbac.authorization.k8s.io/v1",
  metadata: { name: "dba", namespace: approvalNamespace },
  kind: "RoleBinding",
  roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "sallyport-approver" },
  subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "Group", name: "okta:dba" }],
};
