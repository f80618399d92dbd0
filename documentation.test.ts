/** Pages lead to each other: what a link names has to be there, headings included. */
import { existsSync } from "node:fs";
import { glob, readFile } from "node:fs/promises";
import { dirname, join, normalize } from "node:path";
import { beforeAll, expect, test } from "vitest";

const root = import.meta.dirname;

/** Text by path, without code: what stands there is no link and no heading. */
const pages = new Map<string, string>();

beforeAll(async () => {
  for await (const path of glob(["*.md", "{docs,charts,e2e}/**/*.md"], { cwd: root })) {
    if (path.includes("node_modules")) continue;
    const text = await readFile(join(root, path), "utf8");
    pages.set(path, text.replaceAll(/^( *)```[\s\S]*?^\1```/gm, "").replaceAll(/`[^`\n]*`/g, asLetters));
  }
});

test("every link between pages leads somewhere", () => {
  const links = [...pages].flatMap(([path, text]) =>
    [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = ""]) => ({ path, target })),
  );
  const own = links.filter(({ target }) => !/^[a-z]+:/.test(target));
  expect(own.length).toBeGreaterThan(200);
  const broken = own.filter(({ path, target }) => !leads(path, target));
  expect(broken.map(({ path, target }) => `${path}: ${target}`)).toEqual([]);
});

test("a page that is not there, and a heading that is not there, are found", () => {
  expect(leads("README.md", "docs/limitations.md#masks")).toBe(true);
  expect(leads("docs/limitations.md", "#masks")).toBe(true);
  expect(leads("README.md", "docs/nowhere.md")).toBe(false);
  expect(leads("README.md", "docs/limitations.md#nowhere")).toBe(false);
});

function leads(from: string, target: string): boolean {
  const [path = "", anchor] = target.split("#");
  const to = path === "" ? from : normalize(join(dirname(from), path));
  if (!existsSync(join(root, to))) return false;
  return anchor === undefined || anchorsOf(pages.get(to) ?? "").includes(anchor);
}

/** What GitHub calls a page's headings: letters, digits, hyphens and underscores; a second one of a name is `name-1`. */
function anchorsOf(text: string): readonly string[] {
  const seen = new Map<string, number>();
  return [...text.matchAll(/^#{1,6} (.+)$/gm)].map(([, heading = ""]) => {
    const plain = heading.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1").toLowerCase();
    const anchor = plain.replaceAll(/[^\p{L}\p{N}_\- ]/gu, "").replaceAll(" ", "-");
    const count = seen.get(anchor) ?? 0;
    seen.set(anchor, count + 1);
    return count === 0 ? anchor : `${anchor}-${count}`;
  });
}

/** Code within a line: a heading keeps its letters, and nothing in it is a link. */
function asLetters(code: string): string {
  return code.replaceAll(/[`[\]()]/g, "");
}
