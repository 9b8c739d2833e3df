"""llama.cpp's decode through its C API, for scripts/bench.ts decode (speaks protocol.py). Standard library only.

    python llama_decode.py FOLDER-WITH-LIBLLAMA

The structs of parameters grow with every release, so they are taken as blobs: what the library fills in by default is
handed back, and of a context's only the first four words are written (n_ctx, n_batch, n_ubatch, n_seq_max), after they
were found to hold the defaults they have had since 2024. Threads are set by a function. Tokens are given, not sampled,
as llama-bench does.
"""

import ctypes
import random
import sys
import time
from pathlib import Path

from hf_to_gguf import convert
from protocol import peak_bytes, serve

BLOB_BYTES = 1024
CONTEXT_DEFAULTS = (512, 2048, 512, 1)
# llama_ftype and ggml_type, as llama.cpp numbers them.
FTYPES = {"q4_0": 2}
BF16 = 30
SEED = 7


class Blob(ctypes.Structure):
    """At least as large as any release's structs of parameters; all are passed in memory."""

    _fields_ = [("words", ctypes.c_uint32 * (BLOB_BYTES // 4)), ("align", ctypes.c_uint64)]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


def open_library(folder: Path) -> ctypes.CDLL:
    def find(pattern: str) -> Path:
        return next(p for p in sorted(folder.glob(pattern)) if ".so" in p.name or p.suffix == ".dylib")

    for pattern in ("libggml-base*", "libggml.*"):
        ggml = ctypes.CDLL(str(find(pattern)), ctypes.RTLD_GLOBAL)
    llama = ctypes.CDLL(str(find("libllama.*")), ctypes.RTLD_GLOBAL)
    # Builds with a library an instruction set choose the processor's here; the others have nothing to load.
    if hasattr(ggml, "ggml_backend_load_all_from_path"):
        ggml.ggml_backend_load_all_from_path(str(folder).encode())
    for name, result, arguments in (
        ("llama_model_default_params", Blob, []),
        ("llama_context_default_params", Blob, []),
        ("llama_model_quantize_default_params", Blob, []),
        ("llama_model_quantize", ctypes.c_uint32, [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Blob)]),
        ("llama_model_size", ctypes.c_uint64, [ctypes.c_void_p]),
        ("llama_model_load_from_file", ctypes.c_void_p, [ctypes.c_char_p, Blob]),
        ("llama_init_from_model", ctypes.c_void_p, [ctypes.c_void_p, Blob]),
        ("llama_set_n_threads", None, [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]),
        ("llama_batch_init", Batch, [ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
        ("llama_batch_free", None, [Batch]),
        ("llama_decode", ctypes.c_int32, [ctypes.c_void_p, Batch]),
        ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [ctypes.c_void_p, ctypes.c_int32]),
        ("llama_get_memory", ctypes.c_void_p, [ctypes.c_void_p]),
        ("llama_memory_clear", None, [ctypes.c_void_p, ctypes.c_bool]),
        ("llama_print_system_info", ctypes.c_char_p, []),
    ):
        function = getattr(llama, name)
        function.restype, function.argtypes = result, arguments
    llama.llama_backend_init()
    return llama


class Decode:
    def __init__(self, folder: Path):
        self.llama = open_library(folder)

    def load(self, folder: str, gguf: str, vocabulary: int, threads: int, positions: int, streams: list,
             quantize: str | None = None, head: str | None = None) -> dict:  # fmt: skip
        """A context for each number of streams, every stream with room for `positions`.

        quantize "q4_0": by llama.cpp's own quantizer; head "bf16" leaves embedding and head alone, None lets it choose.
        """
        convert(Path(folder), Path(gguf))
        llama = self.llama
        if quantize is not None:
            gguf = self.quantize(gguf, FTYPES[quantize], head)
        self.vocabulary = vocabulary
        self.model = llama.llama_model_load_from_file(gguf.encode(), llama.llama_model_default_params())
        if not self.model:
            raise ValueError(f"{gguf} was not loaded")
        self.contexts = {n: self.open_context(n, n * positions, threads) for n in streams}
        self.batch = llama.llama_batch_init(max(positions, *streams), 0, 1)
        return {"system": llama.llama_print_system_info().decode(), "bytes": llama.llama_model_size(self.model)}

    def quantize(self, source: str, ftype: int, head: str | None) -> str:
        """The struct starts with nthread, ftype, and the types of output and token embedding."""
        params, target = self.llama.llama_model_quantize_default_params(), source.removesuffix(".gguf") + "-quantized.gguf"
        if params.words[0] != 0 or params.words[2] != params.words[3] or params.words[2] <= BF16:
            raise ValueError(f"llama_model_quantize_params starts with {params.words[:4]}: another layout")
        params.words[1] = ftype
        if head == "bf16":
            params.words[2] = params.words[3] = BF16
        if self.llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)) != 0:
            raise ValueError(f"{source} was not quantized")
        return target

    def open_context(self, streams: int, cells: int, threads: int):
        params = self.llama.llama_context_default_params()
        found = tuple(params.words[:4])
        if found != CONTEXT_DEFAULTS:
            raise ValueError(f"llama_context_params starts with {found}, not {CONTEXT_DEFAULTS}: another layout")
        params.words[0], params.words[3] = cells, streams
        context = self.llama.llama_init_from_model(self.model, params)
        if not context:
            raise ValueError(f"no context for {streams} streams")
        self.llama.llama_set_n_threads(context, threads, threads)
        return context

    def decode(self, context, rows: list) -> None:
        """rows: (token, position, stream, whether its logits are wanted); those of the last row always are."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, stream, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
            batch.seq_id[i][0] = stream
        status = self.llama.llama_decode(context, batch)
        if status != 0:
            raise ValueError(f"llama_decode: {status}")
        # Waits until the logits are there.
        self.llama.llama_get_logits_ith(context, len(rows) - 1)

    def start(self, streams: int):
        """The context for that many streams, empty, and the stream of tokens."""
        context = self.contexts[streams]
        self.llama.llama_memory_clear(self.llama.llama_get_memory(context), True)
        draw = random.Random(SEED)
        return context, lambda: draw.randrange(self.vocabulary)

    def prompt(self, tokens: int) -> dict:
        """Seconds of one batch of a prompt, logits of its last token."""
        context, token = self.start(1)
        rows = [(token(), i, 0, i == tokens - 1) for i in range(tokens)]
        started = time.perf_counter()
        self.decode(context, rows)
        return {"seconds": time.perf_counter() - started}

    def generate(self, streams: int, prompt: int, tokens: int) -> dict:
        """Seconds of `tokens` steps of `streams` sequences together, behind prompts of `prompt` tokens."""
        context, token = self.start(streams)
        for stream in range(streams):
            self.decode(context, [(token(), i, stream, i == prompt - 1) for i in range(prompt)])
        started = time.perf_counter()
        for i in range(tokens):
            self.decode(context, [(token(), prompt + i, stream, True) for stream in range(streams)])
        return {"seconds": time.perf_counter() - started}

    def logits(self, tokens: list) -> dict:
        """Of the last token of one sequence: whether it is the same model."""
        context, _ = self.start(1)
        self.decode(context, [(token, i, 0, i == len(tokens) - 1) for i, token in enumerate(tokens)])
        values = self.llama.llama_get_logits_ith(context, len(tokens) - 1)
        return {"logits": values[: self.vocabulary]}

    def peak(self) -> dict:
        return {"bytes": peak_bytes()}


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = Path(sys.argv[1])
    decode = Decode(folder)
    about = {"python": sys.version.split()[0], "library": next(folder.glob("libllama.*")).name}
    names = ("load", "prompt", "generate", "logits", "peak")
    serve(about, {name: getattr(decode, name) for name in names})


if __name__ == "__main__":
    main()
