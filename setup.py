"""Only what pyproject.toml cannot say: found packages and three folders from the top of the repository."""

from setuptools import find_packages, setup

_FOLDERS = ("kvmigrate._sql", "kvmigrate._flags", "kvmigrate._examples")

setup(packages=[*find_packages(include=["kvmigrate", "kvmigrate.*"]), *_FOLDERS])
