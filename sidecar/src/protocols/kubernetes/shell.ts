/** Reads `sh -c` where it is plain: a list of simple commands with literal words. Everything else is opaque. */
import { plainCommands } from "../shell-words.ts";

/** What an argument vector runs. */
export interface ShellReading {
  /** `none`: no shell; `plain`: every program is listed; `opaque`: it may run anything. */
  readonly kind: "none" | "plain" | "opaque";
  /** The programs that it runs, by the words that name them. */
  readonly programs: readonly string[];
}

const named = (text: string): ReadonlySet<string> => new Set(text.split(" "));

/** Shells that read `-c text` as POSIX has it. */
const shells = named("sh bash ash dash ksh zsh");
/** Programs that run what they are given, so that their name says nothing. */
const runners = named(
  // Other shells, and what is many programs in one.
  "rbash rksh mksh pdksh yash zsh rzsh fish csh tcsh rc es elvish nu xonsh cmd pwsh powershell busybox toybox " +
    // What runs its arguments, as somebody else, elsewhere, later or again.
    "env xargs nohup nice ionice chrt taskset numactl timeout time stdbuf setsid setarch linux32 linux64 i386 x86_64 unshare nsenter chroot " +
    "capsh prlimit setpriv runuser su sudo doas pkexec gosu su-exec sg newgrp fakeroot proot dumb-init tini catatonit " +
    "start-stop-daemon systemd-run run-parts script expect screen tmux dtach watch entr flock parallel find fd rlwrap " +
    "strace ltrace gdb gdbserver lldb perf valgrind at batch crontab ssh-agent dbus-run-session xvfb-run torify runc crun " +
    "docker podman nerdctl ctr crictl kubectl helm " +
    // Interpreters, and what builds.
    "python pypy perl ruby irb node nodejs deno bun npm npx yarn pnpm pip php lua luajit tclsh wish guile awk gawk mawk " +
    "nawk sed m4 make gmake cmake ninja go cargo gcc cc java jshell groovy scala kotlin erl elixir iex julia r rscript " +
    "octave ghc ghci openssl " +
    // What has a command that starts another program.
    "ed ex vi vim view vimdiff rvim nvim emacs nano pico less more most man info git hg svn ssh scp sftp rsync ftp telnet " +
    "nc ncat netcat socat wget tar zip unzip cpio dpkg rpm apt apt-get apk yum dnf tcpdump ip psql mysql " +
    "mariadb sqlite mongo mongosh redis-cli systemctl journalctl " +
    // Builtins that run a text, or say what the words after them mean.
    "exec eval source . command builtin noglob nocorrect - repeat foreach alias hash enable trap set export declare " +
    "typeset readonly local integer float let unset read mapfile readarray getopts shopt setopt emulate autoload zmodload bind complete fc",
);
/** Programs that run something only where a word of theirs looks so. */
const runnersWith: ReadonlyMap<string, RegExp> = new Map([
  // `--compress-program` and `--filter`, which may be shortened.
  ["sort", /^--co/],
  ["split", /^--f/],
  // Builtins that in some shells evaluate a word with a subscript: `test -v 'a[$(id)]'`.
  ..."test printf print kill wait shift return exit break continue"
    .split(" ")
    .map((name): [string, RegExp] => [name, /[$`]/]),
]);
/** The dynamic loader runs what it is given. */
const loader = /^ld(?:-[\w-]+)?\.so/;
const programsMax = 64;

/** Says what an argument vector runs. */
export function readArgv(argv: readonly string[]): ShellReading {
  const [first = ""] = argv;
  if (!shells.has(baseName(first))) {
    return { kind: mayRunMore(argv) ? "opaque" : "none", programs: first === "" ? [] : [first] };
  }
  // An interactive shell is whatever is typed into it.
  const commands = argv.length === 3 && argv[1] === "-c" ? plainCommands(argv[2] ?? "") : undefined;
  if (commands === undefined || commands.length > programsMax) return { kind: "opaque", programs: [first] };
  return {
    kind: commands.some(mayRunMore) ? "opaque" : "plain",
    programs: commands.map(([program = ""]) => program),
  };
}

/** Whether its words say less than what it may run. */
function mayRunMore([program = "", ...words]: readonly string[]): boolean {
  const full = baseName(program);
  // Also under the name of a version: `python3.11`, `gcc-12`.
  const names = [full, full.replace(/-?\d+(?:\.\d+)*$/, "")];
  if (names.some((name) => shells.has(name) || runners.has(name)) || loader.test(full)) return true;
  const telling = runnersWith.get(full);
  return telling !== undefined && words.some((word) => telling.test(word));
}

/** Without folders, and as a node with Windows reads it. */
function baseName(path: string): string {
  return path
    .slice(Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1)
    .toLowerCase()
    .replace(/\.exe$/, "");
}
