/** A server with a database `shop`, a gateway in front of it, and byte-by-byte clients on both sides of it. */
import { type Gateway, startGateway } from "./gateway.ts";
import { type PostgresServer, type PostgresVersion, startPostgres } from "./postgres.ts";
import { WireClient } from "./wire-client.ts";

/** What a scenario brings along. */
export interface ShopOptions {
  /** Run in `shop` by the superuser; the account `direct` is there already. */
  readonly initSql: string;
  /** YAML documents: AccessPolicies and ClusterAccessPolicies. */
  readonly policies: string;
  readonly version?: PostgresVersion;
  /** What the gateway logs in with; `initSql` has made it. The superuser where absent. */
  readonly account?: { readonly username: string; readonly password: string };
  /** Further arguments of the gateway. */
  readonly args?: readonly string[];
}

/** The pair, and how to get in. */
export interface Shop {
  readonly server: PostgresServer;
  readonly gateway: Gateway;
  /** A connection to the gateway with TLS and nothing else. */
  secured(): Promise<WireClient>;
  /** A session through the gateway. */
  logIn(claims: Parameters<Gateway["token"]>[0]): Promise<WireClient>;
  /** A session of `direct` at the server itself. */
  logInDirect(): Promise<WireClient>;
  stop(): Promise<void>;
}

/** Starts both; what has started is stopped again where the other does not. */
export async function startShop(options: ShopOptions): Promise<Shop> {
  const { initSql, policies, version, account, args = [] } = options;
  const server = await startPostgres({
    tls: true,
    database: "shop",
    hba: ["hostssl all direct 127.0.0.1/32 password"],
    initSql: `CREATE ROLE direct LOGIN PASSWORD 'direct';\n${initSql}`,
    ...(version === undefined ? {} : { version }),
  });
  const gateway = await startGateway({
    ...{ server, policies, args },
    ...(account === undefined ? {} : { account }),
  }).catch(async (error: unknown) => {
    await server.stop();
    throw error;
  });
  const database = "shop";
  return {
    server,
    gateway,
    secured: async () => {
      const client = await WireClient.connect(gateway.port);
      await client.startTls(gateway.caPem);
      return client;
    },
    logIn: (claims) => {
      const { port, caPem: ca, issuer, user } = gateway;
      return WireClient.logIn({ port, ca, user, database, password: issuer.token(claims) });
    },
    logInDirect: () => {
      const { port, caPem: ca } = server;
      return WireClient.logIn({ port, ca, user: "direct", database, password: "direct" });
    },
    stop: async () => {
      await gateway.stop();
      await server.stop();
    },
  };
}
