"""PyTorch's matrix products over the matrices of a layer, for scripts/bench.ts gemm (speaks protocol.py)."""

import sys
import time

import torch

from protocol import serve

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class Products:
    def setup(self, matrices: list, dtype: str, threads: int, tokens: int, rank: int) -> dict:
        """matrices: [out, in] of each; tokens, rank: the most that will be asked for."""
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        make = lambda *shape: torch.empty(shape, dtype=DTYPES[dtype]).uniform_(-1, 1)
        self.weights = [make(*shape) for shape in matrices]
        self.inputs = {width: make(tokens, width) for shape in matrices for width in shape}
        self.z = make(tokens, rank)
        return {}

    @torch.no_grad()
    def run(self, what: str, tokens: int, repeat: int, rank: int = 0) -> dict:
        started = time.perf_counter()
        for _ in range(repeat):
            for weight in self.weights:
                out, width = weight.shape
                if what == "forward":
                    torch.nn.functional.linear(self.inputs[width][:tokens], weight)
                elif what == "backward":
                    self.inputs[out][:tokens] @ weight
                else:
                    self.inputs[out][:tokens].T @ self.z[:tokens, :rank]
        return {"seconds": (time.perf_counter() - started) / repeat}


if __name__ == "__main__":
    products = Products()
    serve({"python": sys.version.split()[0], "torch": torch.__version__}, {"setup": products.setup, "run": products.run})
