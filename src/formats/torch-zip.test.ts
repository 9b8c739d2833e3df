/** torch.save's files: real ones (testdata/, made by scripts/peers/torch_files.py) and hostile ones made by hand. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readTensorAsF32, readTensorBytes } from "./safetensors.ts";
import { inputErrorOf, withFiles } from "./testing.ts";
import { concat } from "./testing-gguf.ts";
import { zip } from "./testing-zip.ts";
import { readTorchArchive } from "./torch-zip.ts";

const file = (...parts: string[]): string => join(import.meta.dir, "testdata", ...parts);
const ramp = (count: number, from = 0): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => (from + i) / 64);

describe("files of torch.save", () => {
  test("a state dictionary: parameters, windows of a storage, doubles, integers", () => {
    const tensors = readTorchArchive(file("tensors.bin"));
    expect([...tensors.keys()]).toEqual(["parameter", "window", "double", "ints"]);
    expect(tensors.get("parameter")!.shape).toEqual([2, 3]);
    expect(readTensorAsF32(tensors.get("parameter")!)).toEqual(ramp(6));
    expect(readTensorAsF32(tensors.get("window")!)).toEqual(ramp(6, 3));
    expect(tensors.get("double")!.dtype).toBe("F64");
    expect(readTensorAsF32(tensors.get("double")!)).toEqual(ramp(3));
    expect(new BigInt64Array(readTensorBytes(tensors.get("ints")!).buffer)).toEqual(
      BigInt64Array.of(-1n, 2n ** 40n),
    );
  });

  test("half and bfloat16 keep their type", () => {
    const tensors = readTorchArchive(
      file("official-4bit/checkpoint-9/adapter_model/lora_FA/adapter_model.bin"),
    );
    const key = "base_model.model.model.layers.0.mlp.down_proj";
    expect(tensors.get(`${key}.lora_A.weight`)).toMatchObject({ dtype: "F16", shape: [3, 80] });
    expect(tensors.get(`${key}.lora_B.weight`)).toMatchObject({ dtype: "BF16", shape: [48, 3] });
    expect(readTensorAsF32(tensors.get(`${key}.lora_A.weight`)!)).toEqual(ramp(240));
  });

  test("refused: a transposed tensor, a training checkpoint, what is no archive", () => {
    expect(inputErrorOf(() => readTorchArchive(file("state-dict.bin")))).toContain(
      "tensor transposed: strides",
    );
    const checkpoint = inputErrorOf(() => readTorchArchive(file("checkpoint.bin")));
    expect(checkpoint).toContain("something else than tensors by name");
    withFiles({ "old.bin": Uint8Array.of(0x80, 2, 0x8a, 10) }, (dir) => {
      expect(inputErrorOf(() => readTorchArchive(join(dir, "old.bin")))).toContain("not a ZIP archive");
    });
  });

  test("refused: a damaged storage, a pickle that was changed, an archive without one", () => {
    const bytes = new Uint8Array(readFileSync(file("tensors.bin")));
    const at = Buffer.from(bytes).indexOf(Buffer.from(ramp(6).buffer));
    bytes[at + 8]! ^= 1;
    withFiles({ "x.bin": bytes, "y.bin": zip([{ name: "x/other", data: bytes, method: 0 }]) }, (dir) => {
      expect(inputErrorOf(() => readTorchArchive(join(dir, "x.bin")))).toContain("CRC-32 differs");
      expect(inputErrorOf(() => readTorchArchive(join(dir, "y.bin")))).toContain("no data.pkl");
    });
  });
});

const PROTO = [0x80, 2];
const STOP = [0x2e];
const word = (text: string): number[] => [...new TextEncoder().encode(text)];
const global = (module: string, name: string): number[] => [0x63, ...word(`${module}\n${name}\n`)];
const unicode = (text: string): number[] => [0x58, text.length, 0, 0, 0, ...word(text)];
const tuple = (...items: number[][]): number[] => [0x28, ...items.flat(), 0x74];
const int = (value: number): number[] => [0x4b, value];
const storage = (key: string, type = "Float"): number[] => [
  ...tuple(unicode("storage"), global("torch", `${type}Storage`), unicode(key), unicode("cpu"), int(4)),
  0x51,
];
const rebuilt = (place: number[], shape = [int(2)], strides = [int(1)], offset = 0): number[] => [
  ...global("torch._utils", "_rebuild_tensor_v2"),
  ...tuple(
    place,
    int(offset),
    tuple(...shape),
    tuple(...strides),
    [0x89],
    [...global("collections", "OrderedDict"), 0x29, 0x52],
  ),
  0x52,
];
const dictionary = (...items: number[][]): number[] => [...PROTO, 0x7d, 0x28, ...items.flat(), 0x75, ...STOP];

/** What reading an archive with this pickle and one storage "0" of four floats says. */
function refusal(pickle: readonly number[]): string {
  const data = concat([Uint8Array.from({ length: 16 }, (_, i) => i)]);
  const parts = [
    { name: "x/data.pkl", data: Uint8Array.from(pickle), method: 0 },
    { name: "x/data/0", data, method: 0 },
  ];
  return withFiles({ "x.bin": zip(parts) }, (dir) =>
    inputErrorOf(() => readTorchArchive(join(dir, "x.bin"))),
  );
}

