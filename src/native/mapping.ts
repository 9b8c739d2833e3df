import { InputError } from "../errors.ts";
import { anyLibrary, check } from "./device.ts";

/** A read-only file in memory. `address` is a HOST address, for `createWeight` alone; invalid after `close`. */
export interface Mapping {
  readonly address: number;
  readonly bytes: number;
  close(): void;
}

/** Maps a file read-only; a device must have been opened. @throws InputError when it cannot be mapped */
export function mapFile(path: string): Mapping {
  if (path === "" || path.includes("\0")) throw new InputError(`"${path}" is no file name.`);
  const symbols = anyLibrary();
  const out = new BigInt64Array(3);
  const status = symbols.sb_map(path, out.subarray(0, 1), out.subarray(1, 2), out.subarray(2, 3));
  if (status !== 0) throw new InputError(symbols.sb_last_error() ?? `${path} cannot be mapped.`);
  let mapping = Number(out[0]);
  return {
    address: Number(out[1]),
    bytes: Number(out[2]),
    close() {
      if (mapping === 0) return;
      check(symbols, symbols.sb_unmap(mapping));
      mapping = 0;
    },
  };
}
