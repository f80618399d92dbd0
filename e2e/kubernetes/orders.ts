/** The database that most scenarios on the live cluster protect: `orders`, somebody who reads it, and a pod with psql. */
import { afterAll, beforeAll } from "vitest";
import type { ClusterAccess } from "../cluster/access.ts";
import type { CommandResult } from "../cluster/kubectl.ts";
import { localProvider } from "../targets/manifests.ts";
import { LocalIssuer } from "../targets/tokens.ts";
import { accessPolicy, condition, install, protectedResource } from "./installed.ts";
import { type LivePsql, livePsql } from "./live-psql.ts";
import { clientPod, database } from "./objects.ts";
import { type KubernetesObject, openScenario, type Scenario } from "./scenario.ts";

/** A table that holds one order, of tea. */
export const ordersSql = "CREATE TABLE orders (id int, item text); INSERT INTO orders VALUES (1, 'tea');";

/** How a scenario differs from the others. */
export interface OrdersOptions {
  /** What the database holds beside the table of orders. */
  readonly sql?: string;
  /** What the ProtectedResource says beyond what all of them say; two Shared gateways where absent. */
  readonly spec?: Readonly<Record<string, unknown>>;
  /** Whom the policy `readers` names; `ana` of the scenario's own provider where absent. */
  readonly subjects?: readonly object[];
  /** The identity provider, named like the scenario; one whose key the test has where absent. */
  readonly provider?: (cluster: ClusterAccess) => Promise<KubernetesObject>;
  /** Values of the chart beyond what all of them install it with: helm's own flags. */
  readonly values?: readonly string[];
  /** What is applied along with the rest. */
  readonly objects?: readonly KubernetesObject[];
  /** Brings it all up in another order than database, gateways and client at once. */
  readonly setUp?: (orders: Orders) => Promise<void>;
}

/** The scenario, and what its tests do again and again. */
export interface Orders {
  readonly scenario: Scenario;
  readonly issuer: LocalIssuer;
  /** The name of the Service that clients dial. */
  readonly service: string;
  /** The ProtectedResource `orders`, or another one of the same database. */
  resource(spec?: Readonly<Record<string, unknown>>, name?: string): KubernetesObject;
  /** The policy that lets readers in, with this profile. */
  readers(profile: string): KubernetesObject;
  /** What psql is given to come in as a user of the provider, at whichever gateway or at one address. */
  through(user?: string, address?: string): string;
  /** Runs one statement in the client's pod, as `ana` where no target is named. */
  psql(sql: string, target?: string): Promise<CommandResult>;
  /** Opens a psql that stays open until the scenario ends, or the test closes it. */
  live(target?: string): LivePsql;
}

/** Opens a scenario about `orders` for the tests of a file: call it once, at the top. */
export function openOrders(name: string, options: OrdersOptions = {}): Orders {
  const scenario = openScenario(name, { "sallyport.dev/protection": "enabled" });
  const { namespace, cluster } = scenario;
  const issuer = new LocalIssuer(name, `sallyport:${namespace}/orders`);
  const service = `orders-gateway.${namespace}.svc`;
  const { subjects = [{ user: `${name}:ana` }], provider, setUp = sharedGateways } = options;
  const spec = options.spec ?? { placement: { mode: "Shared", replicas: 2 } };
  const open: LivePsql[] = [];
  const through = (user = "ana", address?: string) =>
    connection(service, issuer.token({ user }), address === undefined ? "" : `hostaddr=${address}`);
  const orders: Orders = {
    ...{ scenario, issuer, service, through },
    resource: (more = spec, other = "orders") =>
      protectedResource(other, name, {
        endpoint: { serviceRef: { name: "orders", port: 5432 } },
        credentials: [{ name: "main", secretRef: { name: "orders-credential" } }],
        ...more,
      }),
    readers: (profile) => accessPolicy("readers", { resources: { names: ["orders"] }, subjects, profile }),
    psql: (sql, target = through()) =>
      scenario.exec("client", "psql", target, "-X", "-At", "-v", "VERBOSITY=verbose", "-c", sql),
    live: (target = through()) => {
      const session = livePsql(scenario, "client", `live-${open.length}`, target);
      open.push(session);
      return session;
    },
  };

  beforeAll(async () => {
    await install(cluster, ...(options.values ?? []));
    await cluster.kubectl.apply([
      provider === undefined ? localProvider(issuer, {}, name) : await provider(cluster),
    ]);
    await setUp(orders);
  });
  afterAll(async () => {
    await Promise.all(open.map((session) => session.close()));
  });
  return orders;

  async function sharedGateways(): Promise<void> {
    await scenario.apply(
      ...database("orders", ordersSql + (options.sql ?? "")),
      orders.resource(),
      orders.readers("ReadOnly"),
      ...(options.objects ?? []),
      clientPod("client", { ca: "orders-gateway-ca" }),
    );
    await scenario.ready("statefulset/orders", "deployment/orders-gateway", "pod/client");
    await condition(scenario, "protectedresource/orders", "Ready", "True");
    await scenario.reachable("client", service, 5432);
  }
}

/** libpq's words for a login with a token, over TLS that is checked; what comes later counts over what came before. */
export function connection(host: string, token: string, more = ""): string {
  return (
    `host=${host} user=main dbname=postgres sslmode=verify-full sslrootcert=/ca/ca.crt ` +
    `connect_timeout=5 password=${token} ${more}`
  ).trim();
}
