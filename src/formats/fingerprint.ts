/**
 * Fingerprint of a model's weights (settled 4): SHA-256 over the sorted (name, dtype, shape, SHA-256 of the bytes), so
 * that it does not depend on sharding. Cached beside the user's other caches by path, size and modification time.
 */
import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { openModelTensors, readTensorBytes } from "./safetensors.ts";

export function fingerprintModel(dir: string): string {
  const tensors = [...openModelTensors(dir).values()].sort((a, b) =>
    a.name < b.name ? -1 : a.name > b.name ? 1 : 0,
  );
  const files = [...new Set(tensors.map((t) => t.file))].sort();
  const identity = files.map((file) => {
    const { size, mtimeMs } = statSync(file);
    return `${resolve(file)} ${size} ${mtimeMs}`;
  });
  const cached = cachePath(identity.join("\n"));
  try {
    const text = readFileSync(cached, "utf8");
    if (/^[0-9a-f]{64}$/.test(text)) return text;
  } catch {
    // not computed yet
  }
  const hash = new Bun.CryptoHasher("sha256");
  for (const tensor of tensors) {
    const bytes = new Bun.CryptoHasher("sha256").update(readTensorBytes(tensor)).digest("hex");
    hash.update(`${tensor.name} ${tensor.dtype} ${tensor.shape.join(",")} ${bytes}\n`);
  }
  const fingerprint = hash.digest("hex");
  try {
    mkdirSync(join(cached, ".."), { recursive: true });
    const temporary = `${cached}.${process.pid}`;
    writeFileSync(temporary, fingerprint);
    renameSync(temporary, cached);
  } catch {
    // a cache that cannot be written costs time only
  }
  return fingerprint;
}

function cachePath(identity: string): string {
  const root =
    process.env.SBORA_CACHE ??
    (process.env.HOME ? join(homedir(), ".cache", "sbora") : join(tmpdir(), "sbora"));
  return join(root, "fingerprints", new Bun.CryptoHasher("sha256").update(identity).digest("hex"));
}
