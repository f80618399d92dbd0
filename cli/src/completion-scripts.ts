/** Completion scripts of the shells, written from a list of commands; pure text. */

/** One command with what may follow it. */
export interface CompletedCommand {
  /** The words that lead to it; empty for `sallyport` itself. */
  readonly path: readonly string[];
  readonly options: readonly CompletedOption[];
  readonly children: readonly { readonly name: string; readonly summary: string }[];
  /** Fixed words that its arguments accept. */
  readonly words: readonly string[];
}

/** One option of a command. */
export interface CompletedOption {
  readonly flags: readonly string[];
  readonly description: string;
  readonly takesValue: boolean;
  readonly choices: readonly string[];
}

/** A shell that completion is written for. */
export type Shell = "bash" | "zsh" | "fish";

export const shells: readonly Shell[] = ["bash", "zsh", "fish"];

/** The script of each shell. */
export const completionScripts: Readonly<Record<Shell, (commands: readonly CompletedCommand[]) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

function bashScript(commands: readonly CompletedCommand[]): string {
  return `# bash completion for sallyport; load it with: source <(sallyport completion bash)
_sallyport() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" prev="\${COMP_WORDS[COMP_CWORD-1]}" path="" word i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="\${COMP_WORDS[i]}"
    case "$path $word" in
${indent(6, [`${paths(commands).map(quoted).join(" | ")}) path="$path $word" ;;`])}
    esac
  done
  case "$path:$prev" in
${indent(4, valueCases(commands))}
  esac
  case "$path" in
${indent(4, commands.map(wordCase))}
  esac
}
complete -o default -F _sallyport sallyport
`;
}

function zshScript(commands: readonly CompletedCommand[]): string {
  return `#compdef sallyport
# zsh completion for sallyport; load it with: source <(sallyport completion zsh)
autoload -U +X bashcompinit && bashcompinit
${bashScript(commands)}`;
}

function fishScript(commands: readonly CompletedCommand[]): string {
  const lines = commands.flatMap(({ path, options, children, words }) => {
    const at = path.map((word) => `__fish_seen_subcommand_from ${word}`);
    const later = children.map(({ name }) => name).join(" ");
    const condition = [...at, ...(later === "" ? [] : [`not __fish_seen_subcommand_from ${later}`])].join(
      "; and ",
    );
    const start = `complete -c sallyport${condition === "" ? "" : ` -n ${quoted(condition)}`}`;
    return [
      ...children.map(({ name, summary }) => `${start} -f -a ${quoted(name)} -d ${quoted(summary)}`),
      ...words.map((word) => `${start} -f -a ${quoted(word)}`),
      ...options.map((option) => {
        const flags = option.flags.map((flag) =>
          flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`,
        );
        const choices = option.choices.length === 0 ? "" : ` -x -a ${quoted(option.choices.join(" "))}`;
        const value = option.takesValue && choices === "" ? " -r" : choices;
        return `${start} ${flags.join(" ")}${value} -d ${quoted(option.description)}`;
      }),
    ];
  });
  return `# fish completion for sallyport\n${lines.join("\n")}\n`;
}

const paths = (commands: readonly CompletedCommand[]): readonly string[] =>
  commands.filter(({ path }) => path.length > 0).map(spaced);

/** After an option with a value: its choices, or files. */
function valueCases(commands: readonly CompletedCommand[]): readonly string[] {
  return commands.flatMap((command) =>
    command.options
      .filter(({ takesValue }) => takesValue)
      .map(({ flags, choices }) => {
        const patterns = flags.map((flag) => quoted(`${spaced(command)}:${flag}`)).join(" | ");
        return `${patterns}) ${choices.length === 0 ? 'COMPREPLY=($(compgen -f -- "$cur"))' : reply(choices)}; return ;;`;
      }),
  );
}

function wordCase(command: CompletedCommand): string {
  const flags = command.options.flatMap((option) => option.flags);
  const words = [...command.children.map(({ name }) => name), ...command.words, ...flags];
  return `${quoted(spaced(command))}) ${reply(words)} ;;`;
}

const spaced = ({ path }: CompletedCommand): string => path.map((word) => ` ${word}`).join("");
const reply = (words: readonly string[]): string =>
  `COMPREPLY=($(compgen -W ${quoted(words.join(" "))} -- "$cur"))`;
const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
const indent = (by: number, lines: readonly string[]): string =>
  lines.map((line) => " ".repeat(by) + line).join("\n");
