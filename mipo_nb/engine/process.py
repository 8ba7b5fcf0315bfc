"""What a process that runs models is told: be quiet, keep freed memory until a phase ends, collect no garbage in the
libraries."""

import ctypes
import functools
import gc
import os
import platform
import warnings

from mipo_nb.base.hardware import cores_and_memory


@functools.cache
def settle_imports():
    """Leave the objects of the libraries, made before any model is loaded, out of later garbage collections. They are
    half a million and live to the end. A collection walks through all of them in a third of a second, and every
    training makes three."""
    gc.collect()
    gc.freeze()


@functools.cache
def keep_freed_memory():
    """Have glibc hand freed blocks out again instead of returning them to the system, where it is the C library. A
    layer's results are as large as the last layer's, and new pages cost more than the arithmetic done in them.

    And have oneDNN keep fewer products. It makes a program for each shape and keeps the last 1024, of half a megabyte each:
    hundreds of megabytes, since hardly two batches have one length. A batch needs about 70."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")  # read at the first product
    if library := _glibc():
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # names in malloc.h
        library.mallopt(mmap_threshold, 2**25)  # the most it takes
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(top_pad, 2**26)


def return_freed_memory():
    """Give the system back what was kept so, when sampling, scoring or a training has ended: what is left between its
    blocks seldom fits those of the next, and would lie there beside them."""
    if library := _glibc():
        library.malloc_trim(0)


@functools.cache
def _glibc():
    """The C library of this process, where it is glibc; else None."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


@functools.cache
def keep_to_quota():
    """Have torch use no more threads than a container's quota has cores: it counts those of the machine."""
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), cores_and_memory()[0]))


def quieten():
    """Keep the libraries' own progress bars and notices out of the notebooks."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import datasets
    import huggingface_hub
    import transformers

    huggingface_hub.logging.set_verbosity_error()  # without a network it tells each of five tries; our message says it once
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing` is deprecated")
    warnings.filterwarnings(
        "ignore", message="fan_in_fan_out is set to"
    )  # PEFT sets it right by itself, for GPT-2's layers
