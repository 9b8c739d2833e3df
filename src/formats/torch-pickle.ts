/**
 * The pickle inside a torch file, read by a machine that can build dictionaries of tensors and nothing else: no name is
 * looked up, no object made, no code run. Every opcode and every name outside the short lists below is refused.
 */
import { InputError } from "../errors.ts";

export const MAX_PICKLE_BYTES = 64 << 20;
export const MAX_PICKLED_TENSORS = 1_000_000;
/** Deeper stacks than any dictionary of tensors needs. */
const MAX_STACK = 1 << 22;

export interface PickledStorage {
  readonly kind: "storage";
  /** As torch names it, without "Storage": "Float", "Long", … */
  readonly type: string;
  /** Name of the entry in the archive. */
  readonly key: string;
  readonly elements: number;
}

export interface PickledTensor {
  readonly kind: "tensor";
  readonly storage: PickledStorage;
  /** In elements, as are the strides. */
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

interface Name {
  readonly kind: "name";
  readonly text: string;
}

type Value =
  | null
  | boolean
  | number
  | string
  | readonly Value[]
  | Map<Value, Value>
  | Name
  | PickledStorage
  | PickledTensor;

const REBUILD = "torch._utils _rebuild_tensor_v2";
const PARAMETER = "torch._utils _rebuild_parameter";
const ORDERED = "collections OrderedDict";
const STORAGE = /^torch (\w+)Storage$/;
const MARK = Symbol("mark");

interface Machine {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  at: number;
  readonly stack: (Value | typeof MARK)[];
  readonly memo: Map<number, Value>;
  /** Throws: nothing but a dictionary of tensors is read. */
  refuse(what: string): never;
}

/** The dictionary of tensors in `bytes`. @throws InputError naming the file, and the opcode or name that is refused */
export function readTensorPickle(path: string, bytes: Uint8Array): Map<string, PickledTensor> {
  const machine: Machine = {
    bytes,
    view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    at: 0,
    stack: [],
    memo: new Map(),
    refuse(what) {
      throw new InputError(
        `${path}: ${what}; expected a dictionary of tensors as torch.save writes it. Nothing else is read from such files, ` +
          `because they can run code: save the adapter as safetensors.`,
      );
    },
  };
  for (;;) {
    const opcode = u8(machine);
    if (opcode === STOP) break;
    const step = STEPS[opcode];
    if (step) step(machine);
    else {
      const name = REFUSED[opcode] ?? `0x${opcode.toString(16).padStart(2, "0")}`;
      machine.refuse(`the opcode ${name} at byte ${machine.at - 1}`);
    }
  }
  return tensorsOf(pop(machine)) ?? machine.refuse("the pickle holds something else than tensors by name");
}

/** The start of the next `count` bytes. */
function take(m: Machine, count: number): number {
  if (count > m.bytes.length - m.at) m.refuse(`the pickle ends at byte ${m.bytes.length}`);
  m.at += count;
  return m.at - count;
}

const u8 = (m: Machine): number => m.view.getUint8(take(m, 1));
const u32 = (m: Machine): number => m.view.getUint32(take(m, 4), true);

function textOf(m: Machine, length: number): string {
  const start = take(m, length);
  return new TextDecoder().decode(m.bytes.subarray(start, start + length));
}

function line(m: Machine): string {
  const end = m.bytes.indexOf(10, m.at);
  if (end < 0) m.refuse("a name without an end");
  const text = textOf(m, end - m.at);
  take(m, 1);
  return text;
}

/** Little-endian two's complement of at most 8 bytes. */
function long(m: Machine): number {
  const length = u8(m);
  if (length > 8) m.refuse(`an integer of ${length} bytes`);
  const start = take(m, length);
  let value = 0n;
  for (let i = start + length - 1; i >= start; i--) value = (value << 8n) | BigInt(m.bytes[i]!);
  return Number(BigInt.asIntN(Math.max(8, 8 * length), value));
}

function push(m: Machine, value: Value | typeof MARK): void {
  if (m.stack.length >= MAX_STACK) m.refuse("the pickle's stack is too deep");
  m.stack.push(value);
}

function pop(m: Machine): Value {
  const value = m.stack.pop();
  return value === undefined || value === MARK ? m.refuse("the pickle's stack is empty") : value;
}

function top(m: Machine): Value {
  const value = pop(m);
  m.stack.push(value);
  return value;
}

function popToMark(m: Machine): Value[] {
  const mark = m.stack.lastIndexOf(MARK);
  if (mark < 0) m.refuse("a missing mark in the pickle");
  return m.stack.splice(mark).slice(1) as Value[];
}

function popMany(m: Machine, count: number): Value[] {
  return Array.from({ length: count }, () => pop(m)).reverse();
}

function setItems(m: Machine, items: readonly Value[]): void {
  const target = top(m);
  if (!(target instanceof Map) || items.length % 2 !== 0) m.refuse("items that are set on no dictionary");
  else for (let i = 0; i < items.length; i += 2) target.set(items[i]!, items[i + 1]!);
}

function recall(m: Machine, key: number): void {
  const value = m.memo.get(key);
  push(m, value === undefined ? m.refuse(`memo ${key} is not set`) : value);
}

/** A name is kept as text, never looked up. */
function global(m: Machine): void {
  const text = `${line(m)} ${line(m)}`;
  const known = text === REBUILD || text === PARAMETER || text === ORDERED || STORAGE.test(text);
  if (!known) m.refuse(`the opcode GLOBAL asks for "${text}"`);
  push(m, { kind: "name", text });
}

function reduce(m: Machine): void {
  const values = pop(m);
  const name = pop(m);
  push(m, reduced(name, values) ?? m.refuse(`the opcode REDUCE calls ${nameOf(name)} with something else`));
}

/** torch hangs version notes on a state dictionary: they are dropped. */
function build(m: Machine): void {
  pop(m);
  if (!(top(m) instanceof Map)) m.refuse("the opcode BUILD changes an object");
}

function proto(m: Machine): void {
  const version = u8(m);
  if (version > 5) m.refuse(`pickle protocol ${version}`);
}

const STOP = 0x2e;

/** By opcode: PROTO, MARK, EMPTY_DICT, EMPTY_TUPLE, TUPLE, TUPLE1 … in the order of their first use. */
const STEPS: Readonly<Record<number, (m: Machine) => void>> = {
  128: proto,
  40: (m) => push(m, MARK),
  125: (m) => push(m, new Map()), // EMPTY_DICT
  41: (m) => push(m, []), // EMPTY_TUPLE
  116: (m) => push(m, popToMark(m)), // TUPLE
  133: (m) => push(m, popMany(m, 1)), // TUPLE1
  134: (m) => push(m, popMany(m, 2)),
  135: (m) => push(m, popMany(m, 3)),
  78: (m) => push(m, null), // NONE
  136: (m) => push(m, true), // NEWTRUE
  137: (m) => push(m, false), // NEWFALSE
  75: (m) => push(m, u8(m)), // BININT1
  77: (m) => push(m, m.view.getUint16(take(m, 2), true)), // BININT2
  74: (m) => push(m, m.view.getInt32(take(m, 4), true)), // BININT
  138: (m) => push(m, long(m)), // LONG1
  88: (m) => push(m, textOf(m, u32(m))), // BINUNICODE
  113: (m) => void m.memo.set(u8(m), top(m)), // BINPUT
  114: (m) => void m.memo.set(u32(m), top(m)), // LONG_BINPUT
  104: (m) => recall(m, u8(m)), // BINGET
  106: (m) => recall(m, u32(m)), // LONG_BINGET
  99: global,
  81: (m) => push(m, storageOf(pop(m)) ?? m.refuse("the opcode BINPERSID names no storage")),
  82: reduce,
  115: (m) => setItems(m, popMany(m, 2)), // SETITEM
  117: (m) => setItems(m, popToMark(m)), // SETITEMS
  98: build,
};

/** Other opcodes that may be met, for the message. */
const REFUSED: Readonly<Record<number, string>> = {
  105: "INST",
  111: "OBJ",
  129: "NEWOBJ",
  146: "NEWOBJ_EX",
  147: "STACK_GLOBAL",
  130: "EXT1",
  131: "EXT2",
  132: "EXT4",
  80: "PERSID",
  140: "SHORT_BINUNICODE",
  149: "FRAME",
};

function isName(value: Value): value is Name {
  return value !== null && typeof value === "object" && "kind" in value && value.kind === "name";
}

function nameOf(value: Value): string {
  return isName(value) ? `"${value.text}"` : "a value";
}

/** ("storage", torch.FloatStorage, key, location, elements) */
function storageOf(value: Value): PickledStorage | null {
  if (!Array.isArray(value)) return null;
  const [tag, type, key, , elements] = value as readonly Value[];
  const [, named] = (type !== undefined && isName(type) && STORAGE.exec(type.text)) || [];
  if (tag !== "storage" || named === undefined || typeof key !== "string" || !isCount(elements)) return null;
  return { kind: "storage", type: named, key, elements };
}

function isCount(value: Value | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isCounts(value: Value | undefined): value is readonly number[] {
  return Array.isArray(value) && value.every(isCount);
}

function isTensor(value: Value | undefined): value is PickledTensor {
  return typeof value === "object" && value !== null && "kind" in value && value.kind === "tensor";
}

/** What the few known names make of their arguments; null for anything else. */
function reduced(name: Value, values: Value): Value | null {
  if (!isName(name) || !Array.isArray(values)) return null;
  const [first, offset, shape, strides] = values as readonly Value[];
  if (name.text === ORDERED) return values.length === 0 ? new Map() : null;
  if (name.text === PARAMETER) return isTensor(first) ? first : null;
  if (name.text !== REBUILD) return null;
  const storage = first !== null && typeof first === "object" && "kind" in first ? first : null;
  if (storage?.kind !== "storage" || !isCount(offset) || !isCounts(shape) || !isCounts(strides)) return null;
  return shape.length === strides.length ? { kind: "tensor", storage, offset, shape, strides } : null;
}

function tensorsOf(value: Value): Map<string, PickledTensor> | null {
  if (!(value instanceof Map) || value.size > MAX_PICKLED_TENSORS) return null;
  const tensors = new Map<string, PickledTensor>();
  for (const [name, tensor] of value) {
    if (typeof name !== "string" || !isTensor(tensor)) return null;
    tensors.set(name, tensor);
  }
  return tensors;
}
