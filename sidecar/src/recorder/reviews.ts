import { readFile } from "node:fs/promises";
import { Agent, request } from "node:https";

/** Who a token is, or why nobody. */
export interface ReviewedUser {
  readonly username: string;
  readonly uid: string;
  readonly groups: readonly string[];
  readonly extra: Readonly<Record<string, readonly string[]>>;
}

/** The two questions that the recorder may ask the API server; it has no other right there. */
export interface Reviews {
  /** The user behind a token that was issued for one of the audiences; undefined for any other. */
  review(token: string, audiences: readonly string[]): Promise<ReviewedUser | undefined>;
  /** Whether a user may `get` `sessions/recording` in a namespace. */
  mayReplay(user: ReviewedUser, namespace: string): Promise<boolean>;
}

/** Where the API server is and how the recorder shows who it is. */
export interface ReviewsOptions {
  readonly url: string;
  readonly tokenFile: string;
  readonly caFile: string;
}

/** The API server as every pod finds it. */
export const inClusterReviews = (
  environment: Readonly<Record<string, string | undefined>>,
): ReviewsOptions => ({
  url: `https://${environment.KUBERNETES_SERVICE_HOST}:${environment.KUBERNETES_SERVICE_PORT ?? "443"}`,
  tokenFile: "/var/run/secrets/kubernetes.io/serviceaccount/token",
  caFile: "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
});

/** Asks the API server; a question that gets no clear yes throws or answers no. */
export function kubeReviews(options: ReviewsOptions): Reviews {
  return {
    async review(token, audiences) {
      const status = await post(options, "authentication.k8s.io", "TokenReview", { token, audiences });
      const isFor = audiences.length === 0 || listOf(status.audiences).some((one) => audiences.includes(one));
      if (status.authenticated !== true || !isFor) return undefined;
      const user = recordOf(status.user);
      const username = user.username;
      if (typeof username !== "string" || username === "") return undefined;
      const extra = Object.entries(recordOf(user.extra)).map(
        ([name, values]) => [name, listOf(values)] as const,
      );
      const uid = typeof user.uid === "string" ? user.uid : "";
      return { username, uid, groups: listOf(user.groups), extra: Object.fromEntries(extra) };
    },
    async mayReplay({ username, uid, groups, extra }, namespace) {
      const resourceAttributes = {
        namespace,
        verb: "get",
        group: "sallyport.dev",
        resource: "sessions",
        subresource: "recording",
      };
      const spec = { user: username, uid, groups, extra, resourceAttributes };
      const status = await post(options, "authorization.k8s.io", "SubjectAccessReview", spec);
      return status.allowed === true && status.denied !== true;
    },
  };
}

const answerBytesMax = 1024 * 1024;
const deadlineMs = 10_000;
const agents = new Map<string, Agent>();

async function post(
  options: ReviewsOptions,
  group: string,
  kind: string,
  spec: object,
): Promise<Readonly<Record<string, unknown>>> {
  // Both are rotated while the process runs.
  const [token, ca] = await Promise.all([
    readFile(options.tokenFile, "utf8"),
    readFile(options.caFile, "utf8"),
  ]);
  const agent = agents.get(ca) ?? new Agent({ keepAlive: true, maxSockets: 8, ca });
  if (!agents.has(ca)) {
    for (const old of agents.values()) old.destroy();
    agents.clear();
    agents.set(ca, agent);
  }
  const body = JSON.stringify({ apiVersion: `${group}/v1`, kind, spec });
  const url = new URL(`/apis/${group}/v1/${kind.toLowerCase()}s`, options.url);
  const text = await new Promise<string>((resolve, reject) => {
    const sent = request(
      url,
      {
        method: "POST",
        agent,
        signal: AbortSignal.timeout(deadlineMs),
        headers: {
          authorization: `Bearer ${token.trim()}`,
          "content-type": "application/json",
          "content-length": Buffer.byteLength(body),
        },
      },
      (answer) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        answer.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > answerBytesMax) sent.destroy(new Error("the API server's answer is too long"));
          chunks.push(chunk);
        });
        answer.on("error", reject);
        answer.on("end", () => {
          if (answer.statusCode === 201) resolve(Buffer.concat(chunks).toString());
          else reject(new Error(`the API server answered a ${kind} with ${answer.statusCode}`));
        });
      },
    );
    sent.on("error", reject);
    sent.end(body);
  });
  return recordOf(recordOf(JSON.parse(text)).status);
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
}

function listOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((one): one is string => typeof one === "string") : [];
}
