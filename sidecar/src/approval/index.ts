/**
 * Approvals: who is asked before a held command runs, and what they said. `board` keeps requests and decisions,
 * `service` is what sessions hold by, `record-file` the chained record. It opens no sockets and knows no protocol.
 */
export {
  ApprovalBoard,
  type Approver,
  type BoardAnswer,
  type BoardListener,
  type BoardRefusal,
  progressOf,
} from "./board.ts";
export * from "./model.ts";
export { ApprovalRecord } from "./record-file.ts";
export { approvalName, BoardService, LocalApprovals, type RemoteBoard } from "./service.ts";
