import { execFile } from "node:child_process";
import { hostname } from "node:os";
import { extname, join } from "node:path";
import { promisify } from "node:util";

/** What the gateway shows to clients, and the authority that they verify it with. */
export interface ServingCertificate {
  readonly certificate: string;
  readonly key: string;
  /** PEM of the authority, where the gateway issued the certificate itself. */
  readonly caPath: string;
}

/**
 * The certificate of a gateway that was given none: an authority of its own, kept in the state folder, and a leaf
 * made anew at every start. Clients verify with `ca.pem`. Another process makes it: see issue-certificate.ts.
 */
export async function issueServingCertificate(
  state: string,
  names: readonly string[],
): Promise<ServingCertificate> {
  // The program lies beside this file, among the sources and in the bundle alike.
  const program = join(import.meta.dirname, `issue-certificate${extname(import.meta.filename)}`);
  const all = [...new Set(["localhost", "127.0.0.1", "::1", hostname(), ...names])];
  const bounds = { timeout: issueMs, killSignal: "SIGKILL", maxBuffer: 64 * 1024 } as const;
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [program, state, ...all], bounds);
    const { certificate, key }: { certificate: string; key: string } = JSON.parse(stdout);
    return { certificate, key, caPath: join(state, "ca.pem") };
  } catch (error) {
    throw new Error("the gateway could not issue its own certificate", { cause: error });
  }
}

/** A tenth of a second of work; on a machine that starts everything at once it has to wait its turn. */
const issueMs = 60_000;
