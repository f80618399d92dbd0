import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";

test("with little memory the parser is not optimised, which would take more than all else together", () => {
  // A process of its own: what WebAssembly compiles is measured by the most that the process ever held.
  const script = `
    const { spareOptimisingMemory } = await import(${JSON.stringify(join(import.meta.dirname, "parser-memory.ts"))});
    spareOptimisingMemory(256 * 1024 * 1024);
    const { default: createModule } = await import("libpg-query/wasm/libpg-query.js");
    const parser = await createModule({});
    const sql = "SELECT a, count(*) FROM orders o JOIN items i ON i.id = o.item WHERE o.id = 1 GROUP BY a";
    const bytes = parser.lengthBytesUTF8(sql) + 1;
    for (let at = 0; at < 10_000; at += 1) {
      const query = parser._malloc(bytes);
      parser.stringToUTF8(sql, query, bytes);
      parser._wasm_free_parse_result(parser._wasm_parse_query_raw(query));
      parser._free(query);
      if (at % 100 === 0) await new Promise(setImmediate);
    }
    console.log(process.resourceUsage().maxRSS);`;
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    cwd: import.meta.dirname,
  });
  expect(stderr).not.toContain("Error");
  const peakKilobytes = Number(stdout.trim());
  expect(peakKilobytes).toBeGreaterThan(30_000);
  expect(peakKilobytes).toBeLessThan(150_000);
});
