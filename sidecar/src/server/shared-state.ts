/**
 * What all processes of one gateway know together: live sessions by user, failed logins, and where cancel requests go.
 * A single process keeps it itself; of several, the first one does and the others ask (see processes.ts).
 */
import { network } from "../wire/network.ts";
import { AttemptTable } from "./attempt-table.ts";

/** Who tries to log in: nothing of it is proven yet. */
export interface LoginAttempt {
  readonly resource: string;
  /** The account that the client names. */
  readonly user: string;
  readonly address: string;
}

/** Who is locked out, and for how long. */
export interface LockOut {
  readonly by: "user" | "address";
  readonly leftMs: number;
}

/** A cancel request for a session elsewhere. */
export interface CancelOrder {
  readonly resource: string;
  readonly replica: number;
  readonly process: number;
  readonly processId: number;
  readonly keyHex: string;
}

/** Asks for the id of a denial that was given elsewhere a moment ago; whoever has it gives it away once. */
export interface DenialOrder {
  readonly resource: string;
  /** What was denied to whom, as hex; see `digestOfDenial`. */
  readonly digest: string;
}

/** What one process asks the others, and the other replicas. */
export interface Elsewhere {
  /** Hands a cancel request to the process that its key names; false where nobody took it. */
  forwardCancel(order: CancelOrder): Promise<boolean>;
  /** Undefined where nobody has it, or says so in time. */
  takeDenial(order: DenialOrder): Promise<string | undefined>;
}

/** How long a client that was denied waits for others' denials: who does not answer costs a second record. */
export const denialMs = 1_000;

export interface SharedState extends Elsewhere {
  /** Counts a session of `user`; false where `max` are live already, and then nothing is counted. */
  enter(user: string, max: number | undefined): Promise<boolean>;
  leave(user: string): void;
  /** Undefined where the login may be tried. */
  lockOut(attempt: LoginAttempt): Promise<LockOut | undefined>;
  /** Counts a failed login; says which bound it reached. */
  loginFailed(attempt: LoginAttempt): Promise<LockOut["by"] | undefined>;
  loginSucceeded(attempt: LoginAttempt): void;
  /** False where an address has sent too many wrong keys. */
  mayCancel(address: string): Promise<boolean>;
  cancelMissed(address: string): void;
}

export interface LoginBounds {
  /** Failed logins as one user from one address. */
  readonly failedLoginsMax: number;
  /** Failed logins from one address, whoever they name. */
  readonly failedLoginsByAddressMax: number;
  readonly lockOutMs: number;
}

const keysMax = 20_000;
/** A key that has just ended is cancelled by honest clients too; a guesser needs 2^48 of them. */
const missedCancelsMax = 100;
const cancelWindowMs = 60_000;

/** The state itself, in the memory of one process. */
export class LocalState implements SharedState {
  private readonly sessions = new Map<string, number>();
  private readonly byUser: AttemptTable;
  private readonly byAddress: AttemptTable;
  private readonly missedCancels: AttemptTable;
  private readonly elsewhere: Elsewhere;

  constructor(bounds: LoginBounds, monotonicMs: () => number, elsewhere: Elsewhere = nobodyElse) {
    const table = (failuresMax: number, windowMs: number) =>
      new AttemptTable({ failuresMax, windowMs, keysMax, monotonicMs });
    this.byUser = table(bounds.failedLoginsMax, bounds.lockOutMs);
    this.byAddress = table(bounds.failedLoginsByAddressMax, bounds.lockOutMs);
    this.missedCancels = table(missedCancelsMax, cancelWindowMs);
    this.elsewhere = elsewhere;
  }

  enter(user: string, max: number | undefined): Promise<boolean> {
    // Asked and counted in one step: of two logins at the same moment only one gets the last place.
    const live = this.sessions.get(user) ?? 0;
    if (max !== undefined && live >= max) return Promise.resolve(false);
    this.sessions.set(user, live + 1);
    return Promise.resolve(true);
  }

  leave(user: string): void {
    const live = this.sessions.get(user) ?? 0;
    if (live > 1) this.sessions.set(user, live - 1);
    else this.sessions.delete(user);
  }

  lockOut(attempt: LoginAttempt): Promise<LockOut | undefined> {
    const byAddress = this.byAddress.lockedMs(network(attempt.address));
    if (byAddress > 0) return Promise.resolve({ by: "address", leftMs: byAddress });
    const byUser = this.byUser.lockedMs(pair(attempt));
    return Promise.resolve(byUser > 0 ? { by: "user", leftMs: byUser } : undefined);
  }

  loginFailed(attempt: LoginAttempt): Promise<LockOut["by"] | undefined> {
    const isUserLocked = this.byUser.failed(pair(attempt));
    const isAddressLocked = this.byAddress.failed(network(attempt.address));
    const userReached = isUserLocked ? "user" : undefined;
    return Promise.resolve(isAddressLocked ? "address" : userReached);
  }

  loginSucceeded(attempt: LoginAttempt): void {
    // Only the pair: otherwise an attacker with one good token could wash the address clean for guesses at others.
    this.byUser.succeeded(pair(attempt));
  }

  mayCancel(address: string): Promise<boolean> {
    return Promise.resolve(this.missedCancels.lockedMs(network(address)) === 0);
  }

  cancelMissed(address: string): void {
    this.missedCancels.failed(network(address));
  }

  forwardCancel(order: CancelOrder): Promise<boolean> {
    return this.elsewhere.forwardCancel(order);
  }

  takeDenial(order: DenialOrder): Promise<string | undefined> {
    return this.elsewhere.takeDenial(order);
  }
}

const nobodyElse: Elsewhere = {
  forwardCancel: () => Promise.resolve(false),
  takeDenial: () => Promise.resolve(undefined),
};

/** A user is locked out together with an address: by the user alone, anybody could lock anybody out. */
const pair = ({ resource, user, address }: LoginAttempt): string =>
  `${resource}\n${network(address)}\n${user}`;
