/** Writing a model folder's tensors: one model.safetensors, or shards with model.safetensors.index.json. */
import { join } from "node:path";
import { writeTextFile } from "./files.ts";
import { tensorBits } from "./safetensors-header.ts";
import { type TensorToWrite, writeSafetensors } from "./safetensors-write.ts";

/** Largest shard, unless one tensor alone is larger. */
export const MAX_SHARD_BYTES = 2 ** 32;

export interface ShardOptions {
  readonly maxShardBytes?: number;
  /** Tensors that shall lie in one file, by the file's name: the base's own shards. */
  readonly groups?: ReadonlyMap<string, readonly string[]>;
}

/** Writes the tensors in their order; each is asked for its bytes when its turn comes. */
export function writeModelTensors(
  dir: string,
  tensors: readonly TensorToWrite[],
  options: ShardOptions = {},
): void {
  const shards = shardsOf(tensors, options);
  if (shards.length === 1) {
    writeSafetensors(join(dir, "model.safetensors"), shards[0]!, { format: "pt" });
    return;
  }
  const number = (n: number): string => String(n).padStart(5, "0");
  const weightMap: Record<string, string> = {};
  shards.forEach((shard, i) => {
    const file = `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
    writeSafetensors(join(dir, file), shard, { format: "pt" });
    for (const { name } of shard) weightMap[name] = file;
  });
  const index = { metadata: { total_size: sum(tensors) }, weight_map: weightMap };
  writeTextFile(join(dir, "model.safetensors.index.json"), `${JSON.stringify(index, null, 2)}\n`);
}

/** The given groups, or everything, cut where a file would grow beyond the limit. */
function shardsOf(tensors: readonly TensorToWrite[], options: ShardOptions): TensorToWrite[][] {
  const limit = options.maxShardBytes ?? MAX_SHARD_BYTES;
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const groups = options.groups
    ? [...options.groups.values()].map((names) => names.map((name) => byName.get(name)!))
    : [tensors];
  const shards: TensorToWrite[][] = [];
  for (const group of groups) {
    let bytes = Number.POSITIVE_INFINITY;
    for (const tensor of group) {
      const size = sum([tensor]);
      if (bytes + size > limit) {
        shards.push([]);
        bytes = 0;
      }
      shards.at(-1)!.push(tensor);
      bytes += size;
    }
  }
  return shards;
}

function sum(tensors: readonly TensorToWrite[]): number {
  return tensors.reduce((n, { dtype, shape }) => n + Number(tensorBits(dtype, shape) / 8n), 0);
}
