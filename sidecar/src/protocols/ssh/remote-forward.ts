/** What `-R` asks of the host: to listen on a port, or on a socket, and to hand on who comes there. */
import type { ObjectRef } from "@sallyport/policy";
import { file, lexicalPath, thing } from "./commands.ts";
import { globMatcher } from "./glob.ts";
import type { Field, Reader } from "./messages.ts";

/** A place at which the host is to listen for the client. */
export interface RemoteForward {
  /** `address:port` or a path: what the resource offers, and policy judges. */
  readonly object: ObjectRef;
  readonly isOffered: boolean;
  /** What the recording says of a refusal. */
  readonly noted: Readonly<Record<string, string | number>>;
  readonly begin: GlobalRequest;
  /** `bound` is the port that the host has chosen, where it was to choose one. */
  end(bound?: number): GlobalRequest;
  /** How the host's channels name it. */
  key(bound?: number): string;
}

/** A global request with its fields. */
export interface GlobalRequest {
  readonly name: string;
  readonly fields: readonly Field[];
}

/** `string address, uint32 port` (RFC 4254, 7.1); `offered` are the resource's `forwarding.remote`. */
export function portForward(address: string, port: number, offered: readonly string[]): RemoteForward {
  const place = `${address === "" ? "*" : address}:${port}`;
  const at = (bound: number) => (port === 0 ? bound : port);
  return {
    object: thing(place),
    isOffered: offered.some((pattern) => globMatcher(pattern)(place)),
    noted: { host: address.slice(0, 255), port },
    begin: { name: "tcpip-forward", fields: [address, port] },
    end: (bound = 0) => ({ name: "cancel-tcpip-forward", fields: [address, at(bound)] }),
    key: (bound = 0) => portKey(address, at(bound)),
  };
}

/** `string path` (OpenSSH's PROTOCOL, 2.4): a path must be offered as it is, no pattern covers it. */
export function socketForward(path: string, offered: readonly string[]): RemoteForward {
  return {
    object: file(path),
    isOffered: path.startsWith("/") && path === lexicalPath(path) && offered.includes(path),
    noted: { path: path.slice(0, 255) },
    begin: { name: "streamlocal-forward@openssh.com", fields: [path] },
    end: () => ({ name: "cancel-streamlocal-forward@openssh.com", fields: [path] }),
    key: () => socketKey(path),
  };
}

/** The key of the place that a channel of the host comes from; undefined where its type is another. */
export function originOf(type: string, reader: Reader): string | undefined {
  if (type === "forwarded-tcpip") return portKey(reader.text(), reader.uint32());
  if (type === "forwarded-streamlocal@openssh.com") return socketKey(reader.text());
  return undefined;
}

const portKey = (address: string, port: number) => `port ${address}:${port}`;
const socketKey = (path: string) => `socket ${path}`;
