/** A session that stays open while the test does something else: psql in the client's pod, fed through a pipe there. */
import type { Scenario } from "./scenario.ts";

/** A psql that waits for statements. */
export interface LivePsql {
  /** Runs one statement and gives what psql printed for it, errors included. */
  ask(sql: string): Promise<string>;
  /** Ends it; resolves when psql has. */
  close(): Promise<void>;
}

/** Opens psql in a pod; `name` is that of its files there. */
export function livePsql(
  { exec, eventually }: Scenario,
  pod: string,
  name: string,
  target: string,
): LivePsql {
  const [pipe, out] = [`/tmp/${name}.in`, `/tmp/${name}.out`];
  // Opened for both ways: psql sees no end of its input before it is told to quit.
  const script =
    'mkfifo "$1"; : > "$2"; exec 3<>"$1"; psql "$3" -X -q -At -v VERBOSITY=verbose <&3 >"$2" 2>&1';
  let ended: number | undefined;
  const running = exec(pod, "sh", "-c", script, "sh", pipe, out, target).then(({ code }) => {
    ended = code;
  });
  const say = async (line: string) => {
    await eventually("psql's pipe", async () => {
      const said = await exec(pod, "sh", "-c", '[ -p "$1" ] && printf "%s\\n" "$2" > "$1"', "sh", pipe, line);
      return said.code === 0 || undefined;
    });
  };
  let asked = 0;
  let seen = 0;
  return {
    ask: async (sql) => {
      asked += 1;
      const mark = `--end-of-answer-${asked}--`;
      await say(`${sql};\n\\echo ${mark}`);
      return eventually(`the answer to ${sql}`, async () => {
        const { stdout } = await exec(pod, "cat", out);
        if (!stdout.includes(mark, seen)) {
          if (ended !== undefined) throw new Error(`psql ended with ${ended}: ${stdout.slice(seen)}`);
          return undefined;
        }
        const answer = stdout.slice(seen, stdout.indexOf(mark, seen));
        seen = stdout.indexOf(mark, seen) + mark.length + 1;
        return answer.trim();
      });
    },
    close: async () => {
      if (ended === undefined) await say("\\q").catch(() => undefined);
      await running;
    },
  };
}
