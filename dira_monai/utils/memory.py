"""How the C library of the system manages memory."""

import ctypes
import platform


def tune_malloc() -> None:
    """Have the C library keep what is freed instead of giving it back: each step needs the same memory again.

    Otherwise every large tensor on the CPU is made of pages that the system has to clear first. With glibc alone; other
    systems stay as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(-4, 0)  # M_MMAP_MAX: no blocks of their own
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def trim_malloc() -> None:
    """Give memory that was freed back to the system, as far as the C library of the system can, once.

    Threads that fill a cache leave more of it behind than the cache holds.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
