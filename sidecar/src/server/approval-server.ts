/**
 * Approvals over a Unix socket in a folder that only the gateway's own user may enter. Each request carries the token
 * of whoever sends it, checked by the identity providers of the resource that it is about: the socket alone gives
 * nobody a right.
 */
import { chmod, mkdir, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { join } from "node:path";
import { requestPath, ruleHashOf } from "@sallyport/control";
import { durationMs } from "@sallyport/crds";
import type { ApprovalTerms, Identity } from "@sallyport/policy";
import {
  type Approval,
  type ApprovalBoard,
  type Approver,
  approvalName,
  type BoardAnswer,
  type BoardRefusal,
  progressOf,
} from "../approval/index.ts";
import { requesterOf } from "../guard/index.ts";

/** Who a token speaks for on one resource, and what rules may ask of them there. */
export type Identified =
  | { readonly kind: "identified"; readonly identity: Identity; readonly terms: readonly ApprovalTerms[] }
  | { readonly kind: "refused"; readonly message: string };

/** What the approvers' socket needs. */
export interface ApprovalServerOptions {
  /** The gateway's folder of state. */
  readonly state: string;
  readonly board: ApprovalBoard;
  readonly identify: (token: string, resource: string) => Promise<Identified>;
  /** Something was opened: time must be kept. */
  readonly onOpened: () => void;
}

/** Where the socket and the record are, below a gateway's folder of state. */
export const approvalFolder = (state: string): string => join(state, "approvals");
const socketPath = (state: string): string => join(approvalFolder(state), "socket");
/** The longest path of a Unix socket that every system takes. */
const socketPathMax = 103;
const bodyBytesMax = 16 * 1024;
const requestTimeoutMs = 600_000;

/** Makes the folder that only this user may enter. */
export async function makeApprovalFolder(state: string): Promise<string> {
  const folder = approvalFolder(state);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await chmod(folder, 0o700);
  if (Buffer.byteLength(socketPath(state)) > socketPathMax)
    throw new Error(
      `the path of the approvals socket is too long (${socketPath(state)}); give a shorter --state`,
    );
  return folder;
}

/** Serves the board's requests. */
export async function serveApprovals(options: ApprovalServerOptions): Promise<Server> {
  const path = socketPath(options.state);
  // One that was killed leaves its socket behind.
  await rm(path, { force: true });
  const server = createServer((request, response) => {
    answer(options, request).then(
      ({ status, body }) => send(response, status, body),
      () => send(response, 500, { message: "the request failed" }),
    );
  });
  server.requestTimeout = 10_000;
  server.headersTimeout = 10_000;
  server.maxConnections = 64;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, () => resolve());
  });
  await chmod(path, 0o600);
  return server;
}

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json", connection: "close" });
  response.end(`${JSON.stringify(body)}\n`);
}

async function answer(options: ApprovalServerOptions, request: IncomingMessage): Promise<Answer> {
  const path = requestPath(request.url);
  const [, version, kind, name, what, ...rest] = path.split("/");
  if (version !== "v1" || kind !== "approvals" || rest.length > 0)
    return failed(404, "there is no such path");
  const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? "")?.[1];
  if (token === undefined) return failed(401, "a token is needed");
  const who = new Who(options, token);
  if (request.method === "GET" && what === undefined)
    return name === undefined ? listed(options, who) : shown(options, who, name);
  if (request.method !== "POST") return failed(405, "method not allowed");
  const body = await bodyOf(request);
  if (body === undefined) return failed(400, "the body is no JSON object of at most 16 KiB");
  if (name === undefined) return asked(options, who, body);
  const approval = options.board.find(decodeURIComponent(name));
  const by = approval === undefined ? undefined : await who.on(approval.resource);
  if (approval === undefined || by === undefined) return failed(404, "there is no such request for you");
  if (what === "decisions") {
    const { decision, comment } = body;
    if (decision !== "Approved" && decision !== "Denied") return failed(400, "decision: Approved or Denied");
    return told(options.board.decide(approval.name, by, decision, textOf(comment)));
  }
  if (what === "revocation") return told(options.board.revoke(approval.name, by, textOf(body.reason)));
  return failed(404, "there is no such path");
}

async function listed({ board }: ApprovalServerOptions, who: Who): Promise<Answer> {
  const seen: object[] = [];
  for (const approval of board.all()) {
    const by = await who.on(approval.resource);
    if (by !== undefined && board.maySee(approval, by)) seen.push(viewOf(approval));
  }
  if (seen.length === 0 && who.refusal !== undefined) return failed(401, who.refusal);
  return { status: 200, body: { approvals: seen } };
}

