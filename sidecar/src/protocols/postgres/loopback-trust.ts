/** Whether the server beside the gateway lets anybody of its pod in: what a gateway tries that shares its loopback. */
import type { Socket } from "node:net";
import { dial, readByte, secure } from "../../wire/dial.ts";
import type { LoopbackFinding, LoopbackTrial } from "../protocol.ts";
import { sslRequest, startupMessage } from "./upstream-login.ts";

/** `pg_hba.conf` is read by address, database, account and transport: the likely lines of each are tried. */
const hosts = ["127.0.0.1", "::1"];
const transports = ["plain", "tls"] as const;
const attemptMs = 3_000;
const usersMax = 4;

/** Begins logins without a credential, and ends each as soon as the server has said whether it wants one. */
export async function trustsLoopback({ port, users, signal }: LoopbackTrial): Promise<LoopbackFinding> {
  // A line for everybody also takes an account that does not exist: the server looks for it later.
  const tried = [...new Set([...users.slice(0, usersMax), "postgres"])];
  const heard: string[] = [];
  for (const host of hosts) {
    for (const [user, database, transport] of combinations(tried)) {
      const found = await attempt({ host, port, user, database, transport, signal });
      if (found === "let in") return { kind: "trusted", user, host };
      // The pod may have one family only: what nobody listens on lets nobody in.
      if (found === "unreached") break;
      if (found === "asked") heard.push(host);
    }
  }
  return { kind: heard.length > 0 ? "closed" : "unknown" };
}

function combinations(users: readonly string[]) {
  return users.flatMap((user) =>
    [...new Set(["postgres", user])].flatMap((database) =>
      transports.map((transport) => [user, database, transport] as const),
    ),
  );
}

type Answer = "let in" | "asked" | "unheard" | "unreached";

interface Attempt {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly transport: (typeof transports)[number];
  readonly signal: AbortSignal;
}

async function attempt({ transport, user, database, ...place }: Attempt): Promise<Answer> {
  const { host, port } = place;
  const signal = AbortSignal.any([place.signal, AbortSignal.timeout(attemptMs)]);
  const target = (mode: "disable" | "require") => ({ host, port, tls: { mode } });
  let socket: Socket | undefined;
  try {
    socket = await dial(target(transport === "plain" ? "disable" : "require"), signal);
    if (transport === "tls") {
      socket.write(sslRequest);
      if ((await readByte(socket, signal)) !== 0x53) return "unheard";
      socket = await secure(socket, target("require"), signal);
    }
    const startup = startupMessage(
      [
        ["user", user],
        ["database", database],
        ["application_name", "sallyport"],
      ],
      0,
    );
    if (startup === undefined) return "unheard";
    socket.write(startup);
    return answerOf(await firstBytes(socket, signal));
  } catch {
    // Whoever does not answer has let nobody in; that nothing was heard at all is told apart.
    return socket === undefined ? "unreached" : "unheard";
  } finally {
    socket?.destroy();
  }
}

/** Int8 type, int32 length, and of Authentication an int32 that is 0 where nothing more is wanted. */
function answerOf(bytes: Buffer): Answer {
  if (bytes[0] === 0x45) return "asked";
  if (bytes[0] !== 0x52 || bytes.length < 9) return "unheard";
  return bytes.readInt32BE(5) === 0 ? "let in" : "asked";
}

function firstBytes(socket: Socket, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let held = Buffer.alloc(0);
    const end = () => {
      signal.removeEventListener("abort", end);
      if (held.length > 0) resolve(held);
      else reject(new Error("the server said nothing"));
    };
    socket.on("data", (chunk: Buffer) => {
      held = Buffer.concat([held, chunk]);
      if (held.length >= 9) end();
    });
    socket.once("close", end);
    socket.once("error", end);
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
    socket.resume();
  });
}
