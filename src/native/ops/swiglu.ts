import { typeCode, vector } from "../check.ts";
import { check, type Device } from "../device.ts";
import { sizeOf, type Tensor } from "../layout.ts";
import { sameType } from "./attention.ts";

/** h = silu(gate) ⊙ up; one size, one type (f32 or bf16); h may alias gate or up. */
export function swigluForward(device: Device, gate: Tensor, up: Tensor, h: Tensor): void {
  const op = "swigluForward";
  const n = sizeOf(gate);
  sameType(op, "up", up, gate);
  sameType(op, "h", h, gate);
  check(
    device.symbols,
    device.symbols.sb_swiglu_forward(
      device.context,
      vector(op, "gate", gate, "real", n),
      vector(op, "up", up, "real", n),
      typeCode(op, gate.dtype),
      n,
      vector(op, "h", h, "real", n),
    ),
  );
}

/** dgate, dup f32 (overwritten) from dh f32; gate, up of one type; dh may alias dgate or dup. */
export function swigluBackward(
  device: Device,
  gate: Tensor,
  up: Tensor,
  dh: Tensor,
  dgate: Tensor,
  dup: Tensor,
): void {
  const op = "swigluBackward";
  const n = sizeOf(gate);
  sameType(op, "up", up, gate);
  check(
    device.symbols,
    device.symbols.sb_swiglu_backward(
      device.context,
      vector(op, "gate", gate, "real", n),
      vector(op, "up", up, "real", n),
      typeCode(op, gate.dtype),
      vector(op, "dh", dh, "f32", n),
      n,
      vector(op, "dgate", dgate, "f32", n),
      vector(op, "dup", dup, "f32", n),
    ),
  );
}
