import { GatewayError } from "../../wire/gateway-error.ts";
import type { ProtocolHost, UpstreamAccount } from "../protocol.ts";
import { LiveCatalog, readMsMax, SessionNames, type SessionNamesOptions } from "./catalog/index.ts";
import { connectUpstream, type UpstreamSession } from "./connect-upstream.ts";
import type { PreparedStatements } from "./prepared.ts";
import { SideConnection, type SideRow } from "./side-connection.ts";
import type { LiveNames } from "./statement-judge.ts";

/** A database's catalog while a session uses it. */
export interface OpenCatalog {
  /** The names of one session; without `upstream`, those before its search_path is known. */
  readonly names: (statements: PreparedStatements, upstream: UpstreamSession | undefined) => LiveNames;
  readonly release: () => void;
}

/** The catalogs of one resource: one for each database and account, read over a side connection while in use. */
export class Catalogs {
  private readonly host: ProtocolHost;
  private readonly live = new Map<string, { readonly catalog: LiveCatalog; readonly side: SideDialer }>();
  /** Readings that failed and were not told of yet, of all databases: who logs in chooses their names. */
  private failures = 0;
  private toldAtMs = Number.NEGATIVE_INFINITY;

  constructor(host: ProtocolHost) {
    this.host = host;
  }

  /** Opens the catalog that a session of `account` in `database` needs; rejects where it cannot be read. */
  async open(database: string, account: UpstreamAccount): Promise<OpenCatalog> {
    const key = JSON.stringify([database, account.name]);
    let found = this.live.get(key);
    if (found === undefined) {
      const side = new SideDialer(this.host, database, account);
      const { catalogAgeMs } = this.host.limits;
      const monotonicMs = () => this.host.clock.monotonicMs();
      // What ends because nobody needs it any more has not failed.
      const onFailure = (error: Error) => {
        if (side.users > 0) this.tell(database, account, error);
      };
      const options = { query: side.query, ageMs: catalogAgeMs, monotonicMs, onFailure };
      found = { catalog: new LiveCatalog(options), side };
      this.live.set(key, found);
    }
    const { catalog, side } = found;
    catalog.retain();
    side.users += 1;
    let isReleased = false;
    const release = () => {
      if (isReleased) return;
      isReleased = true;
      catalog.release();
      side.users -= 1;
      if (side.users === 0) side.close();
    };
    try {
      await catalog.refresh(false);
    } catch (error) {
      release();
      // Of a database that is not there nothing stays.
      if (side.users === 0) this.live.delete(key);
      if (error instanceof GatewayError) throw error;
      throw new GatewayError("catalogUnavailable", { cause: error });
    }
    const names = (statements: PreparedStatements, upstream: UpstreamSession | undefined) =>
      new SessionNames({
        catalog,
        account: upstream?.roles.current ?? account.role ?? account.username,
        ...(upstream === undefined ? {} : { login: loginOf(upstream.roles.session, account) }),
        reportsSearchPath: upstream?.parameters.has("search_path") ?? false,
        initialSearchPath: upstream?.searchPath ?? '"$user", public',
        prepared: (name) => statements.lookUp(name),
      });
    return { names, release };
  }

  /** Statements are refused meanwhile, with 57P03: whoever runs the gateway should know why, and not once a second. */
  private tell(database: string, account: UpstreamAccount, error: Error): void {
    this.failures += 1;
    const now = this.host.clock.monotonicMs();
    if (now - this.toldAtMs < tellEveryMs) return;
    const cause = (error.cause instanceof Error ? error.cause.message : error.message).slice(0, 300);
    this.host.warn("the catalog could not be read", {
      database: database.slice(0, 63),
      account: account.name,
      failures: this.failures,
      cause,
    });
    this.failures = 0;
    this.toldAtMs = now;
  }
}

/** What the account's sessions may come back to. */
function loginOf(user: string, { role }: UpstreamAccount): SessionNamesOptions["login"] {
  return { user, isHeld: role !== undefined };
}

const tellEveryMs = 60_000;

// What a database or an account has as its own is for its statements, not for these.
const readingSettings = [
  "SET search_path = pg_catalog",
  "SET default_transaction_read_only = on",
  // One that is serializable and deferrable waits for all others that are.
  "SET default_transaction_isolation = 'read committed'",
  `SET statement_timeout = ${readMsMax}`,
  "SET plan_cache_mode = force_generic_plan",
  // Over a thousand expressions of which few meet many rows: compiling them takes a hundred times as long as they do.
  "SET jit = off",
].join("; ");

type Values = readonly (string | null)[];

/** Holds the side connection of one database and dials it again when it is lost. */
class SideDialer {
  users = 0;
  private connection: Promise<SideConnection> | undefined;
  private readonly host: ProtocolHost;
  private readonly database: string;
  private readonly account: UpstreamAccount;

  constructor(host: ProtocolHost, database: string, account: UpstreamAccount) {
    this.host = host;
    this.database = database;
    this.account = account;
  }

  /**
   * Runs a query, a second time where the first fails: a connection may be lost, and a view that somebody drops while
   * it is printed fails the whole catalog query.
   */
  readonly query = async (sql: string, values?: Values): Promise<readonly SideRow[]> => {
    try {
      return await this.attempt(sql, values);
    } catch {
      return this.attempt(sql, values);
    }
  };

  private async attempt(sql: string, values: Values | undefined): Promise<readonly SideRow[]> {
    // A reading that the last session's end has cut short would leave a connection that nobody closes.
    if (this.users === 0) throw new GatewayError("upstreamUnreachable");
    this.connection ??= this.open();
    const { connection } = this;
    try {
      return await (await connection).query(sql, values);
    } catch (error) {
      if (this.connection === connection) this.drop();
      throw error;
    }
  }

  close(): void {
    this.drop();
  }

  private drop(): void {
    const { connection } = this;
    this.connection = undefined;
    connection?.then(
      (open) => open.close(),
      () => undefined,
    );
  }

  private async open(): Promise<SideConnection> {
    // The account as the resource has it now: a rotated password must not outlive its secret.
    const account = this.host.currentAccount(this.account.name);
    const upstream = await connectUpstream({
      target: this.host.target(account),
      account,
      database: this.database,
      settings: new Map(),
      applicationName: "sallyport catalog",
      signal: AbortSignal.timeout(this.host.limits.upstreamLoginMs),
    });
    const connection = new SideConnection(upstream.socket);
    try {
      // Not at start-up: PgBouncer takes no settings there that it does not know. Operators are looked for along the
      // search_path, and one of a user's own would be nearer to its operands than the server's.
      const [row] = await connection.query(`${readingSettings}; SELECT pg_catalog.pg_backend_pid() AS pid`);
      // A pooler tells a number of its own, and may give what was prepared to others, or theirs to this connection.
      connection.keepsStatements = row?.pid === String(upstream.cancelKey?.processId);
    } catch (error) {
      connection.close();
      throw error;
    }
    return connection;
  }
}
