"""A model folder on disk: what reference.py wants to know of it, and which bytes it was."""

import hashlib
import json
from pathlib import Path

from safetensors import safe_open


def as_reference_config(config) -> dict:
    """transformers 5 keeps RoPE in `rope_parameters`; reference.py takes the older names of config.json."""
    values = config.to_dict()
    rope = dict(values.get("rope_parameters") or {})
    values["rope_theta"] = rope.pop("rope_theta")
    values["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" else None
    return values


def fingerprint(folder: Path) -> dict:
    """Settled 4: SHA-256 over sorted (name, dtype, shape, SHA-256 of the bytes) as lines of compact JSON, for the record."""
    lines = []
    for file in sorted(folder.glob("*.safetensors")):
        data = file.read_bytes()
        size = int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8 : 8 + size]).items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                body = hashlib.sha256(data[8 + size + start : 8 + size + end]).hexdigest()
                lines.append((name, json.dumps([name, entry["dtype"], entry["shape"], body], separators=(",", ":"))))
    with safe_open(next(iter(sorted(folder.glob("*.safetensors")))), "np") as f:
        dtypes = sorted({f.get_slice(k).get_dtype() for k in f.keys()})
    joined = "\n".join(line for _, line in sorted(lines)).encode()
    return {"tensors": len(lines), "dtypes": dtypes, "sha256": hashlib.sha256(joined).hexdigest()}
