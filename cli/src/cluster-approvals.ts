/**
 * Approvals of a cluster on the command line: the API server is asked with the person's own kubeconfig and rights, and what is
 * written is what `kubectl patch` would write. Nothing is decided here.
 */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Approval, approveRight, policyName } from "@sallyport/crds";
import type { KubeClient, ResourceType } from "@sallyport/operator/kube";
import type { ApprovalView, GatewayOptions } from "./approval-client.ts";
import { CliFailure, reasonOf } from "./failure.ts";
import { exitCodes, type Terminal } from "./terminal.ts";
import { inFolder } from "./values.ts";

/** What a cluster's approvals can be asked. */
interface ClusterApprovals {
  list(): Promise<readonly ApprovalView[]>;
  get(name: string): Promise<ApprovalView>;
  decide(name: string, decision: "Approved" | "Denied", comment?: string): Promise<ApprovalView>;
  revoke(name: string, reason?: string): Promise<ApprovalView>;
  /** Asks for access for a while. */
  request(wish: AccessWish): Promise<ApprovalView>;
}

/** Access that is asked for. */
interface AccessWish {
  readonly resource: string;
  /** `POLICY/RULE`, or `cluster/POLICY/RULE`. */
  readonly rule: string;
  readonly duration: string;
  readonly reason?: string;
}

const approvalType: ResourceType<Approval> = {
  apiVersion: "sallyport.dev/v1alpha1",
  kind: "Approval",
  plural: "approvals",
  isNamespaced: true,
};

/** True where a cluster is meant: it is named, or no gateway of this machine is. */
export function isCluster(options: GatewayOptions, terminal: Terminal): boolean {
  if (options.namespace !== undefined || options.kubeconfig !== undefined) return true;
  if (options.state !== undefined) return false;
  return !existsSync(join(inFolder(terminal.cwd, "./sallyport-state"), "approvals")) && hasKubeconfig();
}

function hasKubeconfig(): boolean {
  const { KUBECONFIG, HOME = "" } = process.env;
  return KUBECONFIG !== undefined || existsSync(join(HOME, ".kube/config"));
}

/** Runs work against the cluster of the kubeconfig; what the API server refuses ends the command with exit code 1. */
export async function inCluster<T>(
  options: GatewayOptions,
  terminal: Terminal,
  work: (approvals: ClusterApprovals) => Promise<T>,
): Promise<T> {
  // Loaded here only: the gateway's process holds no client of Kubernetes.
  const kube = await import("@sallyport/operator/kube");
  const { kubeconfig } = options;
  const source = kubeconfig === undefined ? undefined : { file: inFolder(terminal.cwd, kubeconfig) };
  const connection = await kube.kubeconfigConnection(source).catch((cause: unknown) => {
    throw new CliFailure("the kubeconfig cannot be used", {
      next: "Give --kubeconfig FILE, or set KUBECONFIG; for a gateway on this machine give --state DIR.",
      cause,
    });
  });
  const client = kube.kubeClient({ connection });
  try {
    return await work(approvalsOf(client, options.namespace ?? connection.namespace, terminal.stop));
  } catch (error) {
    if (error instanceof kube.KubeError)
      throw new CliFailure(error.message, { next: nextFor(error.reason), exitCode: exitCodes.finding });
    if (error instanceof CliFailure) throw error;
    throw new CliFailure(`the API server cannot be asked: ${reasonOf(error)}`, {
      next: "Check the kubeconfig, with `kubectl auth whoami`.",
    });
  } finally {
    client.close();
  }
}

function nextFor(reason: string): string {
  if (reason === "NotFound") return "See `sallyport approvals --all`; give -n NAMESPACE.";
  if (reason === "Forbidden") return "Ask for the role sallyport-approver, or let somebody else decide.";
  return "See `sallyport approvals`.";
}

/** What people and programs read of an Approval: the same as of a gateway on this machine. */
function viewOfApproval({ metadata, spec, status }: Approval): ApprovalView {
  const { request, decisions = [] } = spec;
  const { creationTimestamp = "" } = metadata as { readonly creationTimestamp?: string };
  const { onBehalfOf, command, reason, subjectKind = "Human" } = request;
  return {
    name: metadata.name,
    type: request.type,
    resource: `${metadata.namespace ?? ""}/${request.resource}`,
    requester: request.requester,
    subjectKind,
    ...(onBehalfOf === undefined ? {} : { onBehalfOf }),
    phase: status?.phase ?? "Pending",
    progress: status?.progress ?? "",
    ...(command === undefined ? {} : { command }),
    ...(reason === undefined ? {} : { reason }),
    // The command's own notes say so where it is.
    inTransaction: false,
    policies: request.policies.map((asked) => ({
      policy: policyName(asked),
      rule: asked.rule,
      required: asked.required ?? 1,
      grant: request.type === "Access" ? "Window" : "",
    })),
    decisions: decisions.map(({ approver, decision, comment }) => ({
      approver,
      decision,
      ...(comment === undefined ? {} : { comment }),
    })),
    createdAt: creationTimestamp,
    expiresAt: status?.grantedUntil ?? status?.expiresAt ?? request.expiresAt ?? "",
  };
}

