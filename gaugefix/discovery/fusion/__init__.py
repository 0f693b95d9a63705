"""Parts of a graph that are one operation: found by what they compute, not by how they are written."""

from gaugefix.discovery.fusion.find import Fusion, Fusions, fusions

__all__ = ["Fusion", "Fusions", "fusions"]