async function shown({ board }: ApprovalServerOptions, who: Who, name: string): Promise<Answer> {
  const approval = board.find(decodeURIComponent(name));
  const by = approval === undefined ? undefined : await who.on(approval.resource);
  if (approval === undefined || by === undefined || !board.maySee(approval, by))
    return failed(404, who.refusal ?? "there is no such request for you");
  return { status: 200, body: viewOf(approval) };
}

async function asked(
  { board, identify, onOpened }: ApprovalServerOptions,
  who: Who,
  body: Readonly<Record<string, unknown>>,
): Promise<Answer> {
  const resource = textOf(body.resource) ?? "";
  const found = await identify(who.token, resource);
  if (found.kind === "refused") return failed(401, found.message);
  const wanted = textOf(body.rule) ?? "";
  const asks = found.terms.filter(({ policy, rule }) => wanted === rule || wanted === `${policy}/${rule}`);
  const durations = asks.map(({ windowMs }) => windowMs ?? 0);
  if (asks.length === 0) return failed(404, `no rule ${wanted} asks you for approval on ${resource}`);
  const given = textOf(body.duration);
  const durationAsked = given === undefined ? Math.min(...durations) : durationMs(given);
  if (durationAsked === undefined || durationAsked <= 0) return failed(400, "duration: such as 30m");
  const reason = textOf(body.reason)?.trim();
  if (!reason && asks.some(({ reasonRequired }) => reasonRequired))
    return failed(400, "a reason is required");
  const answered = board.openAccess(approvalName(resource), {
    resource,
    requester: requesterOf(found.identity),
    ...(reason ? { reason: reason.slice(0, 1024) } : {}),
    asks,
    durationMs: durationAsked,
    timeoutMs: Math.min(requestTimeoutMs, ...asks.map(({ timeoutMs }) => timeoutMs)),
  });
  onOpened();
  return told(answered);
}

/** The sender on each resource that the request touches, verified once each. */
class Who {
  readonly token: string;
  /** Why the token was refused somewhere. */
  refusal: string | undefined;
  private readonly options: ApprovalServerOptions;
  private readonly known = new Map<string, Promise<Approver | undefined>>();

  constructor(options: ApprovalServerOptions, token: string) {
    this.options = options;
    this.token = token;
  }

  on(resource: string): Promise<Approver | undefined> {
    const found = this.known.get(resource) ?? this.ask(resource);
    this.known.set(resource, found);
    return found;
  }

  private async ask(resource: string): Promise<Approver | undefined> {
    const found = await this.options.identify(this.token, resource);
    if (found.kind === "identified") return { ...requesterOf(found.identity), groups: found.identity.groups };
    this.refusal = found.message;
    return undefined;
  }
}

/** What people and programs read of a request. */
export function viewOf(approval: Approval): object {
  const { name, type, resource, requester, phase, asks, createdAt, expiresAt, usedAt, ...rest } = approval;
  const { command, parameters, context, digest, reason, inTransaction, sessionId, cancelledBy, revocation } =
    rest;
  return {
    name,
    type,
    resource,
    requester: requester.user,
    subjectKind: requester.kind,
    onBehalfOf: requester.onBehalfOf,
    phase,
    progress: progressOf(approval),
    command,
    parameters,
    context,
    digest,
    reason,
    inTransaction,
    sessionId,
    policies: asks.map(({ kind, policy, rule, ruleText, required, grant }) => {
      return { kind, policy, rule, required, grant, ruleHash: ruleHashOf(ruleText) };
    }),
    decisions: approval.decisions.map(({ approver, decision, comment, at }) => {
      return { approver, decision, comment, at: new Date(at).toISOString() };
    }),
    cancelledBy,
    revocation: revocation && { ...revocation, at: new Date(revocation.at).toISOString() },
    createdAt: new Date(createdAt).toISOString(),
    expiresAt: new Date(expiresAt).toISOString(),
    usedAt: usedAt === undefined ? undefined : new Date(usedAt).toISOString(),
  };
}

function told(answered: BoardAnswer): Answer {
  if (answered.kind === "done") return { status: 200, body: viewOf(answered.approval) };
  return failed(statusOf[answered.reason], answered.message, answered.reason);
}

const statusOf: Readonly<Record<BoardRefusal["reason"], number>> = {
  NotFound: 404,
  SelfApproval: 403,
  NotHuman: 403,
  ApproverIdentityUnknown: 403,
  NotAnApprover: 403,
  AlreadyDecided: 409,
  Closed: 409,
  TooMany: 429,
  NotAllowed: 400,
  RecordUnavailable: 503,
};

function failed(status: number, message: string, reason?: string): Answer {
  return { status, body: { message, ...(reason === undefined ? {} : { reason }) } };
}

async function bodyOf(request: IncomingMessage): Promise<Readonly<Record<string, unknown>> | undefined> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > bodyBytesMax) return undefined;
    pieces.push(piece);
  }
  try {
    const value: unknown = JSON.parse(Buffer.concat(pieces).toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

const textOf = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined);
