"""A gift shop's store: synthetic, seeded, any size, with every injected defect counted."""

from kvmigrate.demo.celebration.example import mapping_path
from kvmigrate.demo.celebration.manifest import Manifest
from kvmigrate.demo.celebration.store import MIN_SIZE, Celebration, generate, manifest

__all__ = ["MIN_SIZE", "Celebration", "Manifest", "generate", "manifest", "mapping_path"]
