/** `sallyport completion`: scripts made from the commands themselves, so that they never lag behind. */
import { Argument, type Command } from "commander";
import { type CompletedCommand, completionScripts, type Shell, shells } from "../completion-scripts.ts";
import type { Invocation } from "../terminal.ts";

/** Adds arguments and action. */
export function configure(command: Command, { terminal, commandTree }: Invocation): void {
  command
    .addArgument(new Argument("<shell>", "your shell").choices(shells))
    .addHelpText("after", example)
    .action(async (shell: Shell) => {
      const tree = await commandTree();
      terminal.out(completionScripts[shell](completed(tree, [])));
    });
}

const example = `
Examples:
  bash:  source <(sallyport completion bash)          # in ~/.bashrc
  zsh:   source <(sallyport completion zsh)           # in ~/.zshrc, after compinit
  fish:  sallyport completion fish > ~/.config/fish/completions/sallyport.fish`;

function completed(command: Command, path: readonly string[]): readonly CompletedCommand[] {
  const help = command.createHelp();
  const options = help.visibleOptions(command).map((option) => ({
    flags: [option.short, option.long].filter((flag) => flag != null),
    description: option.description,
    takesValue: option.required || option.optional,
    choices: option.argChoices ?? [],
  }));
  const children = help.visibleCommands(command);
  const own: CompletedCommand = {
    path,
    options,
    children: children.map((child) => ({
      name: child.name(),
      summary: child.summary() || child.description(),
    })),
    words: command.registeredArguments.flatMap((argument) => argument.argChoices ?? []),
  };
  const deeper = children.filter((child) => child.name() !== "help");
  return [own, ...deeper.flatMap((child) => completed(child, [...path, child.name()]))];
}
