import { network } from "../../wire/network.ts";
import type { DeviceLogin, ProtocolHost } from "../protocol.ts";

/** Device codes that are open at once for a resource, and for one client address. */
const openMax = 64;
const openByAddressMax = 4;
/** Codes that are asked for in a minute: each makes the identity provider work for somebody who has proven nothing. */
const perMinuteMax = 120;
const perMinuteByAddressMax = 12;

/** Begins logins by device code for whoever asks, within bounds; where those are reached there are none. */
export class DeviceLogins {
  readonly #host: ProtocolHost;
  readonly #open = new Map<string, number>();
  #openCount = 0;
  #minuteMs = 0;
  #asked = new Map<string, number>();
  #askedCount = 0;

  constructor(host: ProtocolHost) {
    this.#host = host;
  }

  /** A code for a client of that address, and what to call when it is no longer waited for; undefined: none to be had. */
  async begin(
    from: string,
    signal: AbortSignal,
  ): Promise<{ readonly login: DeviceLogin; readonly release: () => void } | undefined> {
    const { beginDeviceLogin } = this.#host;
    const address = network(from);
    if (beginDeviceLogin === undefined || !this.#mayBegin(address)) return undefined;
    this.#change(address, 1);
    let isHeld = true;
    const release = () => {
      if (isHeld) this.#change(address, -1);
      isHeld = false;
    };
    try {
      return { login: await beginDeviceLogin(signal), release };
    } catch (error) {
      release();
      this.#host.report(error, "");
      return undefined;
    }
  }

  #mayBegin(address: string): boolean {
    const now = this.#host.clock.monotonicMs();
    if (now - this.#minuteMs >= 60_000) {
      this.#minuteMs = now;
      this.#asked = new Map();
      this.#askedCount = 0;
    }
    const asked = this.#asked.get(address) ?? 0;
    if (this.#openCount >= openMax || (this.#open.get(address) ?? 0) >= openByAddressMax) return false;
    if (this.#askedCount >= perMinuteMax || asked >= perMinuteByAddressMax) return false;
    this.#asked.set(address, asked + 1);
    this.#askedCount += 1;
    return true;
  }

  #change(address: string, by: number): void {
    const count = (this.#open.get(address) ?? 0) + by;
    this.#openCount += by;
    if (count <= 0) this.#open.delete(address);
    else this.#open.set(address, count);
  }
}
