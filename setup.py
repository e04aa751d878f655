"""Only what pyproject.toml cannot say: found packages and two folders from the top of the repository."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["kvmigrate", "kvmigrate.*"]), "kvmigrate._sql", "kvmigrate._flags"])