/** Makes the calls. */
function approvalsOf(client: KubeClient, namespace: string, signal: AbortSignal): ClusterApprovals {
  const find = (name: string) => client.get(approvalType, { namespace, name }, { signal });
  const fieldManager = "sallyport-cli";
  const write = async (name: string, patch: Parameters<KubeClient["patch"]>[2]) =>
    viewOfApproval(await client.patch(approvalType, { namespace, name }, patch, { fieldManager, signal }));
  const review = async <T>(group: string, kind: string, plural: string, spec: object): Promise<T> => {
    const apiVersion = `${group}.k8s.io/v1`;
    const path = `/apis/${apiVersion}/${plural}`;
    const body = { apiVersion, kind, spec };
    const { status } = (await client.request({ method: "POST", path, body, isRepeatable: true, signal })) as {
      readonly status: T;
    };
    return status;
  };
  const whoAmI = async (): Promise<string> => {
    const { userInfo } = await review<{ readonly userInfo: { readonly username: string } }>(
      ...(["authentication", "SelfSubjectReview", "selfsubjectreviews"] as const),
      {},
    );
    return userInfo.username;
  };
  const mayApprove = async ({
    kind,
    policy,
  }: Approval["spec"]["request"]["policies"][number]): Promise<boolean> => {
    const { allowed } = await review<{ readonly allowed: boolean }>(
      ...(["authorization", "SelfSubjectAccessReview", "selfsubjectaccessreviews"] as const),
      { resourceAttributes: approveRight(kind, policy, namespace) },
    );
    return allowed;
  };
  return {
    list: async () => {
      const { items } = await client.list(approvalType, { namespace, signal });
      return items.map(viewOfApproval);
    },
    get: async (name) => viewOfApproval(await find(name)),
    decide: async (name, decision, comment) => {
      const [{ spec }, approver] = await Promise.all([find(name), whoAmI()]);
      const asked = new Map(spec.request.policies.map((one) => [policyName(one), one]));
      const policies: string[] = [];
      // Of several policies the decision is for those that it names: all that this person may approve under.
      if (asked.size > 1 && decision === "Approved") {
        for (const [policy, one] of asked) if (await mayApprove(one)) policies.push(policy);
      }
      const value = {
        approver,
        decision,
        ...(comment === undefined || comment.trim() === "" ? {} : { comment }),
        ...(policies.length === 0 ? {} : { policies }),
      };
      return write(name, { kind: "json", operations: [{ op: "add", path: "/spec/decisions/-", value }] });
    },
    revoke: async (name, reason) => {
      const by = await whoAmI();
      const revocation = { by, ...(reason === undefined ? {} : { reason }) };
      return write(name, { kind: "merge", merge: { spec: { revocation } } });
    },
    request: async ({ resource, rule, duration, reason }) => {
      const [, cluster, policy, name] = /^(cluster\/)?([^/]+)\/([^/]+)$/.exec(rule) ?? [];
      if (policy === undefined || name === undefined)
        throw new CliFailure(`${rule} names no rule`, {
          next: "Give --rule POLICY/RULE, or --rule cluster/POLICY/RULE.",
        });
      const made: Approval = {
        apiVersion: "sallyport.dev/v1alpha1",
        kind: "Approval",
        metadata: { name: `${resource.slice(0, 40)}-${randomBytes(4).toString("hex")}`, namespace },
        spec: {
          request: {
            type: "Access",
            requester: await whoAmI(),
            resource,
            // The rule's own count holds where it wants more.
            policies: [
              {
                kind: cluster === undefined ? "AccessPolicy" : "ClusterAccessPolicy",
                policy,
                rule: name,
                required: 1,
              },
            ],
            duration,
            ...(reason === undefined ? {} : { reason }),
          },
          decisions: [],
        },
      };
      return viewOfApproval(await client.create(approvalType, made, { fieldManager, signal }));
    },
  };
}
