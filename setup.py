"""Only what pyproject.toml cannot say: found packages, three folders from the top of the repository, compiled code."""

from pathlib import Path

from setuptools import Extension, find_packages, setup

_FOLDERS = ("kvmigrate._sql", "kvmigrate._flags", "kvmigrate._examples")
_EMITTER = Path("kvmigrate/transform/lens/emit")

setup(
    packages=[*find_packages(include=["kvmigrate", "kvmigrate.*"]), *_FOLDERS],
    ext_modules=[
        Extension(
            "kvmigrate.transform.lens._emit",
            sources=sorted(str(path) for path in _EMITTER.glob("*.c")),
            depends=sorted(str(path) for path in _EMITTER.glob("*.h")),
            # Without a compiler the installation goes on, and generated Python does the work.
            optional=True,
        )
    ],
)
