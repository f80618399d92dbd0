import { expect, test } from "vitest";
import { frame } from "./frames.ts";
import { largeObjectSelect } from "./large-object-call.ts";

function call(oid: number, ...values: readonly (Buffer | undefined)[]): Buffer {
  const head = Buffer.alloc(10);
  head.writeUInt32BE(oid, 0);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(1, 6);
  head.writeUInt16BE(values.length, 8);
  const parts = values.map((value) => {
    const length = Buffer.alloc(4);
    length.writeInt32BE(value?.length ?? -1);
    return Buffer.concat([length, value ?? Buffer.alloc(0)]);
  });
  return frame(0x46, Buffer.concat([head, ...parts, Buffer.from([0, 1])]));
}
const select = (message: Buffer) => largeObjectSelect(message, 0, message.length);
const int = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};

test("calls of the large object functions are the SELECT that they stand for", () => {
  expect(select(call(952, int(16393), int(0x20000)))).toBe("SELECT pg_catalog.lo_open(16393, 131072)");
  expect(select(call(955, int(0), Buffer.from("secret")))).toBe("SELECT pg_catalog.lowrite(0, '…')");
});

test("any other function stays unknown", () => {
  expect(select(call(2077, int(1)))).toBeUndefined();
});

test("a message cut or lengthened anywhere stands for nothing", () => {
  const whole = call(952, int(1), int(2));
  for (let end = 5; end < whole.length; end++) expect(largeObjectSelect(whole, 0, end)).toBeUndefined();
  const longer = Buffer.concat([whole, Buffer.from([0])]);
  expect(select(longer)).toBeUndefined();
});
