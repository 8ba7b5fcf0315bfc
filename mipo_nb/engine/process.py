"""Settings that make a process that runs models faster: keep freed memory, and collect no garbage in the libraries."""

import ctypes
import functools
import gc
import platform


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
    layer's results are as large as the last layer's, and new pages cost more than the arithmetic done in them."""
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # names in malloc.h
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, 2**25)  # the most it takes
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(top_pad, 2**26)