describe("hostile pickles execute nothing and are refused by name", () => {
  const system = [...PROTO, ...global("posix", "system"), ...unicode("touch /tmp/x"), 0x85, 0x52, ...STOP];
  const cases: [string, number[], string][] = [
    ["a call of os.system", system, 'GLOBAL asks for "posix system"'],
    [
      "a name that only starts like torch's",
      [...PROTO, ...global("torch", "FloatStorage.x"), ...STOP],
      "GLOBAL",
    ],
    ["builtins.eval", [...PROTO, ...global("builtins", "eval"), ...STOP], '"builtins eval"'],
    ["INST", [...PROTO, 0x28, 0x69, ...word("os\nsystem\n"), ...STOP], "opcode INST"],
    ["OBJ", [...PROTO, 0x28, 0x6f, ...STOP], "opcode OBJ"],
    ["NEWOBJ", [...PROTO, 0x81, ...STOP], "opcode NEWOBJ"],
    [
      "STACK_GLOBAL",
      [...PROTO, ...unicode("os"), ...unicode("system"), 0x93, ...STOP],
      "opcode STACK_GLOBAL",
    ],
    ["an opcode nobody knows", [...PROTO, 0xff, ...STOP], "opcode 0xff"],
    [
      "BUILD on a name",
      [...PROTO, ...global("collections", "OrderedDict"), 0x7d, 0x62, ...STOP],
      "opcode BUILD",
    ],
    ["a call of a value", [...PROTO, ...int(1), 0x29, 0x52, ...STOP], "opcode REDUCE calls a value"],
    [
      "a storage that is none",
      [...PROTO, ...tuple(unicode("storage"), int(1)), 0x51, ...STOP],
      "opcode BINPERSID",
    ],
    ["a cut pickle", [...PROTO, 0x58, 200, 0, 0, 0], "ends at byte"],
    ["an empty stack", [...PROTO, ...STOP], "stack is empty"],
    ["a memo that is not set", [...PROTO, 0x68, 9, ...STOP], "memo 9"],
    [
      "items without a dictionary",
      [...PROTO, ...int(1), 0x28, ...int(1), ...int(2), 0x75, ...STOP],
      "no dictionary",
    ],
    ["an integer of 200 bytes", [...PROTO, 0x8a, 200, ...STOP], "integer of 200 bytes"],
    ["a number in place of the dictionary", [...PROTO, ...int(1), ...STOP], "something else than tensors"],
  ];
  for (const [what, pickle, message] of cases) {
    test(what, () => expect(refusal(pickle)).toContain(message));
  }

  test("places outside the storage", () => {
    const one = (...args: Parameters<typeof rebuilt>): string =>
      refusal(dictionary(unicode("w"), rebuilt(...args)));
    expect(one(storage("1"))).toContain("its storage is missing");
    expect(one(storage("0"), [int(5)])).toContain("its storage has 4");
    expect(one(storage("0"), [int(2)], [int(1)], 3)).toContain("from element 3 on");
    expect(one(storage("0"), [int(2)], [int(2)])).toContain("without gaps");
    expect(one(storage("0", "ComplexFloat"))).toContain("it is ComplexFloat");
    expect(one(storage("../../etc/passwd"))).toContain("its storage is missing");
  });
});
