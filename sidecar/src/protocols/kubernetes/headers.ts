/** Which headers pass: what speaks of the client's identity never reaches the server, what speaks of one hop never passes. */
import type { IncomingHttpHeaders } from "node:http";
import type { Identity } from "@sallyport/policy";
import type { HeaderFields } from "../../wire/http-server.ts";
import type { UpstreamAccount } from "../protocol.ts";

const ofOneHop = new Set(
  (
    "connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding " +
    "upgrade http2-settings"
  ).split(" "),
);
const ofTheClient = new Set(
  "host authorization cookie cookie2 expect forwarded content-length via origin sec-websocket-key sec-websocket-accept".split(
    " ",
  ),
);
const families = [
  "sallyport-",
  "impersonate-",
  "x-remote-",
  "x-forwarded-",
  "x-client-",
  "x-ssl-",
  "ssl-client-",
  ":",
];

/** What a client's headers leave behind for the server, with the gateway's own credential and whom it speaks for. */
export function upstreamHeaders(
  headers: IncomingHttpHeaders,
  account: UpstreamAccount,
  identity: Identity,
  marks: { readonly uid?: string; readonly extra: Readonly<Record<string, string>> },
): HeaderFields {
  const kept: Record<string, string | readonly string[]> = {};
  // What a client lists under Connection is of one hop, too.
  const listed = new Set((headers.connection ?? "").toLowerCase().split(/\s*,\s*/));
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || ofOneHop.has(name) || ofTheClient.has(name) || listed.has(name)) continue;
    if (families.some((family) => name.startsWith(family))) continue;
    const shown = name === "sec-websocket-protocol" ? withoutTokens(value) : value;
    if (shown !== "") kept[name] = shown;
  }
  if (account.password !== undefined) kept.authorization = `Bearer ${account.password.trim()}`;
  kept["impersonate-user"] = headerText(identity.user);
  if (identity.groups.length > 0) kept["impersonate-group"] = identity.groups.map(headerText);
  if (marks.uid !== undefined) kept["impersonate-uid"] = headerText(marks.uid);
  for (const [name, value] of Object.entries(marks.extra)) {
    kept[`impersonate-extra-${encodeURIComponent(name).toLowerCase()}`] = headerText(value);
  }
  return kept;
}

/** Headers of the server's answer as the client gets them. */
export function clientHeaders(headers: IncomingHttpHeaders): Record<string, string | readonly string[]> {
  const kept: Record<string, string | readonly string[]> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || ofOneHop.has(name) || name === "set-cookie") continue;
    kept[name] = value;
  }
  return kept;
}

/** Browsers have no header for a token and send it as the name of a protocol. */
function withoutTokens(value: string | readonly string[]): string {
  const names = [value]
    .flat()
    .join(",")
    .split(/\s*,\s*/);
  return names.filter((name) => !/^base64url\.bearer\./i.test(name.trim())).join(", ");
}

/** UTF-8 as the bytes of a header, which Node takes as Latin-1; what would end the header is refused by Node. */
function headerText(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}

/**
 * Why a client does what it asks for, where it says so: in the gateway's own header, or as kubectl can say it, beside a name
 * that counts for nothing (`--as=me --as-user-extra=sallyport-reason=…`).
 */
export function reasonIn(headers: IncomingHttpHeaders): string | undefined {
  const given = headers["sallyport-reason"] ?? headers["impersonate-extra-sallyport-reason"];
  return given === undefined ? undefined : Buffer.from([given].flat().join(", "), "latin1").toString("utf8");
}
