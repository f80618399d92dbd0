import { listSessions, readSession } from "@sallyport/sidecar";

/** Every record of a folder of recordings, one a line; of sessions that go on, what is written by now. */
export async function recordedText(recordingDir: string): Promise<string> {
  let text = "";
  for (const { sessionId } of await listSessions(recordingDir))
    for await (const record of readSession(recordingDir, sessionId)) text += `${JSON.stringify(record)}\n`;
  return text;
}
