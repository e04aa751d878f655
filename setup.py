"""Only what pyproject.toml cannot say: found packages, three folders from the top of the repository, compiled code."""

from pathlib import Path

from setuptools import Extension, find_packages, setup

_FOLDERS = ("kvmigrate._sql", "kvmigrate._flags", "kvmigrate._examples")
# Without a compiler the installation goes on, and Python does the work of these.
_COMPILED = {
    "kvmigrate.transform.lens._emit": Path("kvmigrate/transform/lens/emit"),
    "kvmigrate.consistency._walk": Path("kvmigrate/consistency/walk"),
}

setup(
    packages=[*find_packages(include=["kvmigrate", "kvmigrate.*"]), *_FOLDERS],
    ext_modules=[
        Extension(
            name,
            sources=sorted(str(path) for path in folder.glob("*.c")),
            depends=sorted(str(path) for path in folder.glob("*.h")),
            optional=True,
        )
        for name, folder in _COMPILED.items()
    ],
)
