import type { Approval } from "@sallyport/crds";

/** What became of a request. */
export type NotifiedEvent = "Requested" | "Approved" | "Denied" | "Expired" | "Cancelled" | "Revoked";

const fields = [
  "event",
  "name",
  "namespace",
  "resource",
  "type",
  "requester",
  "onBehalfOf",
  "rules",
  "reason",
  "command",
  "progress",
  "comment",
  "expiresAt",
  "approve",
] as const;
type Field = (typeof fields)[number];

/** A JSON value with `{{field}}` in its texts; nothing in it is run. */
export type Template = { readonly json: unknown };

/** What is sent where no template is given: no command, whose text may say more than a chat should know. */
const standard = {
  text: "{{event}}: {{requester|slack}} on {{namespace}}/{{resource}} ({{rules}}). {{approve|slack}}",
};

const commandCharactersMax = 1_000;
const depthMax = 16;
const placeholder = /\{\{\s*([A-Za-z]+)\s*(?:\|\s*(slack)\s*)?\}\}/g;

/** Reads a template; throws what is wrong with it. */
export function parseTemplate(text: string): Template {
  if (text.trim() === "") return { json: standard };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new Error("the template of notifications is no JSON", { cause });
  }
  if (typeof json !== "object" || json === null || Array.isArray(json))
    throw new Error("the template of notifications must be a JSON object");
  // Tried once: an unknown field is an error now, and not when somebody waits.
  filled(json, (name) => {
    if (!(fields as readonly string[]).includes(name))
      throw new Error(`the template of notifications names ${name}; there are ${fields.join(", ")}`);
    return "";
  });
  return { json };
}

/** The body for one event. Values go into texts only: what a requester writes cannot change the shape of it. */
export function bodyOf({ json }: Template, approval: Approval, event: NotifiedEvent): string {
  const values = valuesOf(approval, event);
  return JSON.stringify(filled(json, (name) => values[name as Field]));
}

function filled(value: unknown, textFor: (name: string) => string, depth = 0): unknown {
  if (depth > depthMax) throw new Error("the template of notifications is nested too deeply");
  if (typeof value === "string") {
    return value.replaceAll(placeholder, (_, name: string, form: string | undefined) => {
      const found = textFor(name);
      return form === "slack" ? slackText(found) : found;
    });
  }
  if (Array.isArray(value)) return value.map((one) => filled(one, textFor, depth + 1));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key, filled(one, textFor, depth + 1)]),
  );
}

/** Slack reads <!channel> and links in texts; its three characters are written as it says. */
const slackText = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function valuesOf({ metadata, spec, status }: Approval, event: NotifiedEvent): Record<Field, string> {
  const { request, decisions = [], revocation } = spec;
  const { command = "" } = request;
  const namespace = metadata.namespace ?? "";
  const denial = decisions.find(({ decision }) => decision === "Denied");
  return {
    event,
    name: metadata.name,
    namespace,
    resource: request.resource,
    type: request.type,
    requester: request.requester,
    onBehalfOf: request.onBehalfOf ?? "",
    rules: request.policies.map(({ policy, rule }) => `${policy}/${rule}`).join(", "),
    reason: request.reason ?? "",
    command: command.length > commandCharactersMax ? `${command.slice(0, commandCharactersMax)} …` : command,
    progress: status?.progress ?? "",
    comment: denial?.comment ?? revocation?.reason ?? "",
    expiresAt: status?.grantedUntil ?? status?.expiresAt ?? request.expiresAt ?? "",
    approve: `sallyport approve ${metadata.name} -n ${namespace}`,
  };
}
