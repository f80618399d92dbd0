import type { Server } from "node:http";
import { join } from "node:path";
import { ApprovalRecord, type BoardListener, LocalApprovals, type RemoteBoard } from "../approval/index.ts";
import { lockWriter, type WriterLock } from "../recording/writer-lock.ts";
import { type Identified, makeApprovalFolder, serveApprovals } from "./approval-server.ts";
import type { GatewayConfiguration } from "./configuration.ts";

/** The approvals of one standalone gateway: its board, the record on disk, and the socket for approvers. */
export class ApprovalHost {
  private readonly approvals: LocalApprovals;
  private readonly server: Server;
  private readonly lock: WriterLock;

  private constructor(approvals: LocalApprovals, server: Server, lock: WriterLock) {
    this.approvals = approvals;
    this.server = server;
    this.lock = lock;
  }

  /** Opens the record and the socket; throws where the record was changed, and where another gateway has them. */
  static async open(
    { state, approvers }: Pick<GatewayConfiguration, "state" | "approvers">,
    identify: (token: string, resource: string) => Promise<Identified>,
  ): Promise<ApprovalHost> {
    const folder = await makeApprovalFolder(state);
    const lock = await lockWriter(join(folder, "writer.lock"), "approvals");
    try {
      const approvals = new LocalApprovals(new ApprovalRecord(join(folder, "record.jsonl")), approvers);
      const { board, service } = approvals;
      const server = await serveApprovals({ state, board, identify, onOpened: () => service.startTimer() });
      return new ApprovalHost(approvals, server, lock);
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** What sessions of this process hold by. */
  get service() {
    return this.approvals.service;
  }

  /** The board for sessions of other processes. */
  get remote(): RemoteBoard {
    return this.approvals.remote();
  }

  tell(listener: BoardListener): () => void {
    return this.approvals.tell(listener);
  }

  async close(): Promise<void> {
    this.server.close();
    this.server.closeAllConnections();
    this.approvals.close();
    await this.lock.release();
  }
}
