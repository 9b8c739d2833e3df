import { expect, test } from "bun:test";
import { doraGain } from "./dora.ts";
import { agree, type Bench, close, lab, numbers, on, run, stream } from "./testing.ts";
import { relativeTo } from "./testing-compare.ts";

test("doraGain is its formula on every device; norm may lie over squares", () => {
  for (const n of [0, 1, 17, 1001]) {
    const squares = numbers(stream(n), n).map((value) => Math.fround(value * value + 0.01));
    const magnitude = numbers(stream(n + 1), n);
    const body = (bench: Bench) => {
      const [norm, gain, over, gainOver] = [
        bench.out("f32", [n]),
        bench.out("f32", [n]),
        bench.f32([n], squares),
        bench.out("f32", [n]),
      ];
      const m = bench.f32([n], magnitude);
      doraGain(bench.device, bench.f32([n], squares), m, norm, gain);
      doraGain(bench.device, over, m, over, gainOver);
      return { norm, gain, over, gainOver };
    };
    const { norm, gain, over, gainOver } = run(lab.double, body);
    close("norm", norm!, squares.map(Math.sqrt), 1e-14);
    close(
      "gain",
      gain!,
      magnitude.map((m, i) => m / Math.sqrt(squares[i]!)),
      1e-13,
    );
    close("norm in place", over!, norm!, 0);
    close("gain in place", gainOver!, gain!, 0);
    // A root and a division: two roundings.
    const expected = run(lab.reference, body);
    const allowed = Object.fromEntries(Object.entries(expected).map(([k, v]) => [k, relativeTo(v, 3e-7)]));
    agree(`doraGain ${n}`, body, allowed);
  }
  on(lab.reference, ({ device, zeros }) => {
    const call = () => doraGain(device, zeros([3]), zeros([4]), zeros([3]), zeros([3]));
    expect(call).toThrow(/magnitude is f32 \[4\]; expected f32 \[3\]/);
  });
});
